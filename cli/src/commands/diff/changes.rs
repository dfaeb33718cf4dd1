//! How two JSON values differ, as a flat list.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// A value that is not the same on both sides; `None` where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Change {
    /// Where it is: `input.age.type`. Empty when it is all there is.
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) a: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b: Option<Value>,
}

/// The differences of two values, in the order of their paths.
pub(super) fn changes(a: &impl Serialize, b: &impl Serialize) -> Vec<Change> {
    let value = |value: Result<Value, _>| value.unwrap_or(Value::Null);
    let mut found = vec![];
    let (a, b) = (
        value(serde_json::to_value(a)),
        value(serde_json::to_value(b)),
    );
    compare("", &a, &b, &mut found);
    found
}

fn compare(path: &str, a: &Value, b: &Value, found: &mut Vec<Change>) {
    if a == b {
        return;
    }
    let before = found.len();
    if let (Some(first), Some(second)) = (parts(a), parts(b)) {
        let added = second.keys().filter(|key| !first.contains_key(*key));
        for key in first.keys().chain(added) {
            let of = |parts: &BTreeMap<String, &Value>| {
                parts.get(key).map_or(Value::Null, |value| (*value).clone())
            };
            compare(&joined(path, key), &of(&first), &of(&second), found);
        }
    }
    // Also when the same items are in another order.
    if found.len() == before {
        found.push(Change {
            path: path.to_owned(),
            a: Some(a.clone()).filter(|value| !value.is_null()),
            b: Some(b.clone()).filter(|value| !value.is_null()),
        });
    }
}

fn joined(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// What a value is made of: an object's fields, or a list's items by their names. Anything else is
/// one value.
fn parts(value: &Value) -> Option<BTreeMap<String, &Value>> {
    if let Value::Object(fields) = value {
        let fields = fields.iter().map(|(key, value)| (key.clone(), value));
        return Some(fields.collect());
    }
    let Value::Array(items) = value else {
        return None;
    };
    let named = |item| Some((Value::get(item, "name")?.as_str()?.to_owned(), item));
    let named: Option<BTreeMap<_, _>> = items.iter().map(named).collect();
    named.filter(|named| !items.is_empty() && named.len() == items.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(a: &Value, b: &Value) -> Vec<String> {
        changes(a, b)
            .into_iter()
            .map(|change| change.path)
            .collect()
    }

    #[test]
    fn fields_and_named_items_are_compared_by_name() {
        let fields = |age: &str, other: &str| json!({"fields": [{"name": "age", "type": age}, {"name": other, "type": "utf8"}], "same": 1});
        let found = paths(&fields("int64", "x"), &fields("float64", "y"));
        assert_eq!(found, ["fields.age.type", "fields.x", "fields.y"]);
    }

    #[test]
    fn another_order_is_a_difference() {
        let (one, two) = (json!({"name": "age"}), json!({"name": "x"}));
        let found = paths(
            &json!({"fields": [one, two], "x": 1}),
            &json!({"fields": [two, one], "x": 2}),
        );
        assert_eq!(found, ["fields", "x"]);
    }

    #[test]
    fn what_is_missing_is_nothing() {
        let found = changes(&json!({"tile": null, "seed": 1}), &json!({"tile": 8}));
        let told: Vec<_> = found
            .into_iter()
            .map(|change| (change.path, change.a, change.b))
            .collect();
        let expected = [
            ("seed".to_owned(), Some(json!(1)), None),
            ("tile".to_owned(), None, Some(json!(8))),
        ];
        assert_eq!(told, expected);
        assert_eq!(changes(&"same", &"same"), []);
    }
}
