use arrow_schema::TimeUnit::{Microsecond, Second};

use super::*;

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

#[test]
fn a_column_that_is_added_has_a_name_of_its_own() {
    let taken = ["row", "row_"].map(|name| Field::new(name, DataType::Int8, false));
    assert_eq!(other_than("row", &taken.to_vec().into()), "row__");
}
