use envelope_format::{Rows, Shape};

use super::*;
use crate::decode::{Decoder, Dialect, Layout, NATIVE};
use crate::encode::Encoder;
use crate::error::Refusal;

const MLFLOW: Dialect = Dialect {
    keys: &[("frame", Layout::Rows), ("array", Layout::Rows)],
    lenient: true,
    casts: Some(|key| match key {
        "frame" => Casts::Frame,
        _ => Casts::Array,
    }),
};

fn series(data_type: &str, nullable: bool) -> Rows {
    Rows {
        shape: Shape::PandasSeries,
        fields: vec![Field::new("v", data_type.parse().unwrap(), nullable)],
    }
}

/// What becomes of a value, as the encoder writes it; `None` when it is refused.
fn becomes(rows: &Rows, key: &str, value: &str) -> Option<String> {
    let body = format!("{{\"{key}\": [{{\"v\": {value}}}]}}");
    let dialect = if key == "data" { &NATIVE } else { &MLFLOW };
    let batch = match Decoder::new(rows, 100).document(body.as_bytes(), dialect) {
        Err(Refusal::BadRows(_) | Refusal::BadJson { .. }) => return None,
        read => read.unwrap(),
    };
    let mut out = Vec::new();
    Encoder::new(rows).rows(&batch, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    Some(text[1..text.len() - 1].to_owned())
}

#[track_caller]
fn check(data_type: &str, key: &str, cases: &[(&str, Option<&str>)]) {
    for (value, expected) in cases {
        let given = becomes(&series(data_type, false), key, value);
        assert_eq!(given.as_deref(), *expected, "{value} for {data_type}");
    }
}

/// The values whose fate `MLflow` and this service see differently, and that they are refused unless
/// the operator asks.
#[test]
fn nothing_is_cast_without_being_asked_for() {
    for (data_type, values) in [
        ("int64", vec!["\"1\"", "true", "1.5", "9223372036854775808"]),
        ("int32", vec!["1099511627776", "null", "NaN"]),
        ("float64", vec!["\"NaN\"", "\"1e3\"", "true"]),
        ("bool", vec!["0", "2", "\"false\"", "\"\"", "null"]),
        ("timestamp[ns]", vec!["1700000000", "\"01/02/2026\""]),
        ("binary", vec!["\"!!!\"", "5"]),
        ("utf8", vec!["5", "true"]),
    ] {
        check(
            data_type,
            "data",
            &values
                .iter()
                .map(|value| (*value, None))
                .collect::<Vec<_>>(),
        );
    }
}

#[test]
fn integers_of_frames_are_cut_off_and_wrap_around() {
    check(
        "int64",
        "frame",
        &[
            ("1.0", Some("1")),
            ("\"1\"", Some("1")),
            ("true", Some("1")),
            ("1.5", Some("1")),
            ("-1.5", Some("-1")),
            ("9223372036854775808", Some("-9223372036854775808")),
            ("18446744073709551615", Some("-1")),
            ("1e10", Some("10000000000")),
            ("9.3e18", Some("-9223372036854775808")),
            ("\"9223372036854775808\"", None),
            ("\"1.5\"", None),
            ("null", None),
            ("NaN", None),
            ("Infinity", None),
            // An integer would be refused, a float not, and JSON has one number for both.
            ("18446744073709551616", None),
            ("1e300", None),
            ("[1]", None),
        ],
    );
    check(
        "int32",
        "frame",
        &[
            ("1099511627776", Some("0")),
            ("2147483648", Some("-2147483648")),
            ("-2147483649", Some("2147483647")),
            ("1e10", Some("-2147483648")),
            ("\"2147483648\"", None),
        ],
    );
}

#[test]
fn integers_of_arrays_are_cut_off_and_do_not_wrap_around() {
    check(
        "int32",
        "array",
        &[
            ("1.5", Some("1")),
            ("\" 1_000 \"", Some("1000")),
            ("false", Some("0")),
            ("2147483648", None),
            ("1e10", None),
            ("null", None),
        ],
    );
    check(
        "int64",
        "array",
        &[("9223372036854775808", None), ("9.3e18", None)],
    );
}

#[test]
fn what_is_cast_fits_the_column_or_is_refused() {
    check("int8", "frame", &[("1.9", Some("1")), ("200", None)]);
    check("uint8", "frame", &[("true", Some("1")), ("-1", None)]);
    check("uint32", "frame", &[("\"7\"", Some("7")), ("-1", None)]);
    check(
        "uint64",
        "frame",
        &[("1.0", Some("1")), ("1.5", None), ("\"1\"", None)],
    );
}

#[test]
fn floats_are_read_from_text_and_rounded() {
    for key in ["frame", "array"] {
        let cases = [
            ("1", Some("1.0")),
            ("\"1e3\"", Some("1000.0")),
            ("\"NaN\"", Some("null")),
            ("true", Some("1.0")),
            ("null", Some("null")),
            ("9007199254740993", Some("9007199254740992.0")),
            ("\"x\"", None),
            ("\"\"", None),
        ];
        check("float64", key, &cases);
        let single = [("1e39", Some("null")), ("16777217", Some("16777216.0"))];
        check("float32", key, &single);
    }
    // Rounded to 64 bits first, it would be half-way between two of 32.
    check(
        "float32",
        "frame",
        &[("9007199791611905", Some("9.0072e+15"))],
    );
    check(
        "float32",
        "array",
        &[("9007199791611905", Some("9.007199e+15"))],
    );
}

#[test]
fn everything_that_is_not_nothing_is_true() {
    for key in ["frame", "array"] {
        let cases = [
            ("0", Some("false")),
            ("1", Some("true")),
            ("2", Some("true")),
            ("-0.0", Some("false")),
            ("NaN", Some("true")),
            ("\"false\"", Some("true")),
            ("\"\"", Some("false")),
            ("null", Some("false")),
            ("[1]", None),
        ];
        check("bool", key, &cases);
    }
    let nullable = series("bool", true);
    assert_eq!(
        becomes(&nullable, "frame", "null").as_deref(),
        Some("false")
    );
    assert_eq!(becomes(&nullable, "data", "null").as_deref(), Some("null"));
}

#[test]
fn moments_of_frames_are_counts_and_dates_of_one_form() {
    check(
        "timestamp[ns]",
        "frame",
        &[
            ("1700000000", Some("\"1970-01-01T00:00:01.700000000\"")),
            ("2.9", Some("\"1970-01-01T00:00:00.000000002\"")),
            ("\"01/02/2026\"", Some("\"2026-01-02T00:00:00\"")),
            ("\"13/02/2026\"", Some("\"2026-02-13T00:00:00\"")),
            ("\"2026-01-01T00:00\"", Some("\"2026-01-01T00:00:00\"")),
            ("\"2026-01-01T00:00:00Z\"", None),
            ("\"9999-01-01\"", None),
            ("\"today\"", None),
            ("\"\"", None),
            ("null", None),
            ("true", None),
        ],
    );
    // A column that counts larger units takes what it can say.
    check(
        "timestamp[ms]",
        "frame",
        &[
            ("1700000000", Some("\"1970-01-01T00:00:01.700\"")),
            ("1", None),
        ],
    );
    let nullable = series("timestamp[us]", true);
    for nothing in ["\"NaT\"", "\"\"", "NaN", "null", "-9223372036854775808"] {
        assert_eq!(
            becomes(&nullable, "frame", nothing).as_deref(),
            Some("null"),
            "{nothing}"
        );
    }
}

#[test]
fn the_first_date_of_a_frame_says_how_the_others_are_read() {
    let read = |first: &str, second: &str| {
        let body = format!("{{\"frame\": [{{\"v\": \"{first}\"}}, {{\"v\": \"{second}\"}}]}}");
        let rows = series("timestamp[s]", false);
        let batch = Decoder::new(&rows, 9)
            .document(body.as_bytes(), &MLFLOW)
            .ok()?;
        let mut out = Vec::new();
        Encoder::new(&rows).rows(&batch, &mut out).unwrap();
        String::from_utf8(out).ok()
    };
    assert_eq!(
        read("13/02/2026", "01/02/2026").as_deref(),
        Some(r#"["2026-02-13T00:00:00","2026-02-01T00:00:00"]"#)
    );
    assert_eq!(read("01/02/2026", "13/02/2026"), None);
    assert_eq!(read("2026-01-01", "2026-01-01T00:00:00"), None);
}

#[test]
fn moments_of_arrays_are_of_iso_8601_and_wrap_around() {
    check(
        "timestamp[ns]",
        "array",
        &[
            (
                "\"2026-01-01T02:00:00+02:00\"",
                Some("\"2026-01-01T00:00:00\""),
            ),
            ("\"2026\"", Some("\"2026-01-01T00:00:00\"")),
            ("\"9999-01-01\"", Some("\"1815-03-31T05:56:08.066277376\"")),
            ("true", Some("\"1970-01-01T00:00:00.000000001\"")),
            ("1.0", None),
            ("\"01/02/2026\"", None),
            ("\"20260101\"", None),
        ],
    );
}

#[test]
fn bytes_of_frames_are_loose_base64_and_of_arrays_text() {
    check(
        "binary",
        "frame",
        &[
            ("\"!!!\"", Some("\"\"")),
            ("\"AA==BB\"", Some("\"AA==\"")),
            ("5", None),
        ],
    );
    check(
        "binary",
        "array",
        &[
            ("\"!!!\"", Some("\"ISEh\"")),
            ("5", Some("\"NQ==\"")),
            ("\"é\"", None),
        ],
    );
}

#[test]
fn values_of_arrays_are_text_as_python_writes_it() {
    check(
        "utf8",
        "array",
        &[
            ("5", Some("\"5\"")),
            ("true", Some("\"True\"")),
            ("1e16", Some("\"1e+16\"")),
            ("null", Some("\"None\"")),
            ("NaN", Some("\"nan\"")),
            ("\"a\\u0000\"", Some("\"a\"")),
            ("18446744073709551616", None),
        ],
    );
    // A column of text has no place for what is none, and frames leave it as it is.
    check(
        "utf8",
        "frame",
        &[
            ("5", None),
            ("true", None),
            ("null", None),
            ("\"5\"", Some("\"5\"")),
        ],
    );
}

#[test]
fn digits_are_truth_values_of_comma_separated_values() {
    let frame = series("bool", false);
    let read = |body: &str, dialect| {
        Decoder::new(&frame, 9)
            .csv(body.as_bytes(), dialect)
            .is_ok()
    };
    assert!(read("v\n1\n0\nTrue\n", &MLFLOW));
    assert!(!read("v\n1\n", &NATIVE));
    for refused in ["v\n2\n", "v\nyes\n", "v\n\"\"\n"] {
        assert!(!read(refused, &MLFLOW), "{refused}");
    }
}

#[test]
fn a_row_on_a_line_is_like_one_of_a_frame() {
    let rows = series("int64", false);
    let decoder = Decoder::new(&rows, 9);
    assert!(
        decoder
            .lines(b"{\"v\": 1.5}\n{\"v\": \"7\"}\n", &MLFLOW)
            .is_ok()
    );
    assert!(decoder.lines(b"{\"v\": 1.5}\n", &NATIVE).is_err());
}
