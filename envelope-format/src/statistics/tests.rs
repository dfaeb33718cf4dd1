//! Rules that hold for all values, and those of reading.

use proptest::prelude::*;

use super::counters::COUNTERS;
use super::quantiles::RANK_ERROR;
use super::*;
use crate::{Field, Rows, Shape};

fn floats(values: &[f64]) -> ColumnStatistics {
    let mut summary = ColumnSummary::new("x", DataType::Float64);
    for chunk in values.chunks(CHUNK_ROWS) {
        summary.add(0, &Chunk::Floats(chunk)).unwrap();
    }
    summary.finish()
}

fn integers(values: &[i64]) -> ColumnStatistics {
    let mut summary = ColumnSummary::new("x", DataType::Int64);
    for chunk in values.chunks(CHUNK_ROWS) {
        summary.add(0, &Chunk::Integers(chunk)).unwrap();
    }
    summary.finish()
}

fn texts(values: &[&str], nulls: usize) -> ColumnStatistics {
    let mut summary = ColumnSummary::new("x", DataType::Utf8);
    summary.add(nulls, &Chunk::Texts(values)).unwrap();
    summary.finish()
}

fn document(column: ColumnStatistics) -> (Statistics, Signature) {
    let field = Field::new(&column.name, column.data_type.clone(), column.nulls > 0);
    let rows = |fields| Rows {
        shape: Shape::PandasDataFrame,
        fields,
    };
    let signature = Signature {
        input: rows(vec![field]),
        output: rows(vec![]),
    };
    let input = TableStatistics {
        rows: column.count,
        columns: vec![column],
    };
    let output = TableStatistics {
        rows: 0,
        columns: vec![],
    };
    (Statistics::new(input, output), signature)
}

/// Doubles without a pattern, the same each time.
fn noise(seed: u64, count: usize) -> impl Iterator<Item = f64> {
    let mut state = seed;
    (0..count).map(move |_| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    })
}

#[track_caller]
fn close(one: f64, other: f64, tolerance: f64) {
    assert!(
        (one - other).abs() <= tolerance * one.abs().max(other.abs()),
        "{one} is not {other}"
    );
}

/// The share of values below the quantile, and of those not above it, must enclose the share that
/// was asked for, but for the error that is stated.
#[track_caller]
fn quantiles_hold(values: &[f64], found: &NumberStatistics) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |place: usize| place as f64 / sorted.len() as f64;
    let quantiles = found.quantiles.as_ref().unwrap();
    let slack = quantiles.rank_error + 1.0 / sorted.len() as f64;
    for (wanted, value) in &quantiles.values {
        let value = &value.as_f64().unwrap();
        let below = share(sorted.partition_point(|it| it < value));
        let not_above = share(sorted.partition_point(|it| it <= value));
        assert!(
            below - slack <= *wanted && *wanted <= not_above + slack,
            "quantile {wanted} is {value}, of rank {below} to {not_above}"
        );
    }
}

#[track_caller]
fn histogram_holds(values: &[f64], found: &NumberStatistics) {
    let histogram = found.histogram.as_ref().unwrap();
    let error = 2.0 * found.quantiles.as_ref().unwrap().rank_error * values.len() as f64 + 1.0;
    let last = histogram.counts.len() - 1;
    for (bin, count) in histogram.counts.iter().enumerate() {
        let (low, high) = (histogram.edges[bin], histogram.edges[bin + 1]);
        let inside = |it: &&f64| **it >= low && (**it < high || bin == last);
        let exact = values.iter().filter(inside).count();
        assert!(exact.abs_diff(*count as usize) as f64 <= error, "bin {bin}");
    }
}

