//! Values of types that are made of others, and exact numbers.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Decimal128Type;
use arrow_array::{
    Array as _, ArrayRef, Decimal128Array, FixedSizeListArray, ListArray, StructArray, UInt64Array,
    new_null_array,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, FieldRef, Fields};
use arrow_select::take::take;

use super::{Bound, of_type};

type Made = Result<Vec<(Bound, ArrayRef)>, ArrowError>;

/// The empty list, and lists of one strange item.
pub(super) fn lists(column: &ArrayRef, item: &FieldRef) -> Made {
    let list = |length: usize, values: ArrayRef| -> Result<ArrayRef, ArrowError> {
        let offsets = OffsetBuffer::from_lengths([length]);
        let list = ListArray::try_new(Arc::clone(item), offsets, values, None)?;
        Ok(Arc::new(list))
    };
    let nothing = list(0, new_null_array(item.data_type(), 0))?;
    let mut made = vec![(Bound::Zero, nothing)];
    for (bound, value) in of_type(column.as_list::<i32>().values())? {
        made.push((bound, list(1, value)?));
    }
    Ok(made)
}

/// Lists whose items are all the same strange one.
pub(super) fn fixed_lists(column: &ArrayRef, item: &FieldRef, length: i32) -> Made {
    let filled = |value: &ArrayRef| -> Result<ArrayRef, ArrowError> {
        let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
        let items = take(value, &UInt64Array::from(zeros), None)?;
        let list = FixedSizeListArray::try_new(Arc::clone(item), length, items, None)?;
        Ok(Arc::new(list))
    };
    let items = of_type(column.as_fixed_size_list().values())?;
    let lists = items
        .iter()
        .map(|(bound, item)| Ok((*bound, filled(item)?)));
    lists.collect()
}

/// A strange value in every field that has some.
pub(super) fn structs(column: &ArrayRef, fields: &Fields) -> Made {
    let parts = column.as_struct().columns();
    let made = parts.iter().map(of_type).collect::<Result<Vec<_>, _>>()?;
    let most = made.iter().map(Vec::len).max().unwrap_or(0);
    if column.is_empty() {
        return Ok(vec![]);
    }
    let together = (0..most).map(|index| {
        let chosen =
            made.iter()
                .zip(parts)
                .map(|(made, part)| match made.get(index % made.len().max(1)) {
                    Some((_, value)) => Arc::clone(value),
                    None => part.slice(0, 1),
                });
        let bound = made.iter().find_map(|made| made.get(index));
        let bound = bound.map_or(Bound::High, |(bound, _)| *bound);
        let row = StructArray::try_new(fields.clone(), chosen.collect(), None)?;
        Ok((bound, Arc::new(row) as ArrayRef))
    });
    together.collect()
}

/// Between, below and above the values of the sample.
pub(super) fn decimals(column: &ArrayRef, precision: u8, scale: i8) -> Made {
    let values = column.as_primitive::<Decimal128Type>();
    let known = || values.iter().flatten();
    let (least, most) = (
        known().min().unwrap_or_default(),
        known().max().unwrap_or_default(),
    );
    let range = most.saturating_sub(least).max(1);
    let limit = 10_i128.pow(precision.into());
    let made = [
        (Bound::Near, least + range / 2),
        (Bound::Near, least + range / 3),
        (Bound::Zero, 0),
        (Bound::Low, least.saturating_sub(range)),
        (Bound::High, most.saturating_add(range)),
        (Bound::Far, most.saturating_add(range.saturating_mul(30))),
        (Bound::Most, limit - 1),
        (Bound::Least, 1 - limit),
    ];
    let held = made
        .into_iter()
        .filter(|(_, value)| (1 - limit..limit).contains(value));
    let held = held.map(|(bound, value)| {
        let one = Decimal128Array::from(vec![value]);
        let one = one.with_precision_and_scale(precision, scale)?;
        Ok((bound, Arc::new(one) as ArrayRef))
    });
    held.collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int32Type;
    use arrow_array::{Float64Array, StringArray, Time32SecondArray};
    use arrow_schema::{DataType, Field};

    use super::*;

    fn strange(column: &ArrayRef) -> Vec<(Bound, ArrayRef)> {
        let made = of_type(column).unwrap();
        for (_, value) in &made {
            assert_eq!((value.data_type(), value.len()), (column.data_type(), 1));
        }
        made
    }

    #[test]
    fn values_of_every_type_are_made_up() {
        let pairs = [Some([Some(1), Some(2)]), Some([Some(3), Some(4)])];
        let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2);
        assert!(strange(&(Arc::new(fixed) as ArrayRef)).len() > 5);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(pairs);
        assert!(strange(&(Arc::new(lists) as ArrayRef)).len() > 6);
        let prices = Decimal128Array::from(vec![125, 999]);
        let prices = prices.with_precision_and_scale(3, 2).unwrap();
        // Above 9.99 there is nothing that three digits hold.
        let found = strange(&(Arc::new(prices) as ArrayRef));
        assert!(found.iter().any(|(bound, _)| *bound == Bound::Low));
        assert!(found.iter().all(|(bound, _)| *bound != Bound::Far));
        let times = Time32SecondArray::from(vec![10, 86_000]);
        let found = strange(&(Arc::new(times) as ArrayRef));
        // Only the 1 is left: a day has no more seconds.
        let high = found.iter().filter(|(bound, _)| *bound == Bound::High);
        assert_eq!(high.count(), 1);
    }

    #[test]
    fn a_struct_is_strange_in_every_field_at_once() {
        let fields = Fields::from(vec![
            Field::new("x", DataType::Float64, true),
            Field::new("t", DataType::Utf8, true),
        ]);
        let parts: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(vec![1.0, 2.0])),
            Arc::new(StringArray::from(vec!["a", "b"])),
        ];
        let rows = StructArray::new(fields, parts, None);
        let found = strange(&(Arc::new(rows) as ArrayRef));
        assert!(found.iter().all(|(_, row)| {
            let text = row
                .as_struct()
                .column(1)
                .as_string::<i32>()
                .value(0)
                .to_owned();
            !["a", "b"].contains(&text.as_str())
        }));
    }
}
