//! How many bytes columns take once each value is written out: dictionaries, runs and views say one
//! value very often in very few bytes.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int16Type, Int32Type, Int64Type, RunEndIndexType};
use arrow_array::{Array, OffsetSizeTrait, RunArray};
use arrow_buffer::ArrowNativeType as _;
use arrow_schema::DataType;

/// No fewer than `column` takes as plain values, apart from what it takes already. It looks at what is
/// there once, however much it stands for, and writes nothing out.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others share nothing")]
pub(super) fn unpacked_bytes(column: &dyn Array) -> usize {
    match column.data_type() {
        DataType::Utf8View | DataType::BinaryView => total(view_lengths(column)),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            if dictionary.values().is_empty() {
                return 0;
            }
            let weights = Weights::of(dictionary.values());
            let keys = dictionary.normalized_keys().into_iter().enumerate();
            let keys = keys.filter(|(row, _)| dictionary.keys().is_valid(*row));
            total(keys.map(|(_, key)| weights.at(key)))
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => runs::<Int16Type>(column.as_run()),
            DataType::Int32 => runs::<Int32Type>(column.as_run()),
            _ => runs::<Int64Type>(column.as_run()),
        },
        DataType::ListView(_) => list_views::<i32>(column),
        DataType::LargeListView(_) => list_views::<i64>(column),
        DataType::List(_) => unpacked_bytes(column.as_list::<i32>().values()),
        DataType::LargeList(_) => unpacked_bytes(column.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => unpacked_bytes(column.as_fixed_size_list().values()),
        DataType::Struct(_) => {
            let columns = column.as_struct().columns().iter();
            total(columns.map(|column| unpacked_bytes(column)))
        }
        _ => 0,
    }
}

fn total(bytes: impl Iterator<Item = usize>) -> usize {
    bytes.fold(0, usize::saturating_add)
}

fn view_lengths(column: &dyn Array) -> Box<dyn Iterator<Item = usize> + '_> {
    // The first 32 bits of a view are the length of what it shows.
    #[expect(clippy::cast_possible_truncation, reason = "that is the length")]
    let length = |view: &u128| *view as u32 as usize;
    match column.as_string_view_opt() {
        Some(texts) => Box::new(texts.views().iter().map(length)),
        None => Box::new(column.as_binary_view().views().iter().map(length)),
    }
}

fn runs<R: RunEndIndexType>(column: &RunArray<R>) -> usize {
    let weights = Weights::of(column.values());
    let mut start = 0;
    let ends = column.run_ends().values().iter().enumerate();
    total(ends.map(|(run, end)| {
        let end = end.as_usize();
        let length = end.saturating_sub(std::mem::replace(&mut start, end));
        length.saturating_mul(weights.at(run))
    }))
}

/// Of which several may show the same items.
fn list_views<O: OffsetSizeTrait>(column: &dyn Array) -> usize {
    let lists = column.as_list_view::<O>();
    let items = total(lists.sizes().iter().map(|size| size.as_usize()));
    items.saturating_mul(longest(lists.values()))
}

/// How many bytes each of some values takes.
enum Weights {
    All(usize),
    Each(Vec<usize>),
}

impl Weights {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others weigh the same")]
    fn of(values: &dyn Array) -> Self {
        match values.data_type() {
            DataType::Utf8 => Self::Each(lengths(values.as_string::<i32>().value_offsets())),
            DataType::LargeUtf8 => Self::Each(lengths(values.as_string::<i64>().value_offsets())),
            DataType::Binary => Self::Each(lengths(values.as_binary::<i32>().value_offsets())),
            DataType::LargeBinary => Self::Each(lengths(values.as_binary::<i64>().value_offsets())),
            DataType::Utf8View | DataType::BinaryView => {
                Self::Each(view_lengths(values).map(|length| length + 4).collect())
            }
            _ => Self::All(longest(values)),
        }
    }

    fn at(&self, place: usize) -> usize {
        match self {
            Self::All(weight) => *weight,
            Self::Each(weights) => weights.get(place).copied().unwrap_or(0),
        }
    }
}

/// Of texts with their offsets, one after the other.
fn lengths<O: OffsetSizeTrait>(offsets: &[O]) -> Vec<usize> {
    let pairs = offsets.windows(2);
    let length = |pair: &[O]| pair[1].as_usize().saturating_sub(pair[0].as_usize());
    pairs.map(|pair| length(pair) + size_of::<O>()).collect()
}

