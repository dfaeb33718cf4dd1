//! Moments of an unnamed clock: counts of nanoseconds, and dates in many forms.

use envelope_format::TimeUnit;

use super::numbers::may_be_integer;
use super::{Casts, Column, Misfit, wrapped};
use crate::column::counts;
use crate::moment::{days, parse_fraction, parse_offset};

/// `MLflow`'s `datetime`, which counts nanoseconds whatever the column does.
pub(super) struct Moments {
    inner: Box<dyn Column>,
    nullable: bool,
    /// How many make one of the column's unit.
    nanoseconds_each: i64,
    casts: Casts,
    /// Pandas guesses a form from the first text, and then wants that of all.
    form: Option<Form>,
}

impl Moments {
    pub(super) fn new(unit: TimeUnit, nullable: bool, casts: Casts) -> Self {
        Self {
            inner: counts(unit),
            nullable,
            nanoseconds_each: match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            },
            casts,
            form: None,
        }
    }

    fn take(&mut self, nanoseconds: i64) -> Result<(), Misfit> {
        if nanoseconds == i64::MIN {
            return self.take_nothing();
        }
        if nanoseconds % self.nanoseconds_each != 0 {
            return Err(Misfit::Range);
        }
        let count = nanoseconds / self.nanoseconds_each;
        self.inner.integer(count.into())
    }

    /// `NaT`.
    fn take_nothing(&mut self) -> Result<(), Misfit> {
        if !self.nullable {
            return Err(Misfit::Form("it is no moment, and none may be missing"));
        }
        self.inner.null();
        Ok(())
    }

    fn guessed(&mut self, text: &str) -> Result<(), Misfit> {
        let order = self.form.map(|form| form.order);
        let said =
            read(text, order).ok_or(Misfit::Form("it is no date of a form that is known"))?;
        if said.offset.is_some() {
            return Err(Misfit::Form("it has a time zone, and the column has none"));
        }
        if *self.form.get_or_insert(said.form) != said.form {
            return Err(Misfit::Form("it has another form than the first one"));
        }
        self.take(i64::try_from(said.nanoseconds).map_err(|_| Misfit::Range)?)
    }

    /// What nanoseconds of 64 bits cannot say wraps around.
    #[expect(clippy::cast_possible_truncation, reason = "that is the cast")]
    fn standard(&mut self, text: &str) -> Result<(), Misfit> {
        let said = read(text, None).filter(|said| said.form.is_standard());
        let said = said.ok_or(Misfit::Form(
            "it is not ISO 8601 with a year of four digits",
        ))?;
        let offset = i128::from(said.offset.unwrap_or(0)) * 1_000_000_000;
        self.take((said.nanoseconds - offset) as i64)
    }
}

impl Column for Moments {
    wrapped!();

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        if self.casts == Casts::Frame {
            return Err(Misfit::Type);
        }
        self.take(value.into())
    }

    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        self.take(i64::try_from(value).map_err(|_| Misfit::Range)?)
    }

    /// What is after the point is cut off.
    #[expect(clippy::cast_possible_truncation, reason = "that is the cast")]
    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        if self.casts == Casts::Array {
            return Err(Misfit::Type);
        }
        if value.is_finite() && may_be_integer(value) {
            return Err(Misfit::Range);
        }
        if value.is_nan() || value >= 9_223_372_036_854_775_808.0 {
            return self.take_nothing();
        }
        self.take(value as i64)
    }

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let is_guessed = self.casts == Casts::Frame;
        match value {
            "" | "NaT" | "nat" | "NAT" => self.take_nothing(),
            "nan" | "NaN" | "NAN" if is_guessed => self.take_nothing(),
            _ if is_guessed => self.guessed(value),
            _ => self.standard(value),
        }
    }
}

/// The form of a date, and of a time of day behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    order: Order,
    separator: Option<char>,
    joint: Option<char>,
    clock: Clock,
}

