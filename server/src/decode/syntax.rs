//! Where a body ends to be JSON.

use crate::error::Refusal;

/// Where in the body the JSON ends to be JSON, and what the usual cause is.
pub(crate) fn bad_json(error: &serde_json::Error, body: &[u8]) -> Refusal {
    let (line, column) = (error.line(), error.column());
    let before: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = (before + column.saturating_sub(1)).min(body.len());
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason)
        .to_owned();
    Refusal::BadJson {
        reason,
        line,
        column,
        offset,
        hint: hint(&body[offset..], body),
    }
}

fn hint(rest: &[u8], body: &[u8]) -> Option<&'static str> {
    let starts = |words: &[&str]| words.iter().any(|word| rest.starts_with(word.as_bytes()));
    if starts(&["NaN", "Infinity", "-Infinity", "Inf", "nan", "inf"])
        || rest.starts_with(b"Infinity")
    {
        Some("JSON has no NaN: send null")
    } else if body.starts_with(b"\xEF\xBB\xBF") {
        Some("send UTF-8 without a byte order mark")
    } else if starts(&["'"]) {
        Some("strings in JSON have double quotes")
    } else {
        None
    }
}
