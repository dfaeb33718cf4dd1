use envelope_format::Shape;

use super::*;

fn frame(fields: &[(&str, &str, bool)]) -> Rows {
    let field = |(name, kind, nullable): &(&str, &str, bool)| {
        Field::new(*name, kind.parse().unwrap(), *nullable)
    };
    Rows {
        shape: Shape::PandasDataFrame,
        fields: fields.iter().map(field).collect(),
    }
}

fn one(kind: &str) -> Rows {
    Rows {
        shape: Shape::PandasSeries,
        fields: vec![Field::new("x", kind.parse().unwrap(), true)],
    }
}

/// What is written of what was read.
#[track_caller]
fn comes_back(kind: &str, values: &str) {
    let rows = read(&one(kind), values.parse().unwrap()).unwrap();
    let written = String::from_utf8(write(&one(kind), &rows).unwrap()).unwrap();
    assert_eq!(written, format!("{{\"predictions\":{values}}}\n"), "{kind}");
}

#[track_caller]
fn refuses(rows: &Rows, document: &str, message: &str) {
    let error = read(rows, document.parse().unwrap()).expect_err("the rows were accepted");
    assert_eq!(error, message, "{document}");
}

#[test]
fn every_type_comes_back_as_it_was() {
    comes_back("null", "[null]");
    comes_back("bool", "[true,false,null]");
    comes_back("int8", "[-128,127,null]");
    comes_back("int64", "[-9223372036854775808,9223372036854775807]");
    comes_back("uint64", "[0,18446744073709551615]");
    comes_back("float64", "[0.1,-1.5e+300,5e-324,null]");
    comes_back("float32", "[0.5,null]");
    comes_back("utf8", "[\"\",\"größe \\\"\\n\",null]");
    comes_back("binary", "[\"\",\"AAH/\",null]");
    comes_back("date", "[\"2026-11-23\",null]");
    comes_back("timestamp[us]", "[\"2026-11-23T06:48:00.000001\",null]");
    comes_back("timestamp[ms, UTC]", "[\"2026-11-23T06:48:00Z\",null]");
    comes_back("duration[ms]", "[1500,-1,null]");
    comes_back("list<float64>", "[[1.0,null],[],null]");
    comes_back("int64", "[]");
}

#[test]
fn nothing_is_coerced() {
    for (kind, value) in [
        ("int64", "1.0"),
        ("int64", "\"1\""),
        ("int8", "128"),
        ("uint8", "-1"),
        ("float64", "\"1\""),
        ("float64", "9007199254740993"),
        ("float32", "1e+39"),
        ("bool", "0"),
        ("utf8", "1"),
        ("date", "0"),
        ("list<int8>", "[1, 128]"),
    ] {
        refuses(
            &one(kind),
            &format!("[{value}]"),
            &format!(
                "row 0: column `x`: expected {kind}, got {}",
                value.replace(' ', "")
            ),
        );
    }
}

#[test]
fn integers_that_a_float_holds_are_floats() {
    let rows = read(
        &one("float64"),
        "[0, -3, 18014398509481984]".parse().unwrap(),
    )
    .unwrap();
    assert_eq!(rows.num_rows(), 3);
}

#[test]
fn rows_are_objects_with_every_column() {
    let takes = frame(&[("a", "int64", false), ("b", "utf8", true)]);
    let rows = read(
        &takes,
        r#"{"data": [{"b": null, "a": 1}]}"#.parse().unwrap(),
    )
    .unwrap();
    assert_eq!((rows.num_rows(), rows.num_columns()), (1, 2));
    refuses(&takes, r#"[{"a": 1}]"#, "row 0: column `b` is missing");
    refuses(
        &takes,
        r#"[{"a": 1, "b": "x", "c": 1}]"#,
        "row 0: there is no column `c`; there is `a`, `b`",
    );
    refuses(
        &takes,
        r#"[{"a": null, "b": "x"}]"#,
        "row 0: column `a`: a value is needed; in the sample all rows had one",
    );
    refuses(
        &takes,
        "[1]",
        "row 0: expected an object with a key for each column, got 1",
    );
    refuses(
        &takes,
        r#"{"rows": []}"#,
        "expected a list of rows, or `{\"data\": [...]}`",
    );
}

#[test]
fn categories_are_closed() {
    let mut takes = one("utf8");
    takes.fields[0].categories = Some(vec!["red".into()]);
    assert!(read(&takes, r#"["red", null]"#.parse().unwrap()).is_ok());
    refuses(
        &takes,
        r#"["blue"]"#,
        "row 0: column `x`: \"blue\" is not one of the column's categories",
    );
}

#[test]
fn what_json_cannot_say_becomes_null() {
    let rows = RecordBatch::try_from_iter([(
        "x",
        Arc::new(arrow_array::Float64Array::from(vec![
            f64::NAN,
            f64::INFINITY,
            1.0,
        ])) as ArrayRef,
    )]);
    let written = write(&one("float64"), &rows.unwrap()).unwrap();
    assert_eq!(written, b"{\"predictions\":[null,null,1.0]}\n");
}

#[test]
fn texts_of_a_command_line_become_what_the_column_holds() {
    let value = |kind: &str, text: &str| value_of_text(&one(kind).fields[0], text);
    assert_eq!(value("int64", "41"), 41);
    assert_eq!(value("utf8", "41"), "41");
    assert_eq!(value("utf8", ""), "");
    assert_eq!(value("float64", ""), Value::Null);
    assert_eq!(value("bool", "true"), true);
    assert_eq!(value("int64", "x"), "x");
}
