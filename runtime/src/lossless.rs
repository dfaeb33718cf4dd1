//! Which values of one Arrow type are values of another, for whoever gives rows to a function.

use arrow_schema::{DataType, FieldRef, Fields};

/// Whether a column of type `found` can be cast to `expected` without a change of meaning.
///
/// Where a value alone does not fit (a moment beyond the unit's range, a list of another length) Arrow's
/// cast fails when it is asked to. Everything that is not listed here is refused: nothing is coerced silently.
#[must_use]
pub fn lossless(found: &DataType, expected: &DataType) -> bool {
    use DataType as A;
    if let (Some(found), Some(expected)) = (Number::of(found), Number::of(expected)) {
        return found.fits(expected);
    }
    if let (Some(found), Some(expected)) = (Decimal::of(found), Decimal::of(expected)) {
        return found.fits(expected);
    }
    match (found, expected) {
        (found, expected) if found == expected => true,
        (A::Null, _) => true,
        // How often a value is written does not change it.
        (A::Dictionary(_, value), expected) => lossless(value, expected),
        (A::RunEndEncoded(_, value), expected) => lossless(value.data_type(), expected),
        (A::LargeUtf8 | A::Utf8View, A::Utf8) => true,
        (A::LargeBinary | A::BinaryView | A::FixedSizeBinary(_), A::Binary) => true,
        // The zone says how a moment is shown, not which moment it is; without one it says no moment.
        (A::Timestamp(from, zone), A::Timestamp(to, wanted)) => {
            from <= to && zone.is_some() == wanted.is_some()
        }
        (A::Duration(from), A::Duration(to)) => from <= to,
        (A::Time32(from) | A::Time64(from), A::Time32(to) | A::Time64(to)) => from <= to,
        (A::FixedSizeList(from, length), A::FixedSizeList(to, wanted)) => {
            length == wanted && lossless(from.data_type(), to.data_type())
        }
        // Tables know no lists of fixed length, or forget them: one of another length fails when it is cast.
        (
            A::List(from) | A::LargeList(from) | A::ListView(from) | A::LargeListView(from),
            A::List(to) | A::FixedSizeList(to, _),
        )
        | (A::FixedSizeList(from, _), A::List(to)) => lossless(from.data_type(), to.data_type()),
        (A::Struct(from), A::Struct(to)) => same_keys(from, to),
        _ => false,
    }
}

/// Keys are told apart by name: Arrow's cast would take those of other names by their position.
fn same_keys(from: &Fields, to: &Fields) -> bool {
    let same = |(from, to): (&FieldRef, &FieldRef)| {
        from.name() == to.name() && lossless(from.data_type(), to.data_type())
    };
    from.len() == to.len() && from.iter().zip(to).all(same)
}

/// A number type as the whole numbers that it holds exactly.
#[derive(Debug, Clone, Copy)]
struct Number {
    /// Digits of the fraction can be held too.
    float: bool,
    /// Negative numbers can be held.
    signed: bool,
    /// All whole numbers below 2 to this power can be held.
    bits: u32,
}

impl Number {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other types are not numbers"
    )]
    fn of(data_type: &DataType) -> Option<Self> {
        let (float, signed, bits) = match data_type {
            DataType::Int8 => (false, true, 7),
            DataType::Int16 => (false, true, 15),
            DataType::Int32 => (false, true, 31),
            DataType::Int64 => (false, true, 63),
            DataType::UInt8 => (false, false, 8),
            DataType::UInt16 => (false, false, 16),
            DataType::UInt32 => (false, false, 32),
            DataType::UInt64 => (false, false, 64),
            DataType::Float16 => (true, true, 11),
            DataType::Float32 => (true, true, 24),
            DataType::Float64 => (true, true, 53),
            _ => return None,
        };
        Some(Self {
            float,
            signed,
            bits,
        })
    }

    fn fits(self, wider: Self) -> bool {
        self.bits <= wider.bits && (wider.signed || !self.signed) && (wider.float || !self.float)
    }
}

/// A decimal type as the digits that it holds, before the point and after it.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    before: i16,
    after: i16,
}

