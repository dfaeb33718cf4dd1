//! Decimals as text: digits, and a point if there is a fraction.

/// Why a text is not a decimal of the wanted digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotDecimal {
    /// It is not a decimal at all.
    Form,
    /// It has more digits than the type, before or after the point.
    Range,
}

/// Reads `-12.30` as the integer that it is in units of the last of `scale` digits after the point.
/// Zeros that say nothing may be there or not; exponents may not.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: u8) -> Result<i128, NotDecimal> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(NotDecimal::Form),
        Some(parts) => parts,
        None => (digits, ""),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(NotDecimal::Form);
    }
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    if fraction.len() > scale || whole.len() > precision - scale {
        return Err(NotDecimal::Range);
    }
    let digits = format!("{whole}{fraction:0<scale$}");
    let number = match digits.as_str() {
        "" => 0,
        digits => digits.parse::<i128>().map_err(|_| NotDecimal::Range)?,
    };
    Ok(if negative { -number } else { number })
}

/// Writes all the digits that the type has after the point.
pub(crate) fn format_decimal(number: i128, scale: u8) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_with_all_their_digits() {
        for (text, scale, number) in [
            ("0", 0, 0),
            ("0.00", 2, 0),
            ("-0.05", 2, -5),
            ("12.30", 2, 1230),
            ("-12", 0, -12),
            (
                "0.99999999999999999999999999999999999999",
                38,
                10_i128.pow(38) - 1,
            ),
        ] {
            assert_eq!(parse_decimal(text, 38, scale), Ok(number), "{text}");
            assert_eq!(format_decimal(number, scale), text);
        }
    }

    #[test]
    fn zeros_that_say_nothing_are_read() {
        for text in ["1.5", "001.5", "1.50000", "1.50"] {
            assert_eq!(parse_decimal(text, 4, 2), Ok(150), "{text}");
        }
    }

    #[test]
    fn what_is_no_decimal_or_too_long_is_refused() {
        for text in [
            "", "-", ".", ".5", "5.", "1e3", "+1", "1,5", " 1", "NaN", "--1", "1.2.3", "\u{663}",
        ] {
            assert_eq!(parse_decimal(text, 4, 2), Err(NotDecimal::Form), "{text}");
        }
        for text in ["100", "1.001", "-100.00"] {
            assert_eq!(parse_decimal(text, 4, 2), Err(NotDecimal::Range), "{text}");
        }
    }
}
