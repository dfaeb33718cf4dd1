use arrow_schema::TimeUnit::{Microsecond, Nanosecond, Second};

use super::*;

fn dictionary(value: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(value))
}

fn timestamp(unit: TimeUnit, zone: Option<&str>) -> DataType {
    DataType::Timestamp(unit, zone.map(Into::into))
}

fn fixed(item: DataType, length: i32) -> DataType {
    DataType::new_fixed_size_list(item, length, true)
}

fn structure(fields: &[(&str, DataType)]) -> DataType {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    DataType::Struct(fields.iter().map(field).collect())
}

#[test]
fn changes_that_keep_every_value_are_made() {
    let list = |item| DataType::new_list(item, true);
    let cases = [
        (DataType::Utf8View, DataType::Utf8),
        (DataType::LargeUtf8, DataType::Utf8),
        (dictionary(DataType::LargeUtf8), DataType::Utf8),
        (DataType::BinaryView, DataType::Binary),
        (DataType::FixedSizeBinary(16), DataType::Binary),
        (DataType::Int8, DataType::Int64),
        (DataType::UInt8, DataType::Int16),
        (DataType::UInt32, DataType::UInt64),
        (DataType::Int32, DataType::Float64),
        (DataType::UInt32, DataType::Float64),
        (DataType::Int16, DataType::Float32),
        (DataType::Float32, DataType::Float64),
        (timestamp(Second, None), timestamp(Nanosecond, None)),
        (
            timestamp(Microsecond, Some("UTC")),
            timestamp(Nanosecond, Some("Europe/London")),
        ),
        (DataType::Duration(Second), DataType::Duration(Microsecond)),
        (DataType::Null, DataType::Utf8),
        (
            DataType::LargeList(Arc::new(Field::new("element", DataType::Int8, true))),
            list(DataType::Int32),
        ),
        (fixed(DataType::Int8, 3), list(DataType::Int32)),
        (fixed(DataType::Int8, 3), fixed(DataType::Int16, 3)),
        // Which length a list has is seen when it is read.
        (list(DataType::Int8), fixed(DataType::Int8, 3)),
        (
            structure(&[("a", DataType::Int8), ("b", DataType::Utf8View)]),
            structure(&[("a", DataType::Int64), ("b", DataType::Utf8)]),
        ),
        (DataType::Time32(Second), DataType::Time64(Nanosecond)),
        (DataType::Decimal128(5, 2), DataType::Decimal128(38, 10)),
    ];
    for (found, expected) in cases {
        assert!(lossless(&found, &expected), "{found} → {expected}");
        assert!(lossless(&expected, &expected), "{expected}");
    }
}

#[test]
fn changes_that_may_lose_something_are_not_made() {
    let cases = [
        (DataType::Utf8, DataType::Int64),
        (DataType::Int64, DataType::Utf8),
        (DataType::Int64, DataType::Int32),
        (DataType::Int64, DataType::Float64),
        (DataType::Int32, DataType::Float32),
        (DataType::Float64, DataType::Float32),
        (DataType::Float64, DataType::Int64),
        (DataType::Int8, DataType::UInt8),
        (DataType::UInt64, DataType::Int64),
        (DataType::Boolean, DataType::Int8),
        (DataType::Utf8, DataType::Binary),
        (DataType::Date32, timestamp(Second, None)),
        (timestamp(Nanosecond, None), timestamp(Microsecond, None)),
        (timestamp(Second, None), timestamp(Second, Some("UTC"))),
        (timestamp(Second, Some("UTC")), timestamp(Second, None)),
        (DataType::Decimal128(10, 2), DataType::Float64),
        (DataType::Float64, DataType::Decimal128(38, 10)),
        (DataType::Decimal128(10, 2), DataType::Decimal128(10, 1)),
        (DataType::Decimal128(10, 2), DataType::Decimal128(10, 3)),
        (DataType::Time64(Nanosecond), DataType::Time64(Microsecond)),
        (DataType::Time32(Second), DataType::Int32),
        (fixed(DataType::Int8, 3), fixed(DataType::Int8, 4)),
        (
            structure(&[("a", DataType::Int8)]),
            structure(&[("b", DataType::Int8)]),
        ),
        (
            structure(&[("a", DataType::Int8)]),
            structure(&[("a", DataType::Int8), ("b", DataType::Int8)]),
        ),
        (dictionary(DataType::Int64), DataType::Int32),
        (
            DataType::new_list(DataType::Int64, true),
            DataType::new_list(DataType::Int32, true),
        ),
    ];
    for (found, expected) in cases {
        assert!(!lossless(&found, &expected), "{found} → {expected}");
    }
}

#[test]
fn the_nearest_name_is_a_slip_away_or_not_given() {
    let names = ["customer_id", "country", "age"].map(str::to_owned);
    assert_eq!(
        nearest("customerid", &names).as_deref(),
        Some("customer_id")
    );
    assert_eq!(nearest("Country", &names).as_deref(), Some("country"));
    assert_eq!(nearest("revenue", &names), None);
    assert_eq!(nearest("x", &[]), None);
}

#[test]
fn types_are_named_as_signatures_name_them() {
    let cases = [
        (DataType::Int64, "int64"),
        (DataType::Boolean, "bool"),
        (timestamp(Microsecond, Some("UTC")), "timestamp[us, UTC]"),
        (DataType::new_list(DataType::Utf8View, true), "list<utf8>"),
        (fixed(DataType::Float32, 3), "list<float32, 3>"),
        (structure(&[("a", DataType::Utf8)]), r#"struct<"a": utf8>"#),
        (DataType::Time32(Second), "time[s]"),
        (DataType::Decimal128(10, 2), "decimal[10, 2]"),
    ];
    for (data_type, name) in cases {
        assert_eq!(type_name(&data_type), name);
    }
}