fn distributions(count: usize) -> Vec<(&'static str, Vec<f64>)> {
    let noise = |seed| noise(seed, count);
    let ascending: Vec<_> = (0..count).map(|row| row as f64).collect();
    vec![
        ("uniform", noise(1).collect()),
        (
            "heavy tail",
            noise(2).map(|it| (1.0 / (it + 1e-12)).powi(3)).collect(),
        ),
        (
            "two peaks",
            noise(3)
                .zip(noise(4))
                .map(|(one, two)| one + if two < 0.3 { 1e6 } else { 0.0 })
                .collect(),
        ),
        (
            "few values",
            noise(5).map(|it| (it * 5.0).floor()).collect(),
        ),
        (
            "many whole numbers",
            noise(6).map(|it| (it * it * 1000.0).floor()).collect(),
        ),
        (
            "mostly one value",
            noise(7)
                .map(|it| if it < 0.95 { 7.0 } else { it })
                .collect(),
        ),
        (
            "far from 0",
            noise(8).map(|it| 1.7e18 + it * 1e12).collect(),
        ),
        ("descending", ascending.iter().rev().copied().collect()),
        (
            "interleaved",
            ascending
                .iter()
                .map(|it| if it % 2.0 == 0.0 { *it } else { -it })
                .collect(),
        ),
        ("ascending", ascending),
        (
            "tiny and huge",
            noise(9).map(|it| 10_f64.powf(it * 600.0 - 300.0)).collect(),
        ),
        (
            "signed tails",
            noise(10).map(|it| (it - 0.5).powi(9) * 1e30).collect(),
        ),
    ]
}

#[test]
fn quantiles_and_histograms_keep_their_stated_error() {
    for count in [1, 2, 7, 100, 1000, 200_000] {
        for (name, values) in distributions(count) {
            println!("{name}, {count} values");
            let numbers = floats(&values).numbers.unwrap();
            quantiles_hold(&values, &numbers);
            histogram_holds(&values, &numbers);
        }
    }
}

#[test]
fn quantiles_keep_their_stated_error_over_many_merges() {
    for (name, values) in distributions(200_000) {
        println!("{name}");
        let parts = values.chunks(1999).map(floats);
        let merged = parts.reduce(|one, other| one.merge(&other).unwrap());
        let numbers = merged.unwrap().numbers.unwrap();
        quantiles_hold(&values, &numbers);
        histogram_holds(&values, &numbers);
    }
}

#[test]
fn distinct_values_keep_their_stated_error() {
    for count in [10_i64, 128, 129, 1000, 10_000, 300_000] {
        let values: Vec<_> = (0..count).chain(0..count).collect();
        let distinct = integers(&values).distinct.unwrap();
        let error = distinct.estimate.abs_diff(count as u64) as f64 / count as f64;
        assert!(
            error <= 3.0 * distinct.relative_error,
            "{count}: {distinct:?}"
        );
        assert_eq!(distinct.relative_error == 0.0, count <= COUNTERS as i64);
    }
}

#[test]
fn few_values_are_counted_exactly_however_often_they_occur() {
    let values: Vec<_> = (0..100_000).map(|row| (row * row) % 101).collect();
    let column = integers(&values);
    let frequent = &column.numbers.as_ref().unwrap().frequent;
    assert_eq!(frequent.error, 0);
    for (value, count) in &frequent.values {
        let exact = values
            .iter()
            .filter(|it| Value::Integer(**it) == *value)
            .count();
        assert_eq!(*count, exact as u64);
    }
    assert_eq!(
        column.distinct.unwrap().estimate,
        frequent.values.len() as u64
    );
}

#[test]
fn values_beyond_every_sum_have_no_mean() {
    let numbers = floats(&[f64::MAX, f64::MAX, f64::MIN_POSITIVE])
        .numbers
        .unwrap();
    assert_eq!(
        (numbers.mean, numbers.variance, numbers.std),
        (None, None, None)
    );
    assert_eq!(numbers.max, Some(Value::Float(f64::MAX)));
}