impl Decimal {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other types are not decimals"
    )]
    fn of(data_type: &DataType) -> Option<Self> {
        let (precision, scale) = match data_type {
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => (i16::from(*precision), i16::from(*scale)),
            _ => return None,
        };
        Some(Self {
            before: precision - scale,
            after: scale,
        })
    }

    fn fits(self, wider: Self) -> bool {
        self.before <= wider.before && self.after <= wider.after
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{
        Array, ArrayRef, Decimal128Array, Decimal256Array, DictionaryArray, DurationSecondArray,
        FixedSizeListArray, Int8Array, Int32Array, LargeListArray, ListArray, ListViewArray,
        RunArray, StringArray, StructArray, Time32SecondArray, TimestampSecondArray,
        new_empty_array,
    };
    use arrow_cast::{CastOptions, cast_with_options, display::array_value_to_string};
    use arrow_schema::Field;
    use arrow_schema::TimeUnit::{Microsecond, Nanosecond, Second};

    use super::*;

    fn dictionary(value: DataType) -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(value))
    }

    fn runs(value: DataType) -> DataType {
        let ends = Field::new("run_ends", DataType::Int32, false);
        DataType::RunEndEncoded(ends.into(), Field::new("values", value, true).into())
    }

    fn timestamp(unit: arrow_schema::TimeUnit, zone: Option<&str>) -> DataType {
        DataType::Timestamp(unit, zone.map(Into::into))
    }

    fn item(data_type: DataType) -> FieldRef {
        Arc::new(Field::new_list_field(data_type, true))
    }

    fn list(of: DataType) -> DataType {
        DataType::List(item(of))
    }

    fn fixed(of: DataType, length: i32) -> DataType {
        DataType::FixedSizeList(item(of), length)
    }

    fn structure(fields: &[(&str, DataType)]) -> DataType {
        let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
        DataType::Struct(fields.iter().map(field).collect())
    }

    fn exactly(column: &dyn Array, to: &DataType) -> Result<ArrayRef, arrow_schema::ArrowError> {
        let exact = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        cast_with_options(column, to, &exact)
    }

    #[test]
    fn changes_that_keep_every_value_are_made_and_arrow_makes_them() {
        for (found, expected) in [
            (DataType::Utf8View, DataType::Utf8),
            (DataType::LargeUtf8, DataType::Utf8),
            (dictionary(DataType::LargeUtf8), DataType::Utf8),
            (runs(DataType::Int32), DataType::Int64),
            (runs(DataType::Utf8), DataType::Utf8),
            (DataType::BinaryView, DataType::Binary),
            (DataType::FixedSizeBinary(16), DataType::Binary),
            (DataType::Int8, DataType::Int64),
            (DataType::Int8, DataType::Float16),
            (DataType::UInt8, DataType::Int16),
            (DataType::UInt32, DataType::UInt64),
            (DataType::Int32, DataType::Float64),
            (DataType::UInt32, DataType::Float64),
            (DataType::Int16, DataType::Float32),
            (DataType::Float16, DataType::Float32),
            (DataType::Float32, DataType::Float64),
            (timestamp(Second, None), timestamp(Nanosecond, None)),
            (
                timestamp(Microsecond, Some("UTC")),
                timestamp(Nanosecond, Some("Europe/London")),
            ),
            (
                timestamp(Second, Some("+02:00")),
                timestamp(Second, Some("UTC")),
            ),
            (DataType::Duration(Second), DataType::Duration(Microsecond)),
            (DataType::Null, DataType::Utf8),
            (DataType::Null, structure(&[("a", DataType::Int8)])),
            (
                DataType::LargeList(item(DataType::Int8)),
                list(DataType::Int32),
            ),
            (
                DataType::ListView(item(DataType::Int8)),
                list(DataType::Int32),
            ),
            (
                DataType::LargeListView(item(DataType::Utf8View)),
                list(DataType::Utf8),
            ),
            (fixed(DataType::Int8, 3), list(DataType::Int32)),
            (fixed(DataType::Int8, 3), fixed(DataType::Int16, 3)),
            (list(DataType::Int8), fixed(DataType::Int8, 3)),
            (
                structure(&[("a", DataType::Int8), ("b", DataType::Utf8View)]),
                structure(&[("a", DataType::Int64), ("b", DataType::Utf8)]),
            ),
            (DataType::Time32(Second), DataType::Time64(Nanosecond)),
            (DataType::Decimal128(5, 2), DataType::Decimal128(38, 10)),
            (DataType::Decimal32(5, 2), DataType::Decimal128(10, 2)),
            (DataType::Decimal64(18, 0), DataType::Decimal128(20, 2)),
            (DataType::Decimal256(20, 2), DataType::Decimal128(20, 2)),
        ] {
            assert!(lossless(&found, &expected), "{found} → {expected}");
            assert!(lossless(&expected, &expected), "{expected}");
            let cast = exactly(&new_empty_array(&found), &expected);
            assert_eq!(cast.expect("Arrow's").data_type(), &expected, "{found}");
        }
    }

    #[test]
    fn changes_that_may_lose_something_are_not_made() {
        for (found, expected) in [
            (DataType::Utf8, DataType::Int64),
            (DataType::Int64, DataType::Utf8),
            (DataType::Int64, DataType::Int32),
            (DataType::Int64, DataType::Float64),
            (DataType::Int32, DataType::Float32),
            (DataType::Int16, DataType::Float16),
            (DataType::Float64, DataType::Float32),
            (DataType::Float64, DataType::Int64),
            (DataType::Int8, DataType::UInt8),
            (DataType::UInt64, DataType::Int64),
            (DataType::Boolean, DataType::Int8),
            (DataType::Utf8, DataType::Binary),
            (DataType::Date32, timestamp(Second, None)),
            (DataType::Date64, DataType::Date32),
            (timestamp(Nanosecond, None), timestamp(Microsecond, None)),
            (timestamp(Second, None), timestamp(Second, Some("UTC"))),
            (timestamp(Second, Some("UTC")), timestamp(Second, None)),
            (DataType::Duration(Nanosecond), DataType::Duration(Second)),
            (DataType::Decimal128(10, 2), DataType::Float64),
            (DataType::Float64, DataType::Decimal128(38, 10)),
            (DataType::Int32, DataType::Decimal128(38, 0)),
            (DataType::Decimal128(10, 2), DataType::Decimal128(10, 1)),
            (DataType::Decimal128(10, 2), DataType::Decimal128(10, 3)),
            (DataType::Decimal256(40, 2), DataType::Decimal128(38, 2)),
            (DataType::Time64(Nanosecond), DataType::Time64(Microsecond)),
            (DataType::Time32(Second), DataType::Int32),
            (fixed(DataType::Int8, 3), fixed(DataType::Int8, 4)),
            (
                structure(&[("a", DataType::Int8)]),
                structure(&[("b", DataType::Int8)]),
            ),
            (
                structure(&[("a", DataType::Int8), ("b", DataType::Int8)]),
                structure(&[("b", DataType::Int8), ("a", DataType::Int8)]),
            ),
            (
                structure(&[("a", DataType::Int8)]),
                structure(&[("a", DataType::Int8), ("b", DataType::Int8)]),
            ),
            (dictionary(DataType::Int64), DataType::Int32),
            (runs(DataType::Float64), DataType::Int64),
            (list(DataType::Int64), list(DataType::Int32)),
        ] {
            assert!(!lossless(&found, &expected), "{found} → {expected}");
        }
    }

    #[test]
    fn values_are_the_same_afterwards() {
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let ends = Int32Array::from(vec![2, 3]);
        let runs = RunArray::try_new(&ends, &StringArray::from(vec!["x", "y"])).expect("runs");
        let moments = TimestampSecondArray::from(vec![0, 1, -1]).with_timezone("+02:00");
        let decimals = Decimal128Array::from(vec![1230, -5, 0]);
        let wide =
            Decimal256Array::from_iter_values([1230, -5, 0].map(arrow_buffer::i256::from_i128));
        let lists = |_| Some([Some(1_i32), None, Some(3)]);
        let views = ListViewArray::from_iter_primitive::<Int32Type, _, _>((0..3).map(lists));
        let large = LargeListArray::from_iter_primitive::<Int32Type, _, _>((0..3).map(lists));
        let triples =
            FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>((0..3).map(lists), 3);
        let keys: ArrayRef = Arc::new(Int8Array::from(vec![1, 2, 3]));
        let objects = StructArray::from(vec![(item_named("a"), keys)]);
        let columns: Vec<(ArrayRef, DataType)> = vec![
            (Arc::new(words), DataType::Utf8),
            (Arc::new(runs), DataType::Utf8),
            (Arc::new(moments), timestamp(Nanosecond, Some("+02:00"))),
            (
                Arc::new(decimals.with_precision_and_scale(5, 2).expect("digits")),
                DataType::Decimal128(38, 2),
            ),
            (
                Arc::new(wide.with_precision_and_scale(30, 2).expect("digits")),
                DataType::Decimal128(30, 2),
            ),
            (Arc::new(views), list(DataType::Int32)),
            (Arc::new(large), fixed(DataType::Int32, 3)),
            (Arc::new(triples), list(DataType::Int32)),
            (Arc::new(objects), structure(&[("a", DataType::Int64)])),
        ];
        for (column, to) in columns {
            assert!(lossless(column.data_type(), &to), "{to}");
            let cast = exactly(&column, &to).expect("Arrow's");
            for row in 0..3 {
                let told = |column: &dyn Array| array_value_to_string(column, row).expect("text");
                assert_eq!(told(&column), told(&cast), "{to}");
            }
        }
    }

    fn item_named(name: &str) -> FieldRef {
        Arc::new(Field::new(name, DataType::Int8, true))
    }

    #[test]
    fn a_value_that_does_not_fit_fails() {
        let far = TimestampSecondArray::from(vec![i64::MAX]);
        assert!(exactly(&far, &timestamp(Nanosecond, None)).is_err());
        let long = DurationSecondArray::from(vec![i64::MAX]);
        assert!(exactly(&long, &DataType::Duration(Nanosecond)).is_err());
        let late = Time32SecondArray::from(vec![86_399]);
        assert!(exactly(&late, &DataType::Time64(Nanosecond)).is_ok());
        let lists = [Some(vec![Some(1)]), Some(vec![Some(1), Some(2)])];
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        assert!(exactly(&lists, &fixed(DataType::Int32, 1)).is_err());
    }
}
