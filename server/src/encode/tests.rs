use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, Float32Array, Float64Array, LargeStringArray, TimestampSecondArray,
};
use envelope_format::{Field, Shape};

use super::*;

fn encode(shape: Shape, data_type: &str, column: ArrayRef) -> Result<String, Refusal> {
    let field = Field::new("a \"name\"", data_type.parse().unwrap(), true);
    let encoder = Encoder::new(&Rows {
        shape,
        fields: vec![field],
    });
    let rows = RecordBatch::try_from_iter([("any", column)]).unwrap();
    encoder
        .predictions(&rows)
        .map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn floats_that_json_cannot_say_are_null() {
    let wide = Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
    let narrow = Float32Array::from(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0]);
    let expected = r#"{"predictions":[null,null,null,1.0]}"#;
    assert_eq!(
        encode(Shape::NumpyVector, "float64", Arc::new(wide)).unwrap(),
        expected
    );
    assert_eq!(
        encode(Shape::NumpyVector, "float32", Arc::new(narrow)).unwrap(),
        expected
    );
}

#[test]
fn one_column_gives_plain_values_and_several_give_objects() {
    let column = || Arc::new(Float64Array::from(vec![0.5]));
    assert_eq!(
        encode(Shape::PandasSeries, "float64", column()).unwrap(),
        r#"{"predictions":[0.5]}"#
    );
    let object = r#"{"predictions":[{"a \"name\"":0.5}]}"#;
    assert_eq!(
        encode(Shape::PandasDataFrame, "float64", column()).unwrap(),
        object
    );
}

#[test]
fn a_slice_is_written_from_its_own_rows() {
    let column = Float64Array::from(vec![Some(1.0), None, Some(3.0)]);
    let encoder = Encoder::new(&Rows {
        shape: Shape::List,
        fields: vec![Field::new("v", "float64".parse().unwrap(), true)],
    });
    let rows = RecordBatch::try_from_iter([("v", Arc::new(column) as ArrayRef)]).unwrap();
    let bytes = encoder.predictions(&rows.slice(1, 2)).unwrap();
    assert_eq!(bytes, br#"{"predictions":[null,3.0]}"#);
}

#[test]
fn years_that_have_not_four_digits_are_refused() {
    let date = Arc::new(Date32Array::from(vec![2_932_897]));
    assert!(matches!(
        encode(Shape::List, "date", date),
        Err(Refusal::Unwritable { .. })
    ));
    let moment = Arc::new(TimestampSecondArray::from(vec![i64::MIN]));
    assert!(matches!(
        encode(Shape::List, "timestamp[s]", moment),
        Err(Refusal::Unwritable { .. })
    ));
}

#[test]
fn columns_that_no_signature_has_are_refused() {
    let column = Arc::new(LargeStringArray::from(vec!["a"]));
    assert!(matches!(
        encode(Shape::List, "utf8", column),
        Err(Refusal::Unwritable { .. })
    ));
}
