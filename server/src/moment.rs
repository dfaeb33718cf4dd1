//! Dates, moments and times of day as text: RFC 3339, on the proleptic Gregorian calendar.

/// What a text says about a moment: the seconds and nanoseconds since 1970-01-01T00:00:00, in UTC
/// when `zoned`, else on an unnamed clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
    pub(crate) zoned: bool,
}

const SECONDS_PER_DAY: i64 = 86_400;

/// Days from 0001-01-01 to 1970-01-01, and from there to 9999-12-31: what four digits can say.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;

/// Reads `YYYY-MM-DD` as days since 1970-01-01.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (
        number(&bytes[..4])?,
        number(&bytes[5..7])?,
        number(&bytes[8..])?,
    );
    i32::try_from(days(year, month, day)?).ok()
}

/// The days from 1970-01-01 to a day that is in the calendar.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let fits = year >= 1 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    fits.then(|| days_from_civil(year, month, day))
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction][Z|±HH:MM]`. Leap seconds are refused: Arrow cannot hold them.
pub(crate) fn parse_moment(text: &str) -> Option<Moment> {
    let (date, rest) = text.split_at_checked(10)?;
    let days = parse_date(date)?;
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let (nanoseconds, zone) = parse_fraction(rest)?;
    let offset = match zone {
        "" => None,
        "Z" | "z" => Some(0),
        _ => Some(parse_offset(zone)?),
    };
    let seconds = i64::from(days) * SECONDS_PER_DAY + parse_clock(clock)? - offset.unwrap_or(0);
    Some(Moment {
        seconds,
        nanoseconds,
        zoned: offset.is_some(),
    })
}

/// Reads `HH:MM:SS[.fraction]` as nanoseconds since midnight.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (clock, rest) = text.split_at_checked(8)?;
    let (nanoseconds, rest) = parse_fraction(rest)?;
    let seconds = parse_clock(clock)?;
    rest.is_empty()
        .then(|| seconds * 1_000_000_000 + i64::from(nanoseconds))
}

fn parse_clock(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes[2] != b':' || bytes[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (
        number(&bytes[..2])?,
        number(&bytes[3..5])?,
        number(&bytes[6..])?,
    );
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// The nanoseconds after a point, if there is one, and what follows.
pub(crate) fn parse_fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, zone) = rest.split_at(length);
    // More than nine digits say more than any unit can hold, unless they are zeros.
    let significant = digits.trim_end_matches('0');
    if digits.is_empty() || significant.len() > 9 {
        return None;
    }
    let scale = 10_u32.pow(9 - u32::try_from(significant.len()).ok()?);
    let value = if significant.is_empty() {
        0
    } else {
        significant.parse::<u32>().ok()?
    };
    Some((value * scale, zone))
}

/// Reads `±HH:MM` as seconds.
pub(crate) fn parse_offset(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let sign = match bytes.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if bytes.len() != 6 || bytes[3] != b':' {
        return None;
    }
    let (hours, minutes) = (number(&bytes[1..3])?, number(&bytes[4..])?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn number(digits: &[u8]) -> Option<i64> {
    let digit = |value: i64, byte: &u8| {
        byte.is_ascii_digit()
            .then(|| value * 10 + i64::from(byte - b'0'))
    };
    digits.iter().try_fold(0, digit)
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, with years that begin in March, so that the leap day is the last one
/// (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Writes days since 1970-01-01 as `YYYY-MM-DD`; `None` when the year has not four digits.
pub(crate) fn format_date(days: i64) -> Option<String> {
    if !(FIRST_DAY..=LAST_DAY).contains(&days) {
        return None;
    }
    let (year, month, day) = civil_from_days(days);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// Writes a moment, counted in parts of a second of which there are `per_second`, with as many
/// digits after the point as the unit has, none when they are all zero.
pub(crate) fn format_moment(count: i64, per_second: i64, zoned: bool) -> Option<String> {
    let seconds = count.div_euclid(per_second);
    let fraction = count.rem_euclid(per_second);
    let date = format_date(seconds.div_euclid(SECONDS_PER_DAY))?;
    let clock = clock(seconds.rem_euclid(SECONDS_PER_DAY), fraction, per_second);
    let zone = if zoned { "Z" } else { "" };
    Some(format!("{date}T{clock}{zone}"))
}

/// Writes a time of day as [`format_moment`] does; `None` when it is not within a day.
pub(crate) fn format_time(count: i64, per_second: i64) -> Option<String> {
    let seconds = count.div_euclid(per_second);
    (0..SECONDS_PER_DAY)
        .contains(&seconds)
        .then(|| clock(seconds, count.rem_euclid(per_second), per_second))
}

fn clock(second: i64, fraction: i64, per_second: i64) -> String {
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let point = match (fraction, per_second) {
        (0, _) => String::new(),
        (_, 1_000) => format!(".{fraction:03}"),
        (_, 1_000_000) => format!(".{fraction:06}"),
        _ => format!(".{fraction:09}"),
    };
    format!("{hour:02}:{minute:02}:{second:02}{point}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("0001-01-01", -719_162),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(parse_date(text), Some(days), "{text}");
            assert_eq!(format_date(i64::from(days)).as_deref(), Some(text));
        }
    }

    #[test]
    fn days_that_are_not_in_the_calendar_are_refused() {
        for text in [
            "0000-01-01",
            "1900-02-29",
            "2026-00-01",
            "2026-13-01",
            "2026-04-31",
            "2026-1-01",
            "10000-01-01",
            "2026/01/01",
            "2026-01-01 ",
            "01/02/2026",
            "+026-01-01",
            "",
            "二〇二六-01-0",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn moments_with_a_zone_are_in_utc() {
        let at = |seconds, nanoseconds, zoned| {
            Some(Moment {
                seconds,
                nanoseconds,
                zoned,
            })
        };
        for (text, moment) in [
            ("1970-01-01T00:00:00", at(0, 0, false)),
            ("1970-01-01T00:00:00Z", at(0, 0, true)),
            ("1970-01-01t02:00:00.5+02:00", at(0, 500_000_000, true)),
            ("1969-12-31 23:59:59.000000001Z", at(-1, 1, true)),
            ("2026-11-23T06:48:00-05:30", at(1_795_436_280, 0, true)),
            (
                "1970-01-01T00:00:01.1000000000000",
                at(1, 100_000_000, false),
            ),
        ] {
            assert_eq!(parse_moment(text), moment, "{text}");
        }
    }

    #[test]
    fn moments_that_no_clock_shows_are_refused() {
        for text in [
            "2026-01-01",
            "2026-01-01T24:00:00",
            "2026-01-01T23:60:00",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:00",
            "2026-01-01T00:00:00.",
            "2026-01-01T00:00:00.0000000001",
            "2026-01-01T00:00:00+2",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00 Europe/London",
            "1700000000",
            "2026-01-01T00:00:0é",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
    }

    #[test]
    fn times_of_day_are_within_a_day() {
        for (text, per_second, count) in [
            ("00:00:00", 1, 0),
            ("23:59:59.999", 1_000, 86_399_999),
            ("12:30:00.000001", 1_000_000, 45_000_000_001),
        ] {
            assert_eq!(parse_time(text), Some(count * (1_000_000_000 / per_second)));
            assert_eq!(format_time(count, per_second).as_deref(), Some(text));
        }
        for text in [
            "",
            "24:00:00",
            "12:30",
            "12:30:00Z",
            "12:30:00+01:00",
            "1:30:00",
            "12:30:0é",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(format_time(86_400, 1), None);
        assert_eq!(format_time(-1, 1), None);
    }

    #[test]
    fn moments_are_written_as_they_are_read() {
        for (count, per_second, zoned, text) in [
            (0, 1, false, "1970-01-01T00:00:00"),
            (-1, 1_000, true, "1969-12-31T23:59:59.999Z"),
            (1_500_000, 1_000_000, true, "1970-01-01T00:00:01.500000Z"),
            (1, 1_000_000_000, false, "1970-01-01T00:00:00.000000001"),
        ] {
            assert_eq!(
                format_moment(count, per_second, zoned).as_deref(),
                Some(text)
            );
        }
        assert_eq!(format_moment(i64::MAX, 1, false), None);
    }
}
