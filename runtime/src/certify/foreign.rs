//! Rows that the sample does not have: made of its values, and of the bounds of its types.

mod nested;
mod pairs;

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray, UInt64Array, new_null_array,
};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use arrow_select::concat::concat;
use arrow_select::take::take;
use envelope_format::{Field, Rows};
use fastrand::Rng;

/// What a made-up value is to its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Between and around the values of the sample.
    Near,
    /// No value, or not a number.
    Missing,
    /// Zero, an empty text, an empty list.
    Zero,
    /// Below all values of the sample.
    Low,
    /// Above all values of the sample, or one that it does not have.
    High,
    /// So far above them that whatever cuts outliers off cuts it off.
    Far,
    /// The least that the type holds, or minus infinity.
    Least,
    /// The most that the type holds, infinity, or so large that any sum with it is visibly another.
    Most,
}

const EVERYWHERE: [Bound; 7] = [
    Bound::Missing,
    Bound::Zero,
    Bound::Low,
    Bound::High,
    Bound::Far,
    Bound::Least,
    Bound::Most,
];

/// Rows whose columns come from different rows of the sample.
const SHUFFLED: usize = 24;

/// Rows with a value of [`Bound::Near`] in each column that has some.
const NEAR: usize = 12;

/// Rows that are the sample's but for one column.
const MOST_SINGLE: usize = 48;

/// Rows that have a value in common with one of those, and nothing else.
const TWINS: usize = 16;

/// Rows that come in pairs of which only one value differs, at the most.
const MOST_PAIRED: usize = 128;

/// Rows to mix with those of the sample.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) rows: RecordBatch,
    /// Which value each row has in each column: equal numbers are equal values.
    pub(crate) values: Vec<Vec<usize>>,
    /// Rows with values that no data have. What is given for them depends on rounding alone, so
    /// they are company for others, and not looked at themselves.
    pub(crate) wild: Vec<bool>,
    /// So many of the last ones are in pairs: worth asking for, not worth a trial each.
    pub(crate) paired: usize,
}

/// A column: the sample's values, and made-up ones behind them.
struct Values {
    all: ArrayRef,
    sample: usize,
    bounds: Vec<Bound>,
    /// Places of values that are nearly the same.
    pairs: Vec<[usize; 2]>,
}

/// Makes rows for `takes` out of those of `sample`.
pub(crate) fn foreign(
    takes: &Rows,
    sample: &RecordBatch,
    rng: &mut Rng,
) -> Result<Foreign, ArrowError> {
    let columns = takes.fields.iter().zip(sample.columns());
    let columns = columns
        .map(|(field, column)| Values::of(field, column, rng))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut picks, mut wild) = picked(&columns, rng);
    let pairs = paired(&columns, rng);
    let paired = pairs.len();
    wild.extend(pairs.iter().map(|_| false));
    picks.extend(pairs);
    let arrays = columns.iter().enumerate().map(|(index, values)| {
        let indices: UInt64Array = picks.iter().map(|row| Some(row[index] as u64)).collect();
        take(&values.all, &indices, None)
    });
    let options = RecordBatchOptions::new().with_row_count(Some(picks.len()));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatch::try_new_with_options(sample.schema(), arrays, &options)?;
    Ok(Foreign {
        rows,
        values: picks,
        wild,
        paired,
    })
}

