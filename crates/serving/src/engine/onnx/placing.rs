//! Which input of the graph gets which array, and in which dimensions.

use super::cells::{Array, Body};
use crate::engine::refusal::RequestError;

/// What an input of a graph takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// Its dimensions; `None` for those that may have any size.
    pub(crate) shape: Vec<Option<usize>>,
}

impl Port {
    fn takes(&self, shape: &[usize]) -> bool {
        shape.len() == self.shape.len()
            && shape.iter().zip(&self.shape).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted == *size))
    }

    /// The array in the input's dimensions: as it is, with a dimension of one more or less, or with its rows unfolded.
    fn fit(&self, array: &mut Array<'_>) -> Result<(), RequestError> {
        if self.takes(&array.shape) {
            return Ok(());
        }
        let shape = &array.shape;
        let (rank, wanted) = (shape.len(), self.shape.len());
        let mut candidates: Vec<Vec<usize>> = Vec::new();
        if rank + 1 == wanted {
            candidates.push([shape.as_slice(), &[1]].concat());
            candidates.push([&[1], shape.as_slice()].concat());
            // Where both fit, one row is meant, unless the input is a column.
            if self.shape.last() != Some(&Some(1)) {
                candidates.reverse();
            }
        }
        if rank == 0 {
            candidates.push(vec![1; wanted]);
        }
        if rank == wanted + 1 && shape.last() == Some(&1) {
            candidates.push(shape[..rank - 1].to_vec());
        }
        if rank == 2 && wanted > 2 {
            let inner: Option<Vec<usize>> = self.shape[1..].iter().copied().collect();
            if let Some(inner) = inner.filter(|inner| Array::count(inner) == Some(shape[1])) {
                candidates.push([&shape[..1], &inner].concat());
            }
        }
        let fitting = candidates.into_iter().find(|candidate| self.takes(candidate));
        let given = array.shape.clone();
        array.shape = fitting.ok_or_else(|| {
            RequestError::unfit(&format!(
                "the input {} takes an array of {}, not of {}.",
                self.name,
                shown(&self.shape),
                shown(&given.into_iter().map(Some).collect::<Vec<_>>())
            ))
        })?;
        Ok(())
    }

    /// Columns that it takes of a table.
    fn columns(&self) -> Option<usize> {
        match self.shape.as_slice() {
            [_] => Some(1),
            [_, columns] => *columns,
            _ => None,
        }
    }
}

fn shown(shape: &[Option<usize>]) -> String {
    let sizes: Vec<String> =
        shape.iter().map(|size| size.map_or("any".to_owned(), |size| size.to_string())).collect();
    if sizes.is_empty() { "no dimensions".to_owned() } else { sizes.join(" x ") }
}

/// The arrays in the order of the inputs, each in its dimensions.
pub(crate) fn place<'a>(body: Body<'a>, ports: &[Port]) -> Result<Vec<Array<'a>>, RequestError> {
    let mut arrays = match body {
        Body::Unnamed(array) => match ports {
            [_] => vec![array],
            _ => split(array, ports)?,
        },
        Body::Named(arrays) => by_name(arrays, ports)?,
    };
    for (array, port) in arrays.iter_mut().zip(ports) {
        port.fit(array)?;
    }
    Ok(arrays)
}

fn by_name<'a>(
    mut arrays: Vec<(std::borrow::Cow<'a, str>, Array<'a>)>,
    ports: &[Port],
) -> Result<Vec<Array<'a>>, RequestError> {
    let names = || ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut placed = Vec::with_capacity(ports.len());
    for port in ports {
        let at = arrays.iter().position(|(name, _)| *name == port.name);
        let at = at.ok_or_else(|| {
            RequestError::unfit(&format!("the input {} is missing; the model takes {}.", port.name, names()))
        })?;
        placed.push(arrays.swap_remove(at).1);
    }
    match arrays.first() {
        None => Ok(placed),
        Some((name, _)) => {
            Err(RequestError::unfit(&format!("there is no input {name}; the model takes {}.", names())))
        }
    }
}

