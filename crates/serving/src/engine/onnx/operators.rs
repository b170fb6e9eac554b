//! Which operators a graph is made of, as far as that says whether its rows may be computed together.

/// Operators that compute each value of each row by itself, in one order, however many rows there are. Products of matrices and sums over
/// axes are not among them: the runtime adds up one row in another order than many.
const EXACT: [&str; 20] = [
    "Add",
    "ArgMax",
    "ArrayFeatureExtractor",
    "Cast",
    "Concat",
    "Div",
    "FeatureVectorizer",
    "Identity",
    "Imputer",
    "LabelEncoder",
    "Mul",
    "OneHotEncoder",
    "Reshape",
    "Scaler",
    "Sub",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    "Where",
    "ZipMap",
];
/// Where operators are the runtime's own.
const DOMAINS: [&str; 3] = ["", "ai.onnx", "ai.onnx.ml"];

// Numbers of fields in ONNX's messages.
const MODEL_GRAPH: u64 = 7;
const GRAPH_NODE: u64 = 1;
const NODE_OPERATOR: u64 = 4;
const NODE_DOMAIN: u64 = 7;

/// Whether a graph gives a row the same answer to the last digit, whatever rows stand beside it, as far as its operators tell.
pub(crate) fn are_exact(model: &[u8]) -> bool {
    operators(model).is_some_and(|found| {
        !found.is_empty()
            && found.iter().all(|(domain, name)| DOMAINS.contains(domain) && EXACT.contains(name))
    })
}

/// Domain and name of each node's operator; `None` where the file is not understood.
fn operators(model: &[u8]) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    for (number, graph) in fields(model)? {
        if number != MODEL_GRAPH {
            continue;
        }
        for (number, node) in fields(graph)? {
            if number != GRAPH_NODE {
                continue;
            }
            let (mut domain, mut name) = ("", "");
            for (number, text) in fields(node)? {
                match number {
                    NODE_OPERATOR => name = std::str::from_utf8(text).ok()?,
                    NODE_DOMAIN => domain = std::str::from_utf8(text).ok()?,
                    _ => {}
                }
            }
            found.push((domain, name));
        }
    }
    Some(found)
}

/// The fields of a message that have a length, with their numbers.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            _ => return None,
        };
        let (field, rest) = message.split_at_checked(length)?;
        message = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, field));
        }
    }
    Some(found)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut field = vec![(number << 3) | 2];
        let mut length = content.len();
        while length >= 0x80 {
            field.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend_from_slice(content);
        field
    }

    fn model(operators: &[(&str, &str)]) -> Vec<u8> {
        let node = |(domain, name): &(&str, &str)| {
            let inputs = field(1, &[b'x'; 200]);
            field(1, &[inputs, field(4, name.as_bytes()), field(7, domain.as_bytes())].concat())
        };
        let nodes: Vec<u8> = operators.iter().flat_map(node).collect();
        // A version, a producer, and a number of eight bytes that nobody knows.
        [vec![8, 0x96, 1], field(2, b"somebody"), vec![0x79, 0, 1, 2, 3, 4, 5, 6, 7], field(7, &nodes)]
            .concat()
    }

    #[test]
    fn trees_are_exact_and_products_are_not() {
        let forest = [("ai.onnx.ml", "TreeEnsembleClassifier"), ("", "Cast")];
        assert_eq!(operators(&model(&forest)), Some(forest.to_vec()));
        assert!(are_exact(&model(&forest)));
        assert!(!are_exact(&model(&[forest[0], ("", "MatMul")])));
        assert!(!are_exact(&model(&[("mine", "Cast")])));
        assert!(!are_exact(&model(&[])));
    }

    #[test]
    fn what_is_no_graph_is_not_exact() {
        let whole = model(&[("ai.onnx.ml", "TreeEnsembleRegressor")]);
        for end in 0..whole.len() {
            assert!(!are_exact(&whole[..end]), "{end}");
        }
        assert!(!are_exact(&[0xff; 64]));
        assert!(!are_exact(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
    }
}