/// For each row, which of its values each column has; and whether it is wild.
fn picked(columns: &[Values], rng: &mut Rng) -> (Vec<Vec<usize>>, Vec<bool>) {
    let any = |rng: &mut Rng| -> Vec<usize> {
        columns
            .iter()
            .map(|values| rng.usize(..values.sample))
            .collect()
    };
    let mut rows: Vec<(Vec<usize>, bool)> = (0..SHUFFLED).map(|_| (any(rng), false)).collect();
    for _ in 0..NEAR {
        let row = columns.iter().map(|values| values.near(rng)).collect();
        rows.push((row, false));
    }
    for bound in EVERYWHERE {
        let found = columns.iter().map(|values| values.at(bound));
        let found: Vec<Option<usize>> = found.collect();
        if found.iter().any(Option::is_some) {
            let others = any(rng);
            let row = found
                .iter()
                .zip(others)
                .map(|(at, other)| at.unwrap_or(other));
            rows.push((row.collect(), bound.is_wild()));
        }
    }
    let singles = singles(columns, rng);
    // Two rows with the same strange value: one that remembers answers by it confuses them.
    let twins = singles.iter().filter(|(_, _, wild)| !wild).take(TWINS);
    rows.extend(twins.chain(&singles).map(|&(column, at, wild)| {
        // All columns of one row of the sample, so that only one value is strange.
        let base = rng.usize(..columns[column].sample);
        let mut row = vec![base; columns.len()];
        row[column] = at;
        (row, wild)
    }));
    rows.into_iter().unzip()
}

/// Pairs of rows that no sample has, of which only one value differs.
fn paired(columns: &[Values], rng: &mut Rng) -> Vec<Vec<usize>> {
    let mut pairs = vec![];
    for (column, values) in columns.iter().enumerate() {
        let row: Vec<usize> = columns.iter().map(|values| values.near(rng)).collect();
        pairs.push((row, column, [values.near(rng), rng.usize(..values.sample)]));
        for pair in &values.pairs {
            let base = rng.usize(..values.sample);
            pairs.push((vec![base; columns.len()], column, *pair));
        }
    }
    rng.shuffle(&mut pairs);
    pairs.truncate(MOST_PAIRED / 2);
    let rows = pairs.into_iter().flat_map(|(row, column, pair)| {
        pair.map(|value| {
            let mut row = row.clone();
            row[column] = value;
            row
        })
    });
    rows.collect()
}

/// Columns with one of their made-up values; some of them where there are too many.
fn singles(columns: &[Values], rng: &mut Rng) -> Vec<(usize, usize, bool)> {
    let mut singles = vec![];
    for (column, values) in columns.iter().enumerate() {
        for (index, bound) in values.bounds.iter().enumerate() {
            singles.push((column, values.sample + index, bound.is_wild()));
        }
    }
    rng.shuffle(&mut singles);
    singles.truncate(MOST_SINGLE);
    // The wildest last: they may cost a worker.
    singles.sort_by_key(|(_, _, wild)| *wild);
    singles
}

impl Bound {
    fn is_wild(self) -> bool {
        matches!(self, Self::Least | Self::Most)
    }
}

impl Values {
    fn of(field: &Field, column: &ArrayRef, rng: &mut Rng) -> Result<Self, ArrowError> {
        let mut made = vec![];
        if field.nullable {
            made.push((Bound::Missing, new_null_array(column.data_type(), 1)));
        }
        made.extend(made_up(field, column)?);
        // What the type does not hold became missing.
        made.retain(|(bound, value)| *bound == Bound::Missing || value.null_count() == 0);
        let mut near = if field.categories.is_some() {
            vec![]
        } else {
            pairs::pairs(column, rng)?
        };
        near.retain(|pair| pair.iter().all(|value| value.null_count() == 0));
        let mut pieces = vec![column.as_ref()];
        pieces.extend(made.iter().map(|(_, value)| value.as_ref()));
        let first = pieces.iter().map(|piece| piece.len()).sum();
        pieces.extend(near.iter().flatten().map(AsRef::as_ref));
        Ok(Self {
            all: concat(&pieces)?,
            sample: column.len(),
            bounds: made.iter().map(|(bound, _)| *bound).collect(),
            pairs: (first..)
                .step_by(2)
                .map(|at| [at, at + 1])
                .take(near.len())
                .collect(),
        })
    }

    fn at(&self, bound: Bound) -> Option<usize> {
        let index = self.bounds.iter().position(|found| *found == bound)?;
        Some(self.sample + index)
    }

