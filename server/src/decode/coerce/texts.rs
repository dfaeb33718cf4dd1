//! Text, and bytes as text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::numbers::may_be_integer;
use super::{Column, Misfit, python, wrapped};

/// Text and bytes of arrays: every value as Python writes it, without the zeros at its end, which
/// `NumPy` takes for the space behind it.
pub(super) struct Texts {
    inner: Box<dyn Column>,
    is_bytes: bool,
}

impl Texts {
    pub(super) fn of_text(inner: Box<dyn Column>) -> Self {
        Self {
            inner,
            is_bytes: false,
        }
    }

    pub(super) fn of_bytes(inner: Box<dyn Column>) -> Self {
        Self {
            inner,
            is_bytes: true,
        }
    }
}

impl Column for Texts {
    wrapped!();

    fn take_null(&mut self) -> bool {
        self.text("None").is_ok()
    }

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        self.text(if value { "True" } else { "False" })
    }

    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        self.text(&value.to_string())
    }

    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        if value.is_finite() && may_be_integer(value) {
            return Err(Misfit::Range);
        }
        self.text(&python::written(value))
    }

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let value = value.trim_end_matches('\0');
        if !self.is_bytes {
            return self.inner.text(value);
        }
        if !value.is_ascii() {
            return Err(Misfit::Form("bytes of `instances` and `inputs` are ASCII"));
        }
        self.inner.text(&BASE64_STANDARD.encode(value))
    }
}

/// Bytes of frames: base64, of which everything is passed over that is none.
pub(super) struct Base64 {
    inner: Box<dyn Column>,
}

impl Base64 {
    pub(super) fn new(inner: Box<dyn Column>) -> Self {
        Self { inner }
    }
}

impl Column for Base64 {
    wrapped!();

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let bytes = decoded(value).ok_or(Misfit::Form("it is base64 that ends too soon"))?;
        self.inner.text(&BASE64_STANDARD.encode(bytes))
    }
}

/// What Python's `base64.decodebytes` gives; `None` where it lacks digits or padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut digits, mut before, mut padding) = (vec![], 0_u8, 0_u8, 0_u8);
    for byte in text.bytes() {
        if byte == b'=' {
            padding = padding.saturating_add(u8::from(digits >= 2));
            // Padding that fills up what was begun is the end, whatever follows.
            if digits >= 2 && digits.saturating_add(padding) >= 4 {
                return Some(bytes);
            }
            continue;
        }
        let Some(digit) = digit(byte) else { continue };
        padding = 0;
        // The bits that are left of the digit before, and as many of this one as make a byte.
        match digits {
            0 => {}
            1 => bytes.push(before << 2 | digit >> 4),
            2 => bytes.push(before << 4 | digit >> 2),
            _ => bytes.push(before << 6 | digit),
        }
        before = digit;
        digits = (digits + 1) % 4;
    }
    (digits == 0).then_some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_base64_is_passed_over() {
        for (text, bytes) in [
            ("AAEC", Some(&[0, 1, 2][..])),
            ("/+8=", Some(&[0xff, 0xef])),
            ("A A\nE!C", Some(&[0, 1, 2])),
            ("!!!", Some(&[])),
            ("", Some(&[])),
            ("====", Some(&[])),
            ("AAE=", Some(&[0, 1])),
            ("AA==", Some(&[0])),
            ("AA==BB", Some(&[0])),
            ("A", None),
            ("A===", None),
            ("AA", None),
            ("AA=", None),
            ("AA=A", None),
            ("AAECA", None),
        ] {
            assert_eq!(decoded(text).as_deref(), bytes, "{text}");
        }
    }
}
