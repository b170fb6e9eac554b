//! The texts of broken constraints.

use serde_json::{Value, json};

use crate::fixture::Door;
use crate::widgets::WIDGETS;

fn message(input: &Value) -> String {
    let shape = WIDGETS.operation("CreateWidget").unwrap().input.unwrap();
    wire::validation::message(&wire::validation::validate(&WIDGETS, shape, input))
}

/// The one violation of a widget with these members beside its name.
fn one(mut members: Value) -> String {
    members["WidgetName"] = "a".into();
    let message = message(&members);
    message.strip_prefix("1 validation error detected: ").unwrap_or_else(|| panic!("{message:?}")).to_owned()
}

#[test]
fn every_constraint_has_its_text() {
    let cases = [
        (
            json!({"Colour": "Blue"}),
            "Value 'Blue' at 'colour' failed to satisfy constraint: Member must satisfy enum value set: [Red, Green]",
        ),
        (
            json!({"Count": 0}),
            "Value '0' at 'count' failed to satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            json!({"Count": 101}),
            "Value '101' at 'count' failed to satisfy constraint: Member must have value less than or equal to 100",
        ),
        (
            json!({"Ratio": 0.75}),
            "Value '0.75' at 'ratio' failed to satisfy constraint: Member must have value less than or equal to 0.5",
        ),
        (
            json!({"Bytes": "AAAAAAAAAAAAAAAAAAAAAAA="}),
            "Value at 'bytes' failed to satisfy constraint: Member must have length less than or equal to 16",
        ),
        (
            json!({"Names": ["a", "b", "c", "d"]}),
            "Value '[a, b, c, d]' at 'names' failed to satisfy constraint: Member must have length less than or equal to 3",
        ),
        (
            json!({"Parts": []}),
            "Value '[]' at 'parts' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            json!({"Names": ["a", "NOT"]}),
            "Value '[a, NOT]' at 'names' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or \
             equal to 8, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [a-z](-*[a-z0-9])*]",
        ),
        (
            json!({"Tags": {"k": "longer than ten"}}),
            "Value '{k=longer than ten}' at 'tags' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less \
             than or equal to 10, Member must have length greater than or equal to 0]",
        ),
        (
            json!({"Tags": {"K": "v"}}),
            "Value '{K=v}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal \
             to 8, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [a-z](-*[a-z0-9])*]",
        ),
        (
            json!({"Parts": [{"PartName": "p"}, {}]}),
            "Value null at 'parts.2.member.partName' failed to satisfy constraint: Member must not be null",
        ),
        (
            json!({"Parts": [null]}),
            "Value null at 'parts.1.member' failed to satisfy constraint: Member must not be null",
        ),
        (
            json!({"Parts": [{"PartName": "p", "Sub": [{"PartName": "NOT"}]}]}),
            "Value 'NOT' at 'parts.1.member.sub.1.member.partName' failed to satisfy constraint: Member must satisfy regular expression pattern: \
             [a-z](-*[a-z0-9])*",
        ),
        (
            json!({"PartMap": {"x": {}}}),
            "Value null at 'partMap.x.member.partName' failed to satisfy constraint: Member must not be null",
        ),
        (
            json!({"Grid": [["a"], ["a", "b", "c", "d"]]}),
            "Value '[a, b, c, d]' at 'grid.2.member' failed to satisfy constraint: Member must have length less than or equal to 3",
        ),
        (
            json!({"Choice": {}}),
            "Value at 'choice' failed to satisfy constraint: Exactly one of the members [One, Other] must be set",
        ),
        (
            json!({"Choice": {"One": "1", "Other": "2"}}),
            "Value at 'choice' failed to satisfy constraint: Exactly one of the members [One, Other] must be set",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(one(input), expected);
    }
}

#[test]
fn names_and_lengths() {
    let of = |name: &str| message(&json!({"WidgetName": name}));
    assert_eq!(of("a-b"), "");
    assert_eq!(
        message(&json!({})),
        "1 validation error detected: Value null at 'widgetName' failed to satisfy constraint: Member must not be null"
    );
    assert_eq!(
        of("A"),
        "1 validation error detected: Value 'A' at 'widgetName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-z](-*[a-z0-9])*"
    );
    assert_eq!(
        of(""),
        "1 validation error detected: Value '' at 'widgetName' failed to satisfy constraint: Member must have length greater than or equal to 1"
    );
    assert_eq!(
        of("ääääääääää"),
        "1 validation error detected: Value 'ääääääääää' at 'widgetName' failed to satisfy constraint: Member must have length less than or equal to 8"
    );
    // Characters are counted, not bytes; and the whole text must match.
    assert!(of("äääää").contains("regular expression"));
    assert!(of("ab\n").contains("regular expression"));
}

#[test]
fn all_violations_come_at_once_and_long_values_are_cut() {
    let input = json!({"Colour": "Blue", "Count": 0});
    assert_eq!(
        message(&input),
        "3 validation errors detected: Value null at 'widgetName' failed to satisfy constraint: Member must not be null; \
        Value 'Blue' at 'colour' failed to satisfy constraint: Member must satisfy enum value set: [Red, Green]; \
        Value '0' at 'count' failed to satisfy constraint: Member must have value greater than or equal to 1"
    );
    let long = message(&json!({"WidgetName": "ä".repeat(1_000_000)}));
    assert!(long.len() < 3_000);
    assert!(long.contains(&format!("Value '{}...' at", "ä".repeat(1024))));
    let many = message(&json!({"WidgetName": "a", "Parts": vec![json!({}); 100_000]}));
    assert!(many.starts_with("100 validation errors detected: "));
}

#[tokio::test]
async fn violations_reach_the_client_under_the_code_of_the_service() {
    let door = Door::new();
    let answer = door.json("widgets", "Widgets_2026.CreateWidget", "{}").await;
    assert_eq!((answer.status, &*answer.code()), (400, "ValidationException"));
    assert_eq!(answer.json()["message"], message(&json!({})));
    let answer = door.query("Action=PutMeter").await;
    assert!(answer.text().contains(
        "<Code>ValidationException</Code><Message>1 validation error detected: Value null at 'widgetName'"
    ));
}