    fn near(&self, rng: &mut Rng) -> usize {
        let near = (0..self.bounds.len()).filter(|index| self.bounds[*index] == Bound::Near);
        let near: Vec<usize> = near.collect();
        rng.choice(near)
            .map_or_else(|| rng.usize(..self.sample), |index| self.sample + index)
    }
}

/// Values of a column's type, one in each array.
fn made_up(field: &Field, column: &ArrayRef) -> Result<Vec<(Bound, ArrayRef)>, ArrowError> {
    if field.categories.is_some() {
        return Ok(vec![]);
    }
    of_type(column)
}

fn of_type(column: &ArrayRef) -> Result<Vec<(Bound, ArrayRef)>, ArrowError> {
    let data_type = column.data_type();
    if data_type.is_floating() {
        return floats(column);
    }
    if data_type.is_integer() || data_type.is_temporal() {
        return integers(column);
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of other types there is nothing to make up"
    )]
    let made: Vec<(Bound, ArrayRef)> = match data_type {
        DataType::Boolean => [(Bound::Low, false), (Bound::High, true)]
            .map(|(bound, value)| (bound, Arc::new(BooleanArray::from(vec![value])) as ArrayRef))
            .into(),
        DataType::Utf8 => texts(column),
        DataType::Binary => [(Bound::Zero, &b""[..]), (Bound::High, &b"\xff\x00\x7f"[..])]
            .map(|(bound, value)| (bound, Arc::new(BinaryArray::from(vec![value])) as ArrayRef))
            .into(),
        DataType::List(item) => nested::lists(column, item)?,
        DataType::FixedSizeList(item, length) => nested::fixed_lists(column, item, *length)?,
        DataType::Struct(fields) => nested::structs(column, fields)?,
        DataType::Decimal128(precision, scale) => nested::decimals(column, *precision, *scale)?,
        _ => vec![],
    };
    Ok(made)
}

/// Texts that a reader of many rows may take as a sign of what all of them are: parsers guess the
/// form of numbers and dates from the first one, or from any.
const TEXTS: [(Bound, &str); 4] = [
    (Bound::Zero, ""),
    (Bound::High, "Ünseen ☃"),
    (Bound::Low, " 0"),
    // What people separate values by.
    (Bound::Far, "a,b;c|d\te\nf\"g'h"),
];
const TEXTS_WITH_DIGITS: [&str; 6] = [
    "05/06/2024",
    "2024-03-04",
    "2024-03-04T05:06:07Z",
    "1,234.50",
    "$12.50",
    "1e5",
];

/// Characters of a text longer than most.
const LONG: usize = 300;

fn texts(column: &ArrayRef) -> Vec<(Bound, ArrayRef)> {
    let one = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let mut made: Vec<_> = TEXTS.map(|(bound, text)| (bound, one(text))).into();
    made.push((Bound::High, one(&"long ".repeat(LONG / 5))));
    let mut known = column.as_string::<i32>().iter().flatten();
    if known.any(|text| text.contains(|letter: char| letter.is_ascii_digit())) {
        made.extend(TEXTS_WITH_DIGITS.map(|text| (Bound::High, one(text))));
    }
    made
}

/// So much that it shows in every mean, and that its square is still a 32-bit number.
const HUGE: f64 = 1e18;

