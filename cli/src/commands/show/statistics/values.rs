//! Values as people read them.

use chrono::DateTime;
use envelope_format::statistics::Value;
use envelope_format::{DataType, TimeUnit};

/// What the numbers of a column mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Themselves.
    Plain,
    /// Days since 1970.
    Days,
    /// A moment, so many of which are a second; whether it is one of a zone.
    Moment { per_second: i64, zoned: bool },
    /// A length of time, so many of which are a second.
    Span { per_second: i64 },
}

impl Scale {
    pub(crate) fn of(data_type: &DataType) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are plain")]
        match data_type {
            DataType::Date => Self::Days,
            DataType::Timestamp(unit, zone) => Self::Moment {
                per_second: per_second(*unit),
                zoned: zone.is_some(),
            },
            DataType::Duration(unit) => Self::Span {
                per_second: per_second(*unit),
            },
            _ => Self::Plain,
        }
    }

    pub(crate) fn value(self, value: &Value) -> String {
        match value {
            Value::Integer(count) => self.count(*count),
            Value::Unsigned(count) => count.to_string(),
            Value::Float(number) => rounded(*number),
            Value::Text(text) => text.clone(),
        }
    }

    /// A mean, which lies between the values.
    pub(crate) fn mean(self, mean: f64) -> String {
        match self {
            Self::Plain => rounded(mean),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "between two 64-bit numbers"
            )]
            Self::Days | Self::Moment { .. } | Self::Span { .. } => self.count(mean.round() as i64),
        }
    }

    /// How far values are apart.
    #[expect(clippy::cast_precision_loss, reason = "shown with six digits")]
    pub(crate) fn difference(self, difference: f64) -> String {
        match self {
            Self::Plain => rounded(difference),
            Self::Days => format!("{} d", rounded(difference)),
            Self::Moment { per_second, .. } | Self::Span { per_second } => {
                format!("{} s", rounded(difference / per_second as f64))
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "shown with six digits")]
    fn count(self, count: i64) -> String {
        let shown = match self {
            Self::Plain => None,
            Self::Days => count.checked_mul(86_400).and_then(day),
            Self::Moment { per_second, zoned } => moment(count, per_second, zoned),
            Self::Span { per_second } => {
                Some(format!("{} s", rounded(count as f64 / per_second as f64)))
            }
        };
        // Of times that no calendar has, at least the number.
        shown.unwrap_or_else(|| count.to_string())
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn day(seconds: i64) -> Option<String> {
    Some(
        DateTime::from_timestamp(seconds, 0)?
            .date_naive()
            .to_string(),
    )
}

/// `2026-11-23 12:05:59`, with `Z` where it is a moment everywhere.
fn moment(count: i64, per_second: i64, zoned: bool) -> Option<String> {
    let rest = count.rem_euclid(per_second) * (1_000_000_000 / per_second);
    let seconds = count.div_euclid(per_second);
    let moment = DateTime::from_timestamp(seconds, u32::try_from(rest).ok()?)?;
    let zone = if zoned { "Z" } else { "" };
    Some(format!("{}{zone}", moment.naive_utc()))
}

/// `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Six significant digits, as short as possible.
pub(crate) fn rounded(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let magnitude = number.abs().log10().floor();
    if !(-5.0..15.0).contains(&magnitude) {
        return format!("{number:.4e}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 10"
    )]
    let decimals = (5.0 - magnitude).max(0.0) as usize;
    let text = format!("{number:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_digits() {
        for (number, shown) in [
            (0.0, "0"),
            (41.0, "41"),
            (0.123_456_789, "0.123457"),
            (-1234.5678, "-1234.57"),
            (1_234_567.8, "1234568"),
            (1e-9, "1.0000e-9"),
            (0.1 + 0.2, "0.3"),
        ] {
            assert_eq!(rounded(number), shown);
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (count, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(count), shown);
        }
    }

    #[test]
    fn times_are_those_of_a_calendar() {
        let shown = |text: &str, count| {
            let data_type: DataType = text.parse().unwrap();
            Scale::of(&data_type).value(&Value::Integer(count))
        };
        assert_eq!(shown("date", 20_000), "2024-10-04");
        assert_eq!(
            shown("timestamp[ms, Europe/London]", 1_500),
            "1970-01-01 00:00:01.500Z"
        );
        assert_eq!(shown("timestamp[s]", -1), "1969-12-31 23:59:59");
        assert_eq!(shown("duration[us]", 2_500_000), "2.5 s");
        assert_eq!(shown("date", i64::MAX), i64::MAX.to_string());
        assert_eq!(shown("int64", i64::MIN), i64::MIN.to_string());
    }
}