/// Gives each input its columns of a table.
fn split<'a>(array: Array<'a>, ports: &[Port]) -> Result<Vec<Array<'a>>, RequestError> {
    let named = || {
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        names.join(", ")
    };
    let widths: Option<Vec<usize>> = ports.iter().map(Port::columns).collect();
    let widths = widths.ok_or_else(|| {
        RequestError::unfit(&format!(
            "the model has several inputs: send an array for each by name ({}).",
            named()
        ))
    })?;
    let (rows, columns) = match array.shape.as_slice() {
        [columns] => (1, *columns),
        [rows, columns] => (*rows, *columns),
        _ => return Err(RequestError::unfit("a table of rows and columns was expected.")),
    };
    let total: usize = widths.iter().sum();
    if columns != total {
        return Err(RequestError::unfit(&format!(
            "the rows have {columns} columns, and the model takes {total} ({}).",
            named()
        )));
    }
    let mut arrays: Vec<Array<'a>> = widths
        .iter()
        .map(|width| Array { shape: vec![rows, *width], cells: Vec::with_capacity(rows * width) })
        .collect();
    let mut cells = array.cells.into_iter();
    for _ in 0..rows {
        for (array, width) in arrays.iter_mut().zip(&widths) {
            array.cells.extend(cells.by_ref().take(*width));
        }
    }
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::onnx::cells::Cell;

    fn port(name: &str, shape: &[Option<usize>]) -> Port {
        Port { name: name.into(), shape: shape.to_vec() }
    }

    fn array(shape: &[usize]) -> Array<'static> {
        let count = i64::try_from(Array::count(shape).unwrap()).unwrap();
        Array { shape: shape.to_vec(), cells: (0..count).map(Cell::Integer).collect() }
    }

    fn placed(shape: &[usize], wanted: &[Option<usize>]) -> Result<Vec<usize>, String> {
        let arrays = place(Body::Unnamed(array(shape)), &[port("x", wanted)]).map_err(|error| error.text)?;
        Ok(arrays[0].shape.clone())
    }

    #[test]
    fn an_array_gets_the_dimensions_of_its_input() {
        assert_eq!(placed(&[2, 3], &[None, Some(3)]), Ok(vec![2, 3]));
        assert_eq!(placed(&[3], &[None, Some(3)]), Ok(vec![1, 3]));
        assert_eq!(placed(&[3], &[None, None]), Ok(vec![1, 3]));
        assert_eq!(placed(&[3], &[None, Some(1)]), Ok(vec![3, 1]));
        assert_eq!(placed(&[3, 1], &[None]), Ok(vec![3]));
        assert_eq!(placed(&[], &[None, Some(1)]), Ok(vec![1, 1]));
        assert_eq!(placed(&[5, 12], &[None, Some(3), Some(4)]), Ok(vec![5, 3, 4]));
        assert_eq!(
            placed(&[2, 4], &[None, Some(3)]).unwrap_err(),
            "Unable to evaluate payload provided: the input x takes an array of any x 3, not of 2 x 4."
        );
        assert!(placed(&[2, 2, 2], &[None, Some(3)]).is_err());
    }

    #[test]
    fn several_inputs_get_columns_or_names() {
        let ports = [port("a", &[None, Some(1)]), port("b", &[None, Some(2)]), port("c", &[None])];
        let arrays = place(Body::Unnamed(array(&[2, 4])), &ports).unwrap();
        let cells = |values: &[i64]| values.iter().copied().map(Cell::Integer).collect::<Vec<_>>();
        assert_eq!(arrays[0], Array { shape: vec![2, 1], cells: cells(&[0, 4]) });
        assert_eq!(arrays[1], Array { shape: vec![2, 2], cells: cells(&[1, 2, 5, 6]) });
        assert_eq!(arrays[2], Array { shape: vec![2], cells: cells(&[3, 7]) });
        let says = |body| place(body, &ports).unwrap_err().text;
        assert!(
            says(Body::Unnamed(array(&[2, 3]))).contains("have 3 columns, and the model takes 4 (a, b, c)")
        );
        let named = |names: &[&'static str]| {
            Body::Named(
                names
                    .iter()
                    .map(|name| ((*name).into(), array(if *name == "b" { &[1, 2] } else { &[1] })))
                    .collect(),
            )
        };
        assert_eq!(place(named(&["c", "b", "a"]), &ports).unwrap()[1].shape, [1, 2]);
        assert!(says(named(&["a", "b"])).contains("the input c is missing"));
        assert!(says(named(&["a", "b", "c", "d"])).contains("there is no input d"));
    }
}
