//! Numbers as text, by the rules of Python.

/// What `int(text)` is.
pub(super) fn integer(text: &str) -> Option<i128> {
    joined(text)?.parse().ok()
}

/// What `float(text)` is.
pub(super) fn float(text: &str) -> Option<f64> {
    joined(text)?.parse().ok()
}

/// The text without the spaces around it, and without underscores, of which each is between digits.
fn joined(text: &str) -> Option<String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let is_digit = |place: Option<usize>| {
        let byte = place.and_then(|place| bytes.get(place));
        byte.is_some_and(u8::is_ascii_digit)
    };
    let all_join = text
        .match_indices('_')
        .all(|(place, _)| is_digit(place.checked_sub(1)) && is_digit(Some(place + 1)));
    all_join.then(|| text.replace('_', ""))
}

/// What `str(value)` is.
pub(super) fn written(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    let text = format!("{value:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_spaces_around_and_underscores_between_digits() {
        for (text, value) in [("1", 1), (" +7\n", 7), ("-1_000", -1000), ("007", 7)] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for text in ["", " ", "_1", "1_", "1__0", "+ 1", "1.0", "0x10", "1e3"] {
            assert_eq!(integer(text), None, "{text}");
        }
        for (text, value) in [(" 1_0.5 ", 10.5), (".5", 0.5), ("5.", 5.0), ("1e1_0", 1e10)] {
            assert_eq!(float(text), Some(value), "{text}");
        }
        for text in ["", "1_.5", "_1", "1e", "0x1p3", "1,5", "true"] {
            assert_eq!(float(text), None, "{text}");
        }
        assert!(float("-NaN").is_some_and(f64::is_nan));
        assert_eq!(float("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(float("1e999"), Some(f64::INFINITY));
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
            (1e-4, "0.0001"),
            (1.5e-7, "1.5e-07"),
            (5e-324, "5e-324"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(written(value), text);
        }
    }
}
