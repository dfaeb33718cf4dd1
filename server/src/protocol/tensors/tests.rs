use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{
    BinaryArray, BooleanArray, DurationSecondArray, Float32Array, Float64Array, Int8Array,
    Int64Array, ListArray, UInt64Array,
};

use super::*;

fn field(data_type: &str, nullable: bool) -> Field {
    Field::new("a", data_type.parse().unwrap(), nullable)
}

fn tensor(datatype: Datatype, shape: &[usize], values: ArrayRef) -> Tensor {
    Tensor {
        name: "a".into(),
        datatype,
        shape: shape.to_vec(),
        values,
    }
}

#[test]
fn values_are_the_same_when_they_come_back_from_bytes() {
    let columns: [(Datatype, ArrayRef); 7] = [
        (
            Datatype::Bool,
            Arc::new(BooleanArray::from(vec![true, false])),
        ),
        (
            Datatype::Int8,
            Arc::new(Int8Array::from(vec![i8::MIN, i8::MAX])),
        ),
        (
            Datatype::Int64,
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
        ),
        (
            Datatype::Uint64,
            Arc::new(UInt64Array::from(vec![0, u64::MAX])),
        ),
        (
            Datatype::Fp32,
            Arc::new(Float32Array::from(vec![0.1, f32::MAX])),
        ),
        (
            Datatype::Fp64,
            Arc::new(Float64Array::from(vec![0.1, f64::INFINITY])),
        ),
        (
            Datatype::Bytes,
            Arc::new(BinaryArray::from(vec![&b"\xFF\0"[..], b""])),
        ),
    ];
    for (datatype, values) in columns {
        let bytes = datatype.write(&values);
        assert_eq!(&datatype.read(&bytes, 2).unwrap(), &values, "{datatype}");
    }
}

#[test]
fn bytes_that_are_no_values_are_refused() {
    for (datatype, bytes, count) in [
        (Datatype::Bool, &[2_u8][..], 1),
        (Datatype::Bool, &[1], 2),
        (Datatype::Int32, &[0; 7], 2),
        (Datatype::Fp64, &[], usize::MAX),
        (Datatype::Bytes, &[1, 0, 0], 1),
        (Datatype::Bytes, &[2, 0, 0, 0, 7], 1),
        (Datatype::Bytes, &[0xFF, 0xFF, 0xFF, 0xFF, 7], 1),
        (Datatype::Bytes, &[0, 0, 0, 0], 2),
    ] {
        let read = datatype.read(bytes, count);
        assert!(
            matches!(read, Err(Refusal::BadTensors { .. })),
            "{datatype} {bytes:?}"
        );
    }
}

#[test]
fn half_of_a_float_is_a_float() {
    let read = Datatype::Bf16.read(&[0x80, 0x3F, 0x20, 0xC0], 2).unwrap();
    assert_eq!(read.as_primitive::<Float32Type>().values(), &[1.0, -2.5]);
}

#[test]
fn a_missing_float_is_nan_unless_it_may_be_missing() {
    let missing: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0)]));
    for (datatype, arrow) in [
        (Datatype::Fp16, arrow_schema::DataType::Float16),
        (Datatype::Bf16, arrow_schema::DataType::Float32),
        (Datatype::Fp32, arrow_schema::DataType::Float32),
        (Datatype::Fp64, arrow_schema::DataType::Float64),
    ] {
        let values = arrow_cast::cast(&missing, &arrow).unwrap();
        let given = with_nan(&field("float64", false), datatype, values.clone());
        let given = arrow_cast::cast(&given, &arrow_schema::DataType::Float64).unwrap();
        let given = given.as_primitive::<Float64Type>();
        assert!(
            given.null_count() == 0 && given.value(0).is_nan(),
            "{datatype}"
        );
        let kept = with_nan(&field("float64", true), datatype, values);
        assert_eq!(kept.null_count(), 1, "{datatype}");
    }
}

#[test]
fn lists_of_one_length_are_a_dimension() {
    let lists = |rows: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
    };
    let even = lists(vec![
        Some(vec![Some(9)]),
        Some(vec![Some(1), Some(2)]),
        Some(vec![Some(3), Some(4)]),
    ]);
    let given = tensor_of("a", &even.slice(1, 2)).unwrap();
    assert_eq!((given.datatype, given.shape), (Datatype::Int64, vec![2, 2]));
    assert_eq!(
        given.values.as_primitive::<Int64Type>().values(),
        &[1, 2, 3, 4]
    );
    let given = tensor_of("a", &even.slice(0, 0)).unwrap();
    assert_eq!(given.shape, [0, 0]);
    for other in [even, lists(vec![None, Some(vec![Some(1)])])] {
        let given = tensor_of("a", &other).unwrap();
        assert_eq!(given.datatype, Datatype::Bytes, "as text: {other:?}");
    }
}

#[test]
fn dimensions_become_lists_and_lists_dimensions() {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..12));
    let given = tensor(Datatype::Int64, &[2, 3, 2], values.clone());
    let column = column_of(&field("list<list<int64>>", false), &given).unwrap();
    let back = tensor_of("a", &column).unwrap();
    assert_eq!((back.shape, &back.values), (vec![2, 3, 2], &values));
    let flat = column_of(&field("int64", false), &given);
    assert!(matches!(flat, Err(Refusal::BadTensors { .. })));
}

#[test]
fn a_tensor_without_dimensions_is_one_row() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let column = column_of(
        &field("int64", false),
        &tensor(Datatype::Int64, &[], values),
    );
    assert_eq!(column.unwrap().len(), 1);
}

#[test]
fn what_tensors_do_not_have_comes_as_text_or_integers() {
    let seconds: ArrayRef = Arc::new(DurationSecondArray::from(vec![-5, 90]));
    let given = tensor_of("a", &seconds).unwrap();
    assert_eq!(given.datatype, Datatype::Int64);
    let back = column_of(&field("duration[s]", false), &given).unwrap();
    assert_eq!(&back, &seconds);
    let bytes = |text: &str| -> ArrayRef { Arc::new(BinaryArray::from(vec![text.as_bytes()])) };
    let date = tensor(Datatype::Bytes, &[1], bytes("2026-02-28"));
    let back = tensor_of("a", &column_of(&field("date", false), &date).unwrap()).unwrap();
    assert_eq!(&back.values, &date.values);
    let none = tensor(Datatype::Bytes, &[1], bytes("2026-02-30"));
    let refused = column_of(&field("date", false), &none).unwrap_err();
    assert!(refused.to_string().contains("row 0, `a`"), "{refused}");
}

#[test]
fn what_is_missing_and_has_no_word_in_a_tensor_is_refused() {
    let missing: ArrayRef = Arc::new(BooleanArray::from(vec![None, Some(true)]));
    let refused = tensor_of("a", &missing).unwrap_err();
    assert!(
        refused.to_string().contains("`a` has a missing value"),
        "{refused}"
    );
}