impl Form {
    fn is_standard(self) -> bool {
        let is_date = match self.order {
            Order::Year => self.separator.is_none(),
            Order::YearMonth | Order::YearMonthDay => self.separator == Some('-'),
            Order::MonthDayYear | Order::DayMonthYear => false,
        };
        is_date && (self.joint.is_none() || self.order == Order::YearMonthDay)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Year,
    YearMonth,
    YearMonthDay,
    MonthDayYear,
    DayMonthYear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    None,
    Hours,
    Minutes,
    Seconds,
    Fraction,
}

/// What a text says.
struct Said {
    form: Form,
    /// Since 1970-01-01T00:00:00 of its own clock.
    nanoseconds: i128,
    /// How many seconds its clock is before UTC's, if it says so.
    offset: Option<i64>,
}

/// `order` is that of the date, where it is known.
fn read(text: &str, order: Option<Order>) -> Option<Said> {
    let (date, joint, rest) = match text.find(['T', ' ']) {
        Some(place) => (
            &text[..place],
            text[place..].chars().next(),
            &text[place + 1..],
        ),
        None => (text, None, ""),
    };
    let (order, separator, days) = read_date(date, order)?;
    let (clock, nanoseconds, offset) = match joint {
        Some(_) => read_clock(rest)?,
        None => (Clock::None, 0, None),
    };
    Some(Said {
        form: Form {
            order,
            separator,
            joint,
            clock,
        },
        nanoseconds: i128::from(days) * 86_400_000_000_000 + i128::from(nanoseconds),
        offset,
    })
}

/// The order of a date, what is between its parts, and its days since 1970-01-01.
fn read_date(text: &str, known: Option<Order>) -> Option<(Order, Option<char>, i64)> {
    let separator = text.chars().find(|char| ['-', '/', '.'].contains(char));
    let parts: Vec<&str> = match separator {
        Some(separator) => text.split(separator).collect(),
        None if text.len() == 8 && text.is_ascii() => vec![&text[..4], &text[4..6], &text[6..]],
        None => vec![text],
    };
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let numbers = parts.into_iter().map(number).collect::<Option<Vec<_>>>()?;
    let (order, days) = match (lengths.as_slice(), numbers.as_slice()) {
        ([4], [year]) => (Order::Year, days(*year, 1, 1)),
        ([4, 2], [year, month]) => (Order::YearMonth, days(*year, *month, 1)),
        ([4, 2, 2], [year, month, day]) => (Order::YearMonthDay, days(*year, *month, *day)),
        ([2, 2, 4], [first, second, year]) => {
            let is_day_first = match known {
                Some(order) => order == Order::DayMonthYear,
                // Only what can be no month is taken for a day.
                None => *first > 12,
            };
            if is_day_first {
                (Order::DayMonthYear, days(*year, *second, *first))
            } else {
                (Order::MonthDayYear, days(*year, *first, *second))
            }
        }
        _ => return None,
    };
    Some((order, separator, days?))
}

/// The form of a time of day, its nanoseconds, and the offset of its zone.
fn read_clock(text: &str) -> Option<(Clock, i64, Option<i64>)> {
    let length = text.find(|char: char| !char.is_ascii_digit() && char != ':');
    let (clock, rest) = text.split_at(length.unwrap_or(text.len()));
    let parts: Vec<&str> = clock.split(':').collect();
    let (form, [hour, minute, second]) = match parts.as_slice() {
        [hour] => (Clock::Hours, [*hour, "00", "00"]),
        [hour, minute] => (Clock::Minutes, [*hour, *minute, "00"]),
        [hour, minute, second] if rest.starts_with('.') => {
            (Clock::Fraction, [*hour, *minute, *second])
        }
        [hour, minute, second] => (Clock::Seconds, [*hour, *minute, *second]),
        _ => return None,
    };
    if rest.starts_with('.') && form != Clock::Fraction {
        return None;
    }
    let (fraction, zone) = parse_fraction(rest)?;
    let part =
        |text: &str, end: i64| number(text).filter(|number| text.len() == 2 && *number < end);
    let seconds = part(hour, 24)? * 3600 + part(minute, 60)? * 60 + part(second, 60)?;
    let offset = match zone {
        "" => None,
        "Z" => Some(0),
        zone => Some(parse_offset(zone)?),
    };
    Some((form, seconds * 1_000_000_000 + i64::from(fraction), offset))
}

fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanoseconds(text: &str, order: Option<Order>) -> Option<i128> {
        read(text, order).map(|said| said.nanoseconds)
    }

    #[test]
    fn dates_are_guessed() {
        let second = |of: i128| Some(of * 1_000_000_000);
        for (text, expected) in [
            ("1970", second(0)),
            ("1970-01", second(0)),
            ("1970-01-02", second(86_400)),
            ("1970/01/02", second(86_400)),
            ("1970.01.02", second(86_400)),
            ("19700102", second(86_400)),
            ("01/02/1970", second(86_400)),
            ("13/01/1970", second(12 * 86_400)),
            ("01-13-1970", second(12 * 86_400)),
            ("1970-01-01T01", second(3600)),
            ("1970-01-01 01:01", second(3660)),
            ("1970-01-01T00:00:01.500", Some(1_500_000_000)),
        ] {
            assert_eq!(nanoseconds(text, None), expected, "{text}");
        }
        let first = nanoseconds("02/01/1970", Some(Order::DayMonthYear));
        assert_eq!(first, second(86_400));
    }

    #[test]
    fn what_could_mean_two_things_or_none_is_not_guessed() {
        for text in [
            "",
            "now",
            "today",
            "12:30",
            "Jan 2 1970",
            "1/2/1970",
            "1970-1-2",
            "01/02/70",
            "13/13/1970",
            "1970-01/02",
            "1970-02-30",
            "0000-01-01",
            "197001",
            "1970-01-01T",
            "1970-01-01T1",
            "1970-01-01T24:00",
            "1970-01-01T00:00:60",
            "1970-01-01T00:00.5",
            "1970-01-01T00:00:00.1234567891",
            " 1970-01-01",
            "1970-01-01 ",
            "é970-01-01",
            "1970-001",
        ] {
            assert_eq!(nanoseconds(text, None), None, "{text}");
        }
    }

    #[test]
    fn an_offset_is_told_apart() {
        let offset = |text| read(text, None).and_then(|said| said.offset);
        assert_eq!(offset("1970-01-01T00:00:00+02:00"), Some(7200));
        assert_eq!(offset("1970-01-01T00:00Z"), Some(0));
        assert_eq!(offset("1970-01-01T00:00"), None);
    }
}