#[test]
fn whole_numbers_at_both_ends_are_exact() {
    let found = integers(&[i64::MIN, i64::MAX]).numbers.unwrap();
    assert_eq!(found.min, Some(Value::Integer(i64::MIN)));
    assert_eq!(found.max, Some(Value::Integer(i64::MAX)));
    assert_eq!(found.mean, Some(-0.5));
    let mut summary = ColumnSummary::new("x", DataType::UInt64);
    summary.add(0, &Chunk::Unsigned(&[0, u64::MAX])).unwrap();
    let found = summary.finish().numbers.unwrap();
    assert_eq!(found.min, Some(Value::Integer(0)));
    assert_eq!(found.max, Some(Value::Unsigned(u64::MAX)));
}

#[test]
fn long_texts_are_counted_but_not_kept() {
    let long = "ü".repeat(200);
    let column = texts(&["a", &long, &long], 1);
    let texts = column.texts.unwrap();
    assert_eq!(
        (texts.long, texts.max_is_cut, texts.min_is_cut),
        (2, true, false)
    );
    assert_eq!(texts.max.unwrap(), "ü".repeat(128));
    assert_eq!(texts.frequent.values, [(Value::Text("a".into()), 1)]);
    assert_eq!(column.distinct.unwrap().estimate, 2);
    assert_eq!(column.lengths.unwrap().max, Some(Value::Integer(200)));
}

