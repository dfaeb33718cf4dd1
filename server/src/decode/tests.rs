use envelope_format::Shape;
use proptest::prelude::*;

use arrow_array::RecordBatchOptions;

use super::*;
use crate::encode::Encoder;
use crate::fault::Fault;

fn rows(shape: Shape, columns: &[(&str, &str, bool)]) -> Rows {
    let field = |(name, data_type, nullable): &(&str, &str, bool)| {
        Field::new(*name, data_type.parse().unwrap(), *nullable)
    };
    Rows {
        shape,
        fields: columns.iter().map(field).collect(),
    }
}

fn frame(columns: &[(&str, &str, bool)]) -> Rows {
    rows(Shape::PandasDataFrame, columns)
}

fn decode(rows: &Rows, body: &str) -> Result<RecordBatch, Refusal> {
    Decoder::new(rows, 100).document(body.as_bytes(), &NATIVE)
}

/// Reads the body and writes the rows again.
#[track_caller]
fn copies(rows: &Rows, data: &str) {
    gives(rows, data, data);
}

#[track_caller]
fn gives(rows: &Rows, data: &str, expected: &str) {
    let batch = decode(rows, &format!("{{\"data\":{data}}}"))
        .unwrap_or_else(|refusal| panic!("{data}: {refusal}"));
    let mut out = Vec::new();
    Encoder::new(rows).rows(&batch, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[track_caller]
fn faults(rows: &Rows, body: &str) -> Vec<Fault> {
    match decode(rows, body) {
        Err(Refusal::BadRows(faults)) => faults.list().to_vec(),
        other => panic!("{body}: {other:?}"),
    }
}

#[track_caller]
fn bad_json(body: &[u8]) -> (usize, Option<&'static str>) {
    let rows = frame(&[("x", "float64", false)]);
    match Decoder::new(&rows, 100).document(body, &NATIVE) {
        Err(Refusal::BadJson { offset, hint, .. }) => (offset, hint),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn values_of_every_type_are_written_as_they_were_read() {
    for (data_type, values) in [
        ("null", "null"),
        ("bool", "true,false"),
        ("int8", "-128,127,0"),
        ("int16", "-32768,32767"),
        ("int32", "-2147483648,2147483647"),
        (
            "int64",
            "-9223372036854775808,9223372036854775807,9007199254740993",
        ),
        ("uint8", "0,255"),
        ("uint16", "0,65535"),
        ("uint32", "0,4294967295"),
        ("uint64", "0,18446744073709551615"),
        ("float32", "0.1,-0.0,3.4028235e+38"),
        (
            "float64",
            "0.1,-0.0,1.7976931348623157e+308,5e-324,0.30000000000000004",
        ),
        ("utf8", r#""","NaN","é\"\\\n","\u0000""#),
        ("binary", r#""","AA==","/+8=""#),
        ("date", r#""0001-01-01","1970-01-01","9999-12-31""#),
        ("timestamp[s]", r#""2026-11-23T06:48:00""#),
        ("timestamp[ms, UTC]", r#""2026-11-23T06:48:00.120Z""#),
        (
            "timestamp[us]",
            r#""2026-11-23T06:48:00.000001","1969-12-31T23:59:59""#,
        ),
        (
            "timestamp[ns, Europe/London]",
            r#""2026-11-23T06:48:00.000000001Z""#,
        ),
        ("duration[s]", "-1,9223372036854775807"),
        ("duration[ns]", "0"),
        ("list<int8>", "[],[1,null],[-128]"),
        ("list<list<utf8>>", r#"[],[null,[]],[["a"],["b","c"]]"#),
        ("float16", "0.5,-0.0,65504.0"),
        ("time[s]", r#""00:00:00","23:59:59""#),
        ("time[ns]", r#""12:30:00.000000001""#),
        ("decimal[5, 2]", r#""0.00","-999.99","12.30""#),
        (
            "decimal[38, 0]",
            r#""99999999999999999999999999999999999999""#,
        ),
        (
            "list<list<int8, 2>, 2>",
            "[[1,2],[3,null]],[[-128,127],null]",
        ),
        ("list<list<bool, 1>>", "[],[[true],[false]]"),
        (
            r#"struct<"a": int64, "b c": list<float32, 2>>"#,
            r#"{"a":1,"b c":[0.5,1.5]},{"a":null,"b c":null}"#,
        ),
        (r#"list<struct<"a": utf8>>"#, r#"[],[{"a":"x"},null]"#),
    ] {
        copies(
            &rows(Shape::PandasSeries, &[("v", data_type, false)]),
            &format!("[{values}]"),
        );
        copies(
            &rows(Shape::PandasSeries, &[("v", data_type, true)]),
            &format!("[null,{values},null]"),
        );
    }
}

#[test]
fn values_that_say_the_same_otherwise_are_read() {
    for (data_type, value, written) in [
        ("float64", "1", "1.0"),
        ("float64", "1E2", "100.0"),
        ("float64", "9007199254740992", "9007199254740992.0"),
        ("float64", "1e-400", "0.0"),
        ("float32", "16777216", "16777216.0"),
        ("utf8", r#""\u00e9""#, r#""é""#),
        (
            "timestamp[s, UTC]",
            r#""2026-01-01T02:00:00+02:00""#,
            r#""2026-01-01T00:00:00Z""#,
        ),
        (
            "timestamp[s]",
            r#""2026-01-01 00:00:00.000""#,
            r#""2026-01-01T00:00:00""#,
        ),
    ] {
        let rows = rows(Shape::PandasSeries, &[("v", data_type, false)]);
        gives(&rows, &format!("[{value}]"), &format!("[{written}]"));
    }
}

#[test]
fn nothing_is_coerced() {
    let kinds = [
        "null",
        "true",
        "1",
        "1.0",
        "1.5",
        "-1",
        "\"1\"",
        "\"\"",
        "[]",
        "[1]",
        "{}",
        "{\"a\":1}",
    ];
    for (data_type, taken) in [
        ("null", vec!["null"]),
        ("bool", vec!["true"]),
        ("int64", vec!["1", "-1"]),
        ("uint8", vec!["1"]),
        ("float64", vec!["1", "1.0", "1.5", "-1"]),
        ("float32", vec!["1", "1.0", "1.5", "-1"]),
        ("utf8", vec!["\"1\"", "\"\""]),
        ("binary", vec!["\"\""]),
        ("date", vec![]),
        ("timestamp[us]", vec![]),
        ("timestamp[us, UTC]", vec![]),
        ("duration[s]", vec!["1", "-1"]),
        ("list<int64>", vec!["[]", "[1]"]),
        ("float16", vec!["1", "1.0", "1.5", "-1"]),
        ("decimal[3, 1]", vec!["\"1\""]),
        ("time[s]", vec![]),
        ("list<int64, 1>", vec!["[1]"]),
        (r#"struct<"a": int64>"#, vec!["{\"a\":1}"]),
    ] {
        let rows = frame(&[("v", data_type, false)]);
        for kind in kinds {
            let outcome = decode(&rows, &format!("{{\"data\":[{{\"v\":{kind}}}]}}"));
            assert_eq!(
                outcome.is_ok(),
                taken.contains(&kind),
                "{kind} for {data_type}: {outcome:?}"
            );
        }
    }
}

#[test]
fn values_outside_their_type_are_refused_and_not_wrapped() {
    for (data_type, value, code) in [
        ("int8", "128", "out_of_range"),
        ("int64", "9223372036854775808", "out_of_range"),
        ("uint8", "-1", "out_of_range"),
        ("int64", "18446744073709551616", "wrong_type"),
        ("int64", "1e3", "wrong_type"),
        ("float64", "9007199254740993", "out_of_range"),
        ("float32", "16777217", "out_of_range"),
        ("float32", "1e39", "out_of_range"),
        ("binary", "\"A\"", "wrong_form"),
        ("binary", "\"AA\"", "wrong_form"),
        ("binary", "\"!!!\"", "wrong_form"),
        ("date", "\"2026-02-30\"", "wrong_form"),
        ("timestamp[s]", "\"2026-01-01T00:00:00Z\"", "wrong_form"),
        ("timestamp[s, UTC]", "\"2026-01-01T00:00:00\"", "wrong_form"),
        ("timestamp[s]", "\"2026-01-01T00:00:00.5\"", "out_of_range"),
        ("timestamp[ns]", "\"9999-01-01T00:00:00\"", "out_of_range"),
        ("timestamp[s]", "1700000000", "wrong_type"),
        ("float16", "65520", "out_of_range"),
        ("float16", "2049", "out_of_range"),
        ("float16", "1e6", "out_of_range"),
        ("time[s]", "\"12:30:00.5\"", "out_of_range"),
        ("time[s]", "\"12:30\"", "wrong_form"),
        ("decimal[3, 1]", "1.5", "wrong_form"),
        ("decimal[3, 1]", "\"1.55\"", "out_of_range"),
        ("decimal[3, 1]", "\"1e1\"", "wrong_form"),
        ("list<int8, 2>", "[1]", "wrong_length"),
    ] {
        let rows = rows(Shape::PandasSeries, &[("v", data_type, true)]);
        let faults = faults(&rows, &format!("{{\"data\":[null,{value}]}}"));
        let [fault] = faults.as_slice() else {
            panic!("{faults:?}")
        };
        assert_eq!(
            (fault.code, fault.row, fault.column.as_deref()),
            (code, Some(1), Some("v")),
            "{value} for {data_type}"
        );
    }
}

#[test]
fn a_fault_within_a_value_says_where() {
    let image = "list<list<uint8, 3>, 2>";
    let user = r#"struct<"age": int64, "tags": list<utf8>>"#;
    let large = "list<list<uint8, 100>, 1>";
    for (data_type, value, code, place) in [
        ("list<int8>", "[1,128]", "out_of_range", "v[1]"),
        ("list<list<int8>>", "[1]", "wrong_type", "v[0]"),
        (image, "[[1,2,3]]", "wrong_length", "v"),
        (image, "[[1,2,3],[4,5]]", "wrong_length", "v[1]"),
        (image, "[[1,2,3],[4,5,6,7]]", "wrong_length", "v[1]"),
        (image, "[[1,2,3],[4,256,6]]", "out_of_range", "v[1][1]"),
        (image, "[[1,2,3],4]", "wrong_type", "v[1]"),
        (large, "[null]", "not_nullable", "v[0]"),
        (user, r#"{"age":1}"#, "missing_key", "v.tags"),
        (user, r#"{"age":1,"tags":[],"x":[1]}"#, "unknown_key", "v.x"),
        (
            user,
            r#"{"age":1,"tags":[],"age":1}"#,
            "duplicate_key",
            "v.age",
        ),
        (user, r#"{"age":"1","tags":[]}"#, "wrong_type", "v.age"),
        (
            user,
            r#"{"age":1,"tags":["a",1]}"#,
            "wrong_type",
            "v.tags[1]",
        ),
        (user, "[1]", "wrong_type", "v"),
    ] {
        let rows = frame(&[("v", data_type, false)]);
        // Twice: a bad row must not shift the faults of the next one.
        let body = format!("{{\"data\":[{{\"v\":{value}}},{{\"v\":{value}}}]}}");
        let found = faults(&rows, &body);
        let told: Vec<_> = found
            .iter()
            .map(|fault| (fault.code, fault.row, fault.column.as_deref()))
            .collect();
        assert_eq!(
            told,
            [(code, Some(0), Some(place)), (code, Some(1), Some(place))],
            "{value}"
        );
    }
}

#[test]
fn an_object_is_the_value_where_values_are_objects() {
    let list = rows(Shape::List, &[("v", r#"struct<"v": int64>"#, true)]);
    copies(&list, r#"[{"v":1},null,{"v":null}]"#);
}

#[test]
fn text_is_one_of_the_categories() {
    let mut rows = frame(&[("v", "utf8", false)]);
    rows.fields[0].categories = Some(vec!["US".into(), "UK".into()]);
    copies(&rows, r#"[{"v":"UK"}]"#);
    assert_eq!(
        faults(&rows, r#"{"data":[{"v":"FR"}]}"#)[0].code,
        "unknown_category"
    );
}

#[test]
fn a_fault_says_where_and_what() {
    let rows = frame(&[("age", "int64", false), ("region", "utf8", false)]);
    let body = r#"{"data":[{"age":1,"region":"US"},{"region":null,"age":1.5}]}"#;
    let told: Vec<_> = faults(&rows, body)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "row 1, column `region`: not nullable, expected utf8, got null",
            "row 1, column `age`: wrong type, expected int64, got 1.5"
        ]
    );
}

#[test]
fn columns_are_found_by_name_in_any_order_and_each_exactly_once() {
    let rows = frame(&[("a", "int64", false), ("b", "int64", true)]);
    gives(
        &rows,
        r#"[{"b":2,"a":1},{"a":3,"b":null}]"#,
        r#"[{"a":1,"b":2},{"a":3,"b":null}]"#,
    );
    for (row, code, column) in [
        (r#"{"a":1}"#, "missing_column", "b"),
        (r#"{"a":1,"b":2,"c":3}"#, "unknown_column", "c"),
        (r#"{"a":1,"b":2,"A":3}"#, "unknown_column", "A"),
        (r#"{"a":1,"b":2,"":3}"#, "unknown_column", ""),
        (r#"{"a":1,"b":2,"a":1}"#, "duplicate_key", "a"),
        (r#"{"a":1,"b":2,"\u0061":1}"#, "duplicate_key", "a"),
    ] {
        let faults = faults(&rows, &format!("{{\"data\":[{row}]}}"));
        let [fault] = faults.as_slice() else {
            panic!("{faults:?}")
        };
        assert_eq!(
            (fault.code, fault.column.as_deref()),
            (code, Some(column)),
            "{row}"
        );
    }
}

#[test]
fn rows_are_objects_or_plain_values_where_there_is_one_column() {
    let series = rows(Shape::PandasSeries, &[("v", "float64", false)]);
    gives(&series, r#"[1.5,{"v":2.5}]"#, "[1.5,2.5]");
    let frame = frame(&[("v", "float64", false)]);
    for row in ["1.5", "null", "[1.5]", "\"v\"", "true"] {
        let faults = faults(&frame, &format!("{{\"data\":[{row}]}}"));
        assert_eq!(
            (faults[0].code, faults[0].row, &faults[0].column),
            ("wrong_type", Some(0), &None),
            "{row}"
        );
    }
}

#[test]
fn the_body_is_an_object_with_a_list_of_rows() {
    let rows = frame(&[("v", "float64", false)]);
    for (body, code) in [
        ("[]", "wrong_type"),
        ("null", "wrong_type"),
        ("1", "wrong_type"),
        ("\"data\"", "wrong_type"),
        ("{}", "missing_key"),
        (r#"{"data":{"v":1}}"#, "wrong_type"),
        (r#"{"data":null}"#, "wrong_type"),
        (r#"{"data":[],"data":[]}"#, "duplicate_key"),
        (r#"{"data":[],"params":{}}"#, "unknown_key"),
        (r#"{"d\u0061ta":[],"data":[]}"#, "duplicate_key"),
    ] {
        assert_eq!(faults(&rows, body)[0].code, code, "{body}");
    }
    assert_eq!(decode(&rows, r#" {"data" : [ ] } "#).unwrap().num_rows(), 0);
}

#[test]
fn ten_faults_are_enough() {
    let rows = frame(&[("v", "float64", false)]);
    let many = vec![r#"{"v":"x"}"#; 50].join(",");
    assert_eq!(faults(&rows, &format!("{{\"data\":[{many}]}}")).len(), 10);
}

#[test]
fn what_a_caller_sent_is_repeated_in_part_only() {
    let rows = frame(&[("v", "float64", false)]);
    let long = "é".repeat(10_000);
    for body in [
        format!("{{\"data\":[{{\"v\":\"{long}\"}}]}}"),
        format!("{{\"data\":[{{\"v\":1,\"{long}\":1}}]}}"),
    ] {
        let told = faults(&rows, &body)[0].to_string();
        assert!(told.len() < 200, "{} bytes", told.len());
    }
}

#[test]
fn too_many_rows_are_not_read() {
    let rows = frame(&[("v", "float64", false)]);
    let body = format!("{{\"data\":[{}]}}", vec![r#"{"v":1}"#; 101].join(","));
    assert!(matches!(
        decode(&rows, &body),
        Err(Refusal::TooManyRows { limit: 100 })
    ));
}

#[test]
fn text_that_is_not_json_is_refused_with_its_place() {
    let whole = br#"{"data":[{"x":1.5},{"x":2}]}"#;
    for end in 0..whole.len() {
        let (offset, _) = bad_json(&whole[..end]);
        assert!(offset <= end, "{offset} in {end} bytes");
    }
    for (body, offset) in [
        ("{'data':[]}", 1),
        ("{\"data\":[1,]}", 11),
        ("{\"data\":[]} x", 12),
        ("{\"data\":\n [{\"x\": tru}]}", 20),
        ("// {\"data\":[]}", 0),
        ("\u{feff}{\"data\":[]}", 0),
        ("{\"data\":[{\"x\":\"\\ud800\"}]}", 21),
        ("{\"data\":[{\"x\":01}]}", 15),
        ("{\"data\":[{\"x\":1e400}]}", 18),
    ] {
        assert_eq!(bad_json(body.as_bytes()).0, offset, "{body}");
    }
    bad_json(b"{\"data\":[{\"x\":\"\xff\"}]}");
    bad_json(b"\xff\xfe{\0}\0");
}

#[test]
fn nan_has_a_hint() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let (_, hint) = bad_json(format!("{{\"data\":[{{\"x\":{word}}}]}}").as_bytes());
        assert_eq!(hint, Some("JSON has no NaN: send null"), "{word}");
    }
}

#[test]
fn deep_nesting_ends_at_a_limit() {
    for depth in [129, 100_000, 1_000_000] {
        bad_json(format!("{{\"data\":{}", "[".repeat(depth)).as_bytes());
        bad_json(format!("{{\"data\":[{{\"y\":{}", "{\"a\":".repeat(depth)).as_bytes());
    }
}

#[test]
fn syntax_comes_before_meaning() {
    // The rows are wrong too, but of a text that is not JSON nothing else can be said.
    bad_json(br#"{"data":[{"x":"1"},{"x":}]}"#);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        cells in prop::collection::vec((
            any::<Option<i64>>(), any::<u64>(), prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
            prop::num::f32::NORMAL | prop::num::f32::ZERO, any::<Option<String>>(), prop::collection::vec(any::<u8>(), 0..9),
            any::<bool>(), -62_135_596_800_000_000_i64..253_402_300_800_000_000, prop::collection::vec(any::<Option<i8>>(), 0..4),
        ), 0..20),
    ) {
        use std::sync::Arc;
        use arrow_array::builder::{Int8Builder, ListBuilder};
        use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray,
            TimestampMicrosecondArray, UInt64Array};
        let rows = frame(&[
            ("i", "int64", true), ("u", "uint64", false), ("d", "float64", false), ("f", "float32", false),
            ("s", "utf8", true), ("b", "binary", false), ("t", "bool", false), ("m", "timestamp[us, UTC]", false),
            ("l", "list<int8>", false),
        ]);
        let mut lists = ListBuilder::new(Int8Builder::new());
        cells.iter().for_each(|cell| lists.append_value(cell.8.iter().copied()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(cells.iter().map(|cell| cell.0).collect::<Int64Array>()),
            Arc::new(cells.iter().map(|cell| Some(cell.1)).collect::<UInt64Array>()),
            Arc::new(cells.iter().map(|cell| Some(cell.2)).collect::<Float64Array>()),
            Arc::new(cells.iter().map(|cell| Some(cell.3)).collect::<Float32Array>()),
            Arc::new(cells.iter().map(|cell| cell.4.clone()).collect::<StringArray>()),
            Arc::new(cells.iter().map(|cell| Some(cell.5.clone())).collect::<BinaryArray>()),
            Arc::new(cells.iter().map(|cell| Some(cell.6)).collect::<BooleanArray>()),
            Arc::new(cells.iter().map(|cell| Some(cell.7)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            Arc::new(lists.finish()),
        ];
        let options = RecordBatchOptions::new().with_row_count(Some(cells.len()));
        let batch = RecordBatch::try_new_with_options(runtime::arrow_schema(&rows), columns, &options).unwrap();
        let mut body = b"{\"data\":".to_vec();
        Encoder::new(&rows).rows(&batch, &mut body).unwrap();
        body.push(b'}');
        prop_assert_eq!(Decoder::new(&rows, 100).document(&body, &NATIVE).unwrap(), batch);
    }

    #[test]
    fn nested_values_that_are_written_are_read_again(
        cells in prop::collection::vec((
            prop::option::of(prop::array::uniform6(any::<Option<i16>>())),
            prop::option::of((any::<Option<i32>>(), any::<Option<String>>())),
            prop::option::of(-10_i128.pow(20)..10_i128.pow(20)),
            0_i64..86_400_000_000,
        ), 0..20),
    ) {
        use std::sync::Arc;
        use arrow_array::builder::{FixedSizeListBuilder, Int16Builder};
        use arrow_array::{ArrayRef, Decimal128Array, Int32Array, StringArray, StructArray, Time64MicrosecondArray};
        let rows = frame(&[
            ("a", "list<list<int16, 2>, 3>", true), ("s", r#"struct<"i": int32, "t": utf8>"#, true),
            ("d", "decimal[20, 3]", true), ("t", "time[us]", false),
        ]);
        let schema = runtime::arrow_schema(&rows);
        let mut arrays = FixedSizeListBuilder::new(FixedSizeListBuilder::new(Int16Builder::new(), 2), 3);
        for cell in &cells {
            for item in cell.0.unwrap_or_default().chunks(2) {
                let pair = arrays.values();
                item.iter().for_each(|item| pair.values().append_option(*item));
                pair.append(cell.0.is_some());
            }
            arrays.append(cell.0.is_some());
        }
        let inner = |cell: &Option<(Option<i32>, Option<String>)>| cell.clone().unwrap_or_default();
        let arrow_schema::DataType::Struct(fields) = schema.field(1).data_type().clone() else {
            panic!("{schema}");
        };
        let structs = StructArray::try_new_with_length(
            fields,
            vec![
                Arc::new(cells.iter().map(|cell| inner(&cell.1).0).collect::<Int32Array>()),
                Arc::new(cells.iter().map(|cell| inner(&cell.1).1).collect::<StringArray>()),
            ],
            Some(cells.iter().map(|cell| cell.1.is_some()).collect::<Vec<_>>().into()),
            cells.len(),
        ).unwrap();
        let decimals = cells.iter().map(|cell| cell.2.map(|number| number % 10_i128.pow(20))).collect::<Decimal128Array>();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(arrays.finish()),
            Arc::new(structs),
            Arc::new(decimals.with_precision_and_scale(20, 3).unwrap()),
            Arc::new(cells.iter().map(|cell| Some(cell.3)).collect::<Time64MicrosecondArray>()),
        ];
        let options = RecordBatchOptions::new().with_row_count(Some(cells.len()));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options).unwrap();
        let mut body = b"{\"data\":".to_vec();
        Encoder::new(&rows).rows(&batch, &mut body).unwrap();
        body.push(b'}');
        let again = Decoder::new(&rows, 100).document(&body, &NATIVE).unwrap();
        let mut written = b"{\"data\":".to_vec();
        Encoder::new(&rows).rows(&again, &mut written).unwrap();
        written.push(b'}');
        prop_assert_eq!(again, batch);
        prop_assert_eq!(written, body);
    }

    #[test]
    fn no_body_makes_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, byte: u8) {
        let rows = frame(&[("x", "float64", false), ("y", "list<utf8>", true), ("z", r#"struct<"a": list<int8, 2>>"#, true)]);
        let decoder = Decoder::new(&rows, 100);
        let _ = decoder.document(&body, &NATIVE);
        let mut near = br#"{"data":[{"x":1.5,"y":["a",null],"z":{"a":[1,2]}},{"y":null,"x":-2e3,"z":null}]}"#.to_vec();
        if let Some(changed) = near.get_mut(at) {
            *changed = byte;
        }
        let _ = decoder.document(&near, &NATIVE);
    }
}

const LENIENT: Dialect = Dialect {
    keys: &[
        ("split", Layout::Split),
        ("columns", Layout::Columns),
        ("rows", Layout::Rows),
    ],
    lenient: true,
    casts: None,
};

fn read(rows: &Rows, body: &str) -> Result<RecordBatch, Refusal> {
    Decoder::new(rows, 100).document(body.as_bytes(), &LENIENT)
}

#[track_caller]
fn code(read: Result<RecordBatch, Refusal>) -> &'static str {
    match read {
        Err(Refusal::BadRows(faults)) => faults.code(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_column_that_is_named_twice_is_a_fault_in_every_form() {
    let frame = frame(&[("a", "int64", false), ("b", "int64", false)]);
    for body in [
        r#"{"split": {"columns": ["a", "a", "b"], "data": [[1, 2, 3]]}}"#,
        r#"{"columns": {"a": [1], "b": [2], "a": [3]}}"#,
        r#"{"rows": [{"a": 1, "b": 2, "a": 3}]}"#,
    ] {
        assert_eq!(code(read(&frame, body)), "duplicate_key", "{body}");
    }
    for dialect in [NATIVE, LENIENT] {
        let csv = Decoder::new(&frame, 100).csv(b"a,b,a\n1,2,3\n", &dialect);
        assert_eq!(code(csv), "duplicate_key");
    }
}

#[test]
fn columns_have_one_length_and_single_values_are_columns_of_one() {
    let frame = frame(&[("a", "int64", false), ("b", "float64", true)]);
    let count = |body: &str| read(&frame, body).unwrap().num_rows();
    assert_eq!(count(r#"{"columns": {"a": [1, 2], "b": [null, 0.5]}}"#), 2);
    assert_eq!(count(r#"{"columns": {"a": [1, 2]}}"#), 2);
    assert_eq!(count(r#"{"columns": {"a": 1, "b": null}}"#), 1);
    assert_eq!(count(r#"{"columns": {"a": [], "c": {}}}"#), 0);
    let uneven = read(&frame, r#"{"columns": {"a": [1], "b": [1, 2]}}"#);
    assert_eq!(code(uneven), "wrong_length");
    let missing = read(&frame, r#"{"columns": {"b": [1]}}"#);
    assert_eq!(code(missing), "missing_column");
}

#[test]
fn exactly_one_layout_is_in_a_document() {
    let frame = frame(&[("a", "int64", false)]);
    let twice = read(&frame, r#"{"rows": [{"a": 1}], "columns": {"a": [1]}}"#);
    assert_eq!(code(twice), "duplicate_key");
    assert_eq!(code(read(&frame, r#"{"params": {}}"#)), "missing_key");
}

#[test]
fn rows_by_position_have_all_columns_and_no_more() {
    let frame = frame(&[("a", "int64", false), ("b", "int64", true)]);
    for row in ["[]", "[1]", "[1, 2, 3]"] {
        let body = format!(r#"{{"rows": [{row}]}}"#);
        assert_eq!(code(read(&frame, &body)), "wrong_length", "{row}");
    }
    let split = r#"{"split": {"columns": ["b", "c"], "data": [[1, 2]]}}"#;
    assert_eq!(code(read(&frame, split)), "missing_column");
}

fn lines(body: &str, dialect: &Dialect) -> Result<RecordBatch, Refusal> {
    let frame = frame(&[("a", "float64", false)]);
    Decoder::new(&frame, 3).lines(body.as_bytes(), dialect)
}

#[test]
fn each_line_is_a_row() {
    let count = |body| lines(body, &NATIVE).unwrap().num_rows();
    assert_eq!(count(""), 0);
    assert_eq!(count("\n \r\n{\"a\": 1}\r\n\n{\"a\": 2}"), 2);
    for bad in ["{\"a\": 1}{\"a\": 2}", "{\"a\":\n1}", "{\"a\": 1},"] {
        let read = lines(bad, &LENIENT);
        assert!(matches!(read, Err(Refusal::BadJson { .. })), "{bad}");
    }
    let many = lines("{\"a\": 1}\n".repeat(4).as_str(), &NATIVE);
    assert!(matches!(many, Err(Refusal::TooManyRows { limit: 3 })));
}

#[test]
fn a_fault_in_a_line_is_told_with_its_place_in_the_body() {
    let read = lines("{\"a\": 1}\n\n{\"a\": x}\n", &NATIVE);
    let Err(Refusal::BadJson {
        line,
        column,
        offset,
        ..
    }) = read
    else {
        panic!("{read:?}")
    };
    assert_eq!((line, column, offset), (3, 7, 16));
    let Err(Refusal::BadRows(faults)) = lines("{\"a\": 1}\n{\"a\": \"x\"}\n", &NATIVE) else {
        panic!("text is no float")
    };
    assert_eq!(faults.list()[0].row, Some(1));
}

#[test]
fn lines_of_clients_that_write_nan_are_read() {
    let body = "{\"a\": NaN}\n{\"a\": -Infinity}\n";
    assert_eq!(lines(body, &LENIENT).unwrap().num_rows(), 2);
    assert!(matches!(lines(body, &NATIVE), Err(Refusal::BadJson { .. })));
}

#[test]
fn many_lines_are_read_in_one_pass() {
    let frame = frame(&[("a", "float64", false)]);
    let body = "{\"a\": 1}\n".repeat(1_000_000);
    let begin = std::time::Instant::now();
    let read = Decoder::new(&frame, 1_000_000).lines(body.as_bytes(), &NATIVE);
    assert_eq!(read.unwrap().num_rows(), 1_000_000);
    // A pass for each line would take minutes.
    assert!(begin.elapsed().as_secs() < 20);
}

#[test]
fn whole_floats_are_integers_where_clients_have_floats_only() {
    let frame = frame(&[("a", "int8", false)]);
    assert_eq!(
        read(&frame, r#"{"columns": {"a": [1.0, -2e0]}}"#)
            .unwrap()
            .num_rows(),
        2
    );
    for (value, expected) in [
        ("1.5", "wrong_type"),
        ("128.0", "out_of_range"),
        ("1e300", "wrong_type"),
    ] {
        let body = format!(r#"{{"columns": {{"a": [{value}]}}}}"#);
        assert_eq!(code(read(&frame, &body)), expected, "{value}");
    }
    let strict = faults(&frame, r#"{"data": [{"a": 1.0}]}"#);
    assert_eq!(strict[0].code, "wrong_type");
}

#[test]
fn base64_may_have_breaks_between_its_lines() {
    let rows = frame(&[("a", "binary", false)]);
    gives(&rows, r#"[{"a":"AAEC\nAwQF\n"}]"#, r#"[{"a":"AAECAwQF"}]"#);
}
