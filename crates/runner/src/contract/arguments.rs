//! Hyperparameters as command-line arguments.

use std::collections::BTreeMap;

use super::python_json::Json;

/// `--name value` pairs in name order; a name of one letter gets one dash.
pub fn command_line(hyperparameters: &BTreeMap<String, Json>) -> Vec<String> {
    let mut words = Vec::new();
    for (name, value) in hyperparameters {
        words.push(match name.chars().count() {
            0 => String::new(),
            1 => format!("-{name}"),
            _ => format!("--{name}"),
        });
        words.push(match value {
            Json::Null => String::new(),
            Json::Dictionary(members) => {
                let pairs: Vec<String> =
                    members.iter().map(|(name, value)| format!("{name}={}", value.display())).collect();
                pairs.join(",")
            }
            other => other.display(),
        });
    }
    words
}

/// A word that a POSIX shell reads back as it is.
pub fn shell_quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "@%+=:,./-_".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r#"'"'"'"#))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sorted_and_one_letter_names_have_one_dash() {
        let given = [
            ("lr", "0.1"),
            ("e", "2"),
            ("batch-size", "32"),
            ("none", "null"),
            ("map", "{\"b\":1,\"a\":\"x\"}"),
        ];
        let decoded = given.iter().map(|(name, text)| ((*name).to_owned(), Json::decode(text))).collect();
        let expected = ["--batch-size", "32", "-e", "2", "--lr", "0.1", "--map", "a=x,b=1", "--none", ""];
        assert_eq!(command_line(&decoded), expected);
    }
}