fn floats(column: &ArrayRef) -> Result<Vec<(Bound, ArrayRef)>, ArrowError> {
    let (least, most) = finite_bounds(column)?.unwrap_or((0.0, 1.0));
    let range = if most > least {
        most - least
    } else {
        most.abs().max(1.0)
    };
    let made = [
        (Bound::Near, least + range * 0.5),
        (Bound::Near, least + range * 0.2718),
        (Bound::Near, least + range * 0.1234),
        (Bound::Near, least + range * 0.8765),
        (Bound::Near, least),
        (Bound::Near, most),
        (Bound::Missing, f64::NAN),
        (Bound::Zero, 0.0),
        // Whoever guesses from a call whether numbers are parts or percents is wrong with it.
        (Bound::High, 0.5),
        (Bound::Low, least - range),
        (Bound::High, most + range),
        // Whoever remembers rounded values takes it for the one before.
        (Bound::High, most + range * 1.001),
        (Bound::Far, most + range * 30.0),
        (Bound::Least, f64::NEG_INFINITY),
        (Bound::Least, -HUGE),
        (Bound::Most, HUGE),
        (Bound::Most, f64::INFINITY),
    ];
    let made = made.map(|(bound, value)| {
        let value = Float64Array::from(vec![value]);
        Ok((bound, cast(&value, column.data_type())?))
    });
    made.into_iter().collect()
}

/// The least and the most of a column's numbers, if it has some that are finite.
fn finite_bounds(column: &ArrayRef) -> Result<Option<(f64, f64)>, ArrowError> {
    let wide = cast(column, &DataType::Float64)?;
    let numbers = wide.as_primitive::<Float64Type>().iter().flatten();
    let finite = numbers.filter(|value| value.is_finite());
    let bounds = finite.map(|value| (value, value));
    Ok(bounds.reduce(|(least, most), (value, _)| (least.min(value), most.max(value))))
}

/// Integers, and times, which count something.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others have no days")]
fn integers(column: &ArrayRef) -> Result<Vec<(Bound, ArrayRef)>, ArrowError> {
    let wide = as_counts(column)?;
    let values = || wide.as_primitive::<Int64Type>().iter().flatten();
    let (least, most) = (
        values().min().unwrap_or_default(),
        values().max().unwrap_or_default(),
    );
    let range = most.saturating_sub(least).max(1);
    let mut made = vec![
        (Bound::Near, least.saturating_add(range / 2)),
        (Bound::Near, least.saturating_add(range / 3)),
        (Bound::Near, least),
        (Bound::Near, most),
        (Bound::Zero, 0),
        (Bound::High, 1),
        (Bound::Low, least.saturating_sub(range)),
        (Bound::High, most.saturating_add(range)),
    ];
    let day = match column.data_type() {
        DataType::Date32 => Some(1),
        DataType::Timestamp(unit, _) => Some(DAY_SECONDS * per_second(*unit)),
        _ => None,
    };
    if let Some(day) = day {
        made.push((Bound::Far, most.saturating_add(day * 365 * 30)));
        made.push((Bound::Far, least.saturating_sub(day * 365 * 90)));
    }
    if column.data_type().is_integer() {
        made.extend(limits(column.data_type()));
    }
    made.retain(|(_, value)| is_held(column.data_type(), *value));
    let made = made.into_iter().map(|(bound, value)| {
        let value = Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        Ok((bound, from_counts(&value, column.data_type())?))
    });
    made.collect()
}

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A time of day is within a day; casts do not check that.
fn is_held(data_type: &DataType, value: i64) -> bool {
    let (DataType::Time32(unit) | DataType::Time64(unit)) = data_type else {
        return true;
    };
    (0..DAY_SECONDS * per_second(*unit)).contains(&value)
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn limits(data_type: &DataType) -> [(Bound, i64); 2] {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what the widest types hold and more is not needed"
    )]
    let (least, most) = match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, i64::MAX),
        _ => (i64::MIN, i64::MAX),
    };
    [(Bound::Least, least), (Bound::Most, most)]
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all others are cast at once"
)]
fn as_counts(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Date32 | DataType::Time32(_) => {
            cast(&cast(column, &DataType::Int32)?, &DataType::Int64)
        }
        _ => cast(column, &DataType::Int64),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all others are cast at once"
)]
fn from_counts(counts: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    match data_type {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(counts, &DataType::Int32)?, data_type),
        _ => cast(counts, data_type),
    }
}
