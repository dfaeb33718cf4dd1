//! `NaN` and the infinities, which JSON does not have and which clients send: in Python `json.dumps`
//! writes them, and so does what Triton's client uses.
//!
//! A document in which they are is read again with each of them in quotes, behind a character that
//! no text has: only floats take what looks like that.

use crate::error::Refusal;

/// Of Unicode's private use: the first character of what was no text.
const MARK: &str = "\u{F8FF}\u{F8FE}";

const LITERALS: [(&str, f64); 3] = [
    ("-Infinity", f64::NEG_INFINITY),
    ("Infinity", f64::INFINITY),
    ("NaN", f64::NAN),
];

/// What `read` makes of a document. One that is no JSON is read again with its literals in quotes.
pub(crate) fn tolerant<T>(
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    match read(body) {
        Err(refusal @ Refusal::BadJson { .. }) => match quoted(body) {
            Some(quoted) => read(&quoted),
            None => Err(refusal),
        },
        read => read,
    }
}

/// The document with its literals in quotes; `None` when it has none.
fn quoted(body: &[u8]) -> Option<Vec<u8>> {
    let mut quoted = Vec::with_capacity(body.len() + body.len() / 4);
    let (mut rest, mut found, mut in_text) = (body, false, false);
    while let Some((&byte, after)) = rest.split_first() {
        if let Some((name, _)) = literal(rest).filter(|_| !in_text) {
            found = true;
            quoted.extend_from_slice(format!("\"{MARK}{name}\"").as_bytes());
            rest = &rest[name.len()..];
            continue;
        }
        quoted.push(byte);
        rest = after;
        match byte {
            b'"' => in_text = !in_text,
            // What follows is of the text, a quotation mark too.
            b'\\' if in_text => {
                quoted.extend(after.first());
                rest = after.get(1..).unwrap_or_default();
            }
            _ => {}
        }
    }
    found.then_some(quoted)
}

fn literal(text: &[u8]) -> Option<(&'static str, f64)> {
    let begins = |(name, _): &(&str, f64)| text.starts_with(name.as_bytes());
    LITERALS.into_iter().find(begins)
}

/// Whether it was a literal.
pub(crate) fn is_quoted(text: &str) -> bool {
    text.starts_with(MARK)
}

/// What the literal stands for.
pub(crate) fn value(text: &str) -> f64 {
    let name = text.trim_start_matches(MARK);
    literal(name.as_bytes()).map_or(f64::NAN, |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_text_is_quoted() {
        let body = br#"{"NaN": [NaN, -Infinity, Infinity, "NaN", "a\"NaN", -1]}"#;
        let quoted = quoted(body).expect("there are some");
        let read: serde_json::Value = serde_json::from_slice(&quoted).expect("JSON");
        let values = read["NaN"].as_array().expect("a list");
        let texts: Vec<_> = values.iter().filter_map(|value| value.as_str()).collect();
        assert!(texts[..3].iter().all(|text| is_quoted(text)));
        assert!(value(texts[0]).is_nan());
        assert_eq!(value(texts[1]), f64::NEG_INFINITY);
        assert_eq!(value(texts[2]), f64::INFINITY);
        assert_eq!(texts[3..], ["NaN", "a\"NaN"]);
    }

    #[test]
    fn a_document_without_literals_is_left_alone() {
        for body in [r#"{"a": ["NaN"]}"#, r#"["\\", "Infinity"]"#, "{", ""] {
            assert_eq!(quoted(body.as_bytes()), None, "{body}");
        }
    }
}
