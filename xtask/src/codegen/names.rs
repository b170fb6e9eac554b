//! Names of the models as names of Rust.

/// Words that cannot be names of fields, or not without a mark.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while", "yield",
];

/// Types that the generated code uses by their short names.
const TAKEN_TYPES: &[&str] =
    &["Box", "BTreeMap", "Option", "Some", "None", "String", "Value", "Vec", "SERVICE"];

/// Module of a service: `sagemaker-runtime` becomes `sagemaker_runtime`.
pub fn module(service: &str) -> String {
    service.replace('-', "_")
}

/// Field of a member: `S3DataSource` becomes `s3_data_source`, `VPCId` becomes `vpc_id`, `Type` becomes `type_`.
pub fn field(member: &str) -> String {
    let letters: Vec<char> = member.chars().collect();
    let mut name = String::new();
    for (at, &letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(at + 1);
        let word_begins = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if word_begins {
            name.push('_');
        }
        name.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    if KEYWORDS.contains(&name.as_str()) {
        name.push('_');
    }
    name
}

/// Type of a shape: `existingUserName` becomes `ExistingUserName`.
pub fn type_name(shape: &str) -> String {
    let mut name = camel(shape);
    if TAKEN_TYPES.contains(&name.as_str()) {
        name.push_str("Shape");
    }
    name
}

/// Variant of an enumeration's text: `ml.m5.large` becomes `MlM5Large`, `2xlarge` becomes `V2xlarge`.
pub fn variant(text: &str) -> String {
    let name = camel(text);
    match name.as_str() {
        "" => "Empty".to_owned(),
        "Self" => "Self_".to_owned(),
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => format!("V{name}"),
        _ => name,
    }
}

fn camel(text: &str) -> String {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_snake_case() {
        for (member, expected) in [
            ("TrainingJobName", "training_job_name"),
            ("S3DataSource", "s3_data_source"),
            ("KmsKeyARN", "kms_key_arn"),
            ("VPCId", "vpc_id"),
            ("Type", "type_"),
            ("logGroupName", "log_group_name"),
            ("x-amz-acl", "x_amz_acl"),
        ] {
            assert_eq!(field(member), expected);
        }
    }

    #[test]
    fn variants_are_camel_case() {
        for (text, expected) in [
            ("ml.m5.large", "MlM5Large"),
            ("COMPLETED", "COMPLETED"),
            ("2.0", "V20"),
            ("", "Empty"),
            ("aws:kms", "AwsKms"),
        ] {
            assert_eq!(variant(text), expected);
        }
    }
}