#[test]
fn what_is_written_can_be_read() {
    for column in [
        floats(&[]),
        floats(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        floats(&[1.5, -0.0, 1e-300, f64::MAX]),
        floats(&noise(3, 5000).collect::<Vec<_>>()),
        integers(&[i64::MIN, 0, i64::MAX]),
        texts(&["", "b", "a"], 2),
        texts(&[], 3),
    ] {
        let (statistics, signature) = document(column);
        let json = statistics.to_json().unwrap();
        let read = Statistics::from_bytes(json.as_bytes(), &signature).unwrap();
        assert_eq!(read, statistics);
        assert_eq!(read.to_json().unwrap(), json);
    }
}

#[test]
fn another_version_is_named() {
    let (statistics, signature) = document(floats(&[1.0]));
    let text = statistics.to_json().unwrap();
    let later = text.replacen("\"version\": 1", "\"version\": 2", 1);
    for (bytes, message) in [
        (
            later.as_str(),
            "they have version 2, this program knows version 1",
        ),
        ("[]", "they have version none, this program knows version 1"),
    ] {
        let error = Statistics::from_bytes(bytes.as_bytes(), &signature).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// Statistics that contradict the signature or themselves, and what is said about them.
#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn contradictions_are_refused_with_the_column() {
    type Change = fn(&mut ColumnStatistics);
    fn numbers(column: &mut ColumnStatistics) -> &mut NumberStatistics {
        column.numbers.as_mut().unwrap()
    }
    fn histogram(column: &mut ColumnStatistics) -> &mut Histogram {
        numbers(column).histogram.as_mut().unwrap()
    }
    fn quantiles(column: &mut ColumnStatistics) -> &mut Quantiles {
        numbers(column).quantiles.as_mut().unwrap()
    }
    let cases: [(Change, &str); 22] = [
        (|it| it.count = 1, "3 values are missing of 1"),
        (|it| it.nulls = 0, "its histogram does not count 6 values"),
        (
            |it| it.numbers = None,
            "a column of float64 lacks `numbers`",
        ),
        (
            |it| it.booleans = Some(BooleanStatistics::default()),
            "a column of float64 has `booleans`",
        ),
        (
            |it| it.distinct = None,
            "a column of float64 lacks `distinct`",
        ),
        (
            |it| numbers(it).nans = u64::MAX,
            "more numbers are NaN or infinite than the 3 there are",
        ),
        (
            |it| numbers(it).zeros = 4,
            "more numbers are 0 or less than the 3 there are",
        ),
        (
            |it| numbers(it).min = None,
            "it has values, but its min or max is none of its type",
        ),
        (
            |it| numbers(it).min = Some(Value::Float(f64::NAN)),
            "it has values, but its min or max is none of its type",
        ),
        (
            |it| numbers(it).min = Some(Value::Text("nan".into())),
            "it has values, but its min or max is none of its type",
        ),
        (
            |it| numbers(it).min = Some(Value::Integer(1)),
            "it has a value that is not of its type",
        ),
        (
            |it| numbers(it).min = Some(Value::Float(9.0)),
            "its min 9 is above its max 4",
        ),
        (
            |it| numbers(it).mean = Some(-7.0),
            "its mean -7 is not between 1 and 4",
        ),
        (
            |it| numbers(it).variance = Some(-1.0),
            "is not the square of",
        ),
        (
            |it| quantiles(it).values.reverse(),
            "its quantiles do not ascend",
        ),
        (
            |it| quantiles(it).values[0].1 = Value::Float(0.0),
            "a quantile is not between its min and max",
        ),
        (
            |it| quantiles(it).sketch.data.truncate(8),
            "its kll sketch ends too early",
        ),
        (
            |it| quantiles(it).sketch.version = 7,
            "its sketch is a kll of version 7",
        ),
        (
            |it| histogram(it).edges.reverse(),
            "the bounds of its histogram do not ascend",
        ),
        (
            |it| histogram(it).counts[0] = u64::MAX,
            "its histogram does not count 3 values",
        ),
        (
            |it| numbers(it).frequent.values[0].1 = 9,
            "its frequent values occur more often than the 3 values there are",
        ),
        (
            |it| it.distinct.as_mut().unwrap().estimate = 10,
            "it has 10 distinct values of 3",
        ),
    ];
    for (change, message) in cases {
        let mut summary = ColumnSummary::new("x", DataType::Float64);
        summary.add(3, &Chunk::Floats(&[1.0, 2.0, 4.0])).unwrap();
        let (mut statistics, signature) = document(summary.finish());
        statistics.check(&signature).unwrap();
        change(&mut statistics.input.columns[0]);
        let error = statistics.check(&signature).expect_err(message).to_string();
        assert!(error.starts_with("column `x` of the input: "), "{error}");
        assert!(error.contains(message), "{error} instead of {message}");
    }
}

#[test]
fn columns_are_those_of_the_signature() {
    let (mut statistics, mut signature) = document(floats(&[1.0]));
    signature
        .input
        .fields
        .push(Field::new("y", DataType::Utf8, false));
    let error = statistics.check(&signature).unwrap_err().to_string();
    assert_eq!(
        error,
        "the input has the columns `x`: float64 in the statistics and `x`: float64, `y`: utf8 in the signature"
    );
    signature.input.fields.pop();
    statistics.input.rows = 2;
    let error = statistics.check(&signature).unwrap_err().to_string();
    assert_eq!(error, "column `x` of the input: it has 1 rows of 2");
}

#[test]
fn missing_values_need_a_signature_that_allows_them() {
    let (statistics, mut signature) = document(texts(&["a"], 1));
    signature.input.fields[0].nullable = false;
    let error = statistics.check(&signature).unwrap_err().to_string();
    assert!(error.ends_with("1 values are missing, the signature says that none is"));
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e6..1e6,
        2 => (0_i32..5).prop_map(f64::from),
        1 => proptest::num::f64::ANY,
    ]
}

proptest! {
    /// Counts, bounds and errors of counts are the same in whichever order parts are merged;
    /// means and sketches within their errors.
    #[test]
    fn merging_is_associative(
        parts in prop::collection::vec(prop::collection::vec(any_float(), 0..400), 3)
    ) {
        let [a, b, c] = [0, 1, 2].map(|part| floats(&parts[part]));
        let left = a.merge(&b).unwrap().merge(&c).unwrap();
        let right = a.merge(&b.merge(&c).unwrap()).unwrap();
        let all: Vec<f64> = parts.concat();
        let whole = floats(&all);
        let finite: Vec<f64> = all.into_iter().filter(|it| it.is_finite()).collect();
        for merged in [&left, &right] {
            let (found, once) = (merged.numbers.as_ref().unwrap(), whole.numbers.as_ref().unwrap());
            prop_assert_eq!((merged.count, found.nans, found.zeros), (whole.count, once.nans, once.zeros));
            prop_assert_eq!((&found.min, &found.max), (&once.min, &once.max));
            prop_assert_eq!(found.negatives, once.negatives);
            if let (Some(mean), Some(exact)) = (found.mean, once.mean) {
                // Relative to the largest value: a mean may cancel out.
                let scale = finite.iter().fold(0.0, |most: f64, it| most.max(it.abs()));
                prop_assert!((mean - exact).abs() <= 1e-12 * scale);
            }
            if !finite.is_empty() {
                quantiles_hold(&finite, found);
            }
        }
        let [one, other] = [left, right].map(|merged| merged.distinct.unwrap().estimate);
        prop_assert!(one.abs_diff(other) <= one / 16 + 2, "{} and {}", one, other);
    }

    #[test]
    fn frequent_values_keep_their_stated_error(
        parts in prop::collection::vec(prop::collection::vec(0_i64..400, 0..600), 1..6)
    ) {
        let merged = parts.iter().map(|part| integers(part)).reduce(|one, other| one.merge(&other).unwrap());
        let frequent = merged.unwrap().numbers.unwrap().frequent;
        let all = parts.concat();
        for value in 0..400 {
            let exact = all.iter().filter(|it| **it == value).count() as u64;
            let listed = frequent.values.iter().find(|(it, _)| *it == Value::Integer(value));
            let count = listed.map_or(0, |(_, count)| *count);
            prop_assert!(count <= exact && exact <= count + frequent.error);
        }
        prop_assert!(frequent.error <= all.len() as u64 / COUNTERS as u64);
    }

    /// Within 1e-12 of sums of 128-bit integers, also where mean and variance differ by 1e9.
    #[test]
    fn mean_and_variance_of_parts_are_exact(
        values in prop::collection::vec(-1_000_i64..1_000, 2..500),
        offset in prop_oneof![Just(0_i64), Just(1 << 50), Just(1_700_000_000_000_000_000)],
        cut in 0_usize..500,
    ) {
        let shifted: Vec<_> = values.iter().map(|it| it + offset).collect();
        let (one, other) = shifted.split_at(cut.min(shifted.len()));
        let merged = integers(one).merge(&integers(other)).unwrap().numbers.unwrap();
        let count = values.len() as i64;
        let sum: i64 = values.iter().sum();
        let squares: i64 = values.iter().map(|it| it * it).sum();
        let exact = (count * squares - sum * sum) as f64 / (count * count) as f64;
        close(merged.variance.unwrap(), exact, 1e-12);
        close(merged.mean.unwrap(), offset as f64 + sum as f64 / count as f64, 1e-12);
    }

    /// Whatever the bytes are: an error or statistics, never a panic.
    #[test]
    fn damaged_documents_do_not_panic(place in 0_usize..4000, byte in any::<u8>()) {
        let (statistics, signature) = document(floats(&noise(1, 300).collect::<Vec<_>>()));
        let mut bytes = statistics.to_json().unwrap().into_bytes();
        let place = place % bytes.len();
        bytes[place] = byte;
        let _ = Statistics::from_bytes(&bytes, &signature);
    }
}

#[test]
fn the_stated_rank_error_is_that_of_the_sketch() {
    let many = floats(&noise(1, 10_000).collect::<Vec<_>>())
        .numbers
        .unwrap();
    assert_eq!(many.quantiles.unwrap().rank_error, RANK_ERROR);
    let few = floats(&[1.0, 2.0]).numbers.unwrap();
    assert_eq!(few.quantiles.unwrap().values[3], (0.5, Value::Float(1.0)));
}
