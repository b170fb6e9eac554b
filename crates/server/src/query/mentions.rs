//! Which names a query may mean: those that stand in its text as words.

/// Whether a name stands in the text as a word of its own. What is in comments and quotes counts, too: it is the engine that
/// reads the query, and only what it finds here can be read.
pub fn mentions(lower_text: &str, lower_name: &str) -> bool {
    let is_part = |one: char| one.is_alphanumeric() || one == '_';
    let mut from = 0;
    while let Some(at) = lower_text[from..].find(lower_name).map(|at| at + from) {
        let end = at + lower_name.len();
        let before = lower_text[..at].chars().next_back().is_some_and(is_part);
        let after = lower_text[end..].chars().next().is_some_and(is_part);
        if !before && !after {
            return true;
        }
        from = at + lower_text[at..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn names_are_words() {
        let text = "select a from sales.orders_2024 o, \"odd-name\" where x = 'orders'";
        for name in ["sales", "orders_2024", "odd-name", "orders"] {
            assert!(mentions(text, name), "{name}");
        }
        for name in ["order", "orders_20", "ales", "b"] {
            assert!(!mentions(text, name), "{name}");
        }
        assert!(mentions("éa a", "a") && !mentions("éaé", "a"));
    }
}