/// No fewer than the longest of some values takes, written out.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others have a width")]
fn longest(values: &dyn Array) -> usize {
    match values.data_type() {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::Utf8View
        | DataType::BinaryView => match Weights::of(values) {
            Weights::All(weight) => weight,
            Weights::Each(weights) => weights.into_iter().max().unwrap_or(0),
        },
        DataType::Dictionary(..) => longest(values.as_any_dictionary().values()),
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => longest(values.as_run::<Int16Type>().values()),
            DataType::Int32 => longest(values.as_run::<Int32Type>().values()),
            _ => longest(values.as_run::<Int64Type>().values()),
        },
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            longest_list(lengths(lists.value_offsets()), lists.values())
        }
        DataType::LargeList(_) => {
            let lists = values.as_list::<i64>();
            longest_list(lengths(lists.value_offsets()), lists.values())
        }
        DataType::ListView(_) => {
            let lists = values.as_list_view::<i32>();
            longest_list(
                lists.sizes().iter().map(|size| size.as_usize()),
                lists.values(),
            )
        }
        DataType::LargeListView(_) => {
            let lists = values.as_list_view::<i64>();
            longest_list(
                lists.sizes().iter().map(|size| size.as_usize()),
                lists.values(),
            )
        }
        DataType::FixedSizeList(_, length) => {
            let length = usize::try_from(*length).unwrap_or(0);
            longest_list([length], values.as_fixed_size_list().values())
        }
        DataType::Struct(_) => {
            let columns = values.as_struct().columns().iter();
            total(columns.map(|column| longest(column)))
        }
        of => of.primitive_width().unwrap_or(1),
    }
}

fn longest_list(lengths: impl IntoIterator<Item = usize>, items: &dyn Array) -> usize {
    let most = lengths.into_iter().max().unwrap_or(0);
    most.saturating_mul(longest(items))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::StringViewBuilder;
    use arrow_array::{
        ArrayRef, DictionaryArray, Int8Array, Int32Array, ListViewArray, StringArray,
    };
    use arrow_schema::Field;

    use super::*;

    fn words() -> ArrayRef {
        let long = "x".repeat(1 << 20);
        Arc::new(StringArray::from(vec!["", long.as_str()]))
    }

    #[test]
    fn a_value_of_a_dictionary_counts_as_often_as_it_is_said() {
        let said = |keys: Vec<i8>| {
            let keys = Int8Array::from(keys);
            unpacked_bytes(&DictionaryArray::new(keys, words()))
        };
        assert_eq!(said(vec![0; 1000]), 4 * 1000);
        assert_eq!(said(vec![1; 1000]), ((1 << 20) + 4) * 1000);
        let empty = Arc::new(StringArray::from(Vec::<&str>::new()));
        let nothing = DictionaryArray::new(Int8Array::from(vec![None]), empty);
        assert_eq!(unpacked_bytes(&nothing), 0);
    }

    #[test]
    fn a_run_counts_as_long_as_it_is() {
        let ends = Int32Array::from(vec![1, i32::MAX]);
        let run = RunArray::try_new(&ends, &words()).unwrap();
        let most = usize::try_from(i32::MAX).unwrap();
        assert_eq!(unpacked_bytes(&run), 4 + (most - 1) * ((1 << 20) + 4));
    }

    #[test]
    fn views_of_the_same_bytes_count_each() {
        let mut texts = StringViewBuilder::new();
        let block = texts.append_block("y".repeat(1 << 20).into_bytes().into());
        for _ in 0..1000 {
            texts.try_append_view(block, 0, 1 << 20).unwrap();
        }
        let texts: ArrayRef = Arc::new(texts.finish());
        assert_eq!(unpacked_bytes(&texts), 1000 << 20);
        let item = Arc::new(Field::new_list_field(DataType::Utf8View, true));
        let offsets = vec![0; 1000].into();
        let sizes = vec![1000; 1000].into();
        let lists = ListViewArray::new(item, offsets, sizes, texts, None);
        assert_eq!(unpacked_bytes(&lists), 1_000_000 * ((1 << 20) + 4));
    }

    #[test]
    fn plain_columns_are_what_they_are() {
        assert_eq!(unpacked_bytes(&words()), 0);
        assert_eq!(unpacked_bytes(&Int8Array::from(vec![1, 2])), 0);
    }
}
