//! Which rows are put together: the choices that a function would have to survive.
//!
//! Rows are numbers in a [`Pool`]: the sample's first, foreign ones behind them. Trials are ordered by
//! how many functions each would give away, so that those who run out of time have tried the best.

use std::collections::HashSet;

use arrow_array::{RecordBatch, UInt64Array};
use arrow_ord::sort::{SortOptions, sort_to_indices};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use fastrand::Rng;

use super::foreign::Foreign;

/// Rows to put together.
#[derive(Debug)]
pub(crate) struct Pool {
    rows: RecordBatch,
    sample: usize,
    /// See [`Foreign`].
    values: Vec<Vec<usize>>,
    wild: Vec<bool>,
    /// The first of the rows in pairs.
    paired: usize,
}

/// One choice of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) kind: Kind,
    pub(crate) rows: Vec<usize>,
}

/// What is special about a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The sample as it is, once more.
    Again,
    Alone,
    Reversed,
    Part,
    Twice,
    Shuffled,
    AllEqual,
    Sorted {
        column: String,
    },
    Rotated,
    /// Rows of the sample among others.
    Mixed,
    /// As many rows as another trial had, the first ones the same, the rest different.
    SameBeginning,
    Sized,
    /// In a worker that was asked other things before.
    Fresh,
    /// Filled up to whole tiles.
    Tiled {
        tile: u32,
    },
}

/// Columns of a wide table by which rows are sorted.
const MOST_SORTED: usize = 8;

/// Rows of the sample that are asked for alone.
const MOST_ALONE: usize = 32;

/// Numbers of rows at which functions may change their minds: thresholds that people choose,
/// those of block sizes, and one more or less.
const SIZES: [usize; 36] = [
    2, 100, 101, 1000, 3, 10, 11, 4096, 5, 9, 50, 51, 1001, 500, 501, 128, 129, 99, 127, 150, 200,
    201, 255, 256, 257, 300, 400, 511, 512, 513, 750, 999, 1023, 1024, 1025, 2048,
];

/// So many of them are tried before anything that takes many trials.
pub(crate) const FIRST_SIZES: usize = 8;

/// All numbers of rows up to this are tried.
const SMALL: usize = 70;

/// Numbers of rows that nobody would guess.
const ANY_SIZES: usize = 8;

/// No kernel of linear algebra computes more rows at a time.
const WIDEST_KERNEL: usize = 64;

/// Calls of few tiles, at the most.
const TILED: usize = 256;

/// As many rows as jobs put into a call; only for functions that are quick enough.
pub(crate) const LARGE: [usize; 3] = [5001, 10_001, 65_536];

impl Pool {
    pub(crate) fn new(sample: &RecordBatch, foreign: &Foreign) -> Result<Self, ArrowError> {
        let mut wild = vec![false; sample.num_rows()];
        wild.extend(&foreign.wild);
        Ok(Self {
            rows: concat_batches(&sample.schema(), [sample, &foreign.rows])?,
            sample: sample.num_rows(),
            values: foreign.values.clone(),
            paired: sample.num_rows() + foreign.rows.num_rows() - foreign.paired,
            wild,
        })
    }

    pub(crate) fn sample(&self) -> Vec<usize> {
        (0..self.sample).collect()
    }

    pub(crate) fn foreign(&self) -> std::ops::Range<usize> {
        self.sample..self.rows.num_rows()
    }

    /// The foreign ones of `rows` that were the first to have a value in some column.
    fn firsts(&self, rows: &[usize]) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut is_first = |row: &usize| {
            let values = row.checked_sub(self.sample).map(|row| &self.values[row]);
            let news = values.into_iter().flatten().enumerate();
            // All columns are looked at: each remembers its own values.
            news.filter(|value| seen.insert(*value)).count() > 0
        };
        rows.iter().copied().filter(|row| is_first(row)).collect()
    }

    pub(crate) fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    pub(crate) fn is_wild(&self, row: usize) -> bool {
        self.wild[row]
    }

    pub(crate) fn take(&self, rows: &[usize]) -> Result<RecordBatch, ArrowError> {
        take(&self.rows, rows)
    }

    /// How many of `rows` are not the first of them once more.
    pub(crate) fn differ(&self, rows: &[usize]) -> bool {
        let first = rows.first().map(|row| self.rows.slice(*row, 1));
        rows.iter()
            .any(|row| Some(self.rows.slice(*row, 1)) != first)
    }
}

/// Rows of a batch, by number.
pub(crate) fn take(batch: &RecordBatch, rows: &[usize]) -> Result<RecordBatch, ArrowError> {
    let indices: UInt64Array = rows.iter().map(|row| Some(*row as u64)).collect();
    take_record_batch(batch, &indices)
}

impl Trial {
    pub(crate) fn new(kind: Kind, rows: Vec<usize>) -> Self {
        Self { kind, rows }
    }

    /// What was done, as the beginning of a sentence that says what came of it.
    pub(crate) fn told(&self) -> String {
        let count = self.rows.len();
        match &self.kind {
            Kind::Again => "called again with the sample".into(),
            Kind::Alone => "with one row alone".into(),
            Kind::Reversed => "with the rows in reverse order".into(),
            Kind::Part => format!("with a part of the sample, {count} rows"),
            Kind::Twice => "with each row twice".into(),
            Kind::Shuffled => "with the rows in another order".into(),
            Kind::AllEqual => format!("with one row {count} times"),
            Kind::Sorted { column } => format!("with the rows sorted by `{column}`"),
            Kind::Rotated => "with the rows in other places".into(),
            Kind::Mixed => format!("among other rows, {count} together"),
            Kind::SameBeginning => "with other rows, but the same first ones".into(),
            Kind::Sized => format!("with {count} rows"),
            Kind::Fresh => format!("in another process, with {count} rows"),
            Kind::Tiled { tile } => format!("with {count} rows filled up to whole tiles of {tile}"),
        }
    }
}

/// Rows of the sample to ask for alone: the first and the last, and any between.
pub(crate) fn alone(pool: &Pool, rng: &mut Rng) -> Vec<Trial> {
    let mut rows = pool.sample();
    let last = rows.len() - 1;
    rng.shuffle(&mut rows);
    rows.retain(|row| *row != 0 && *row != last);
    rows.splice(0..0, if last == 0 { vec![0] } else { vec![0, last] });
    rows.truncate(MOST_ALONE);
    rows.into_iter()
        .map(|row| Trial::new(Kind::Alone, vec![row]))
        .collect()
}

/// Everything that does not depend on how quick the function is: what one worker has to be asked, in
/// this order, and what any may.
///
/// `known` are the rows that the function took when each was alone.
pub(crate) fn mixtures(pool: &Pool, known: &[usize], rng: &mut Rng) -> (Vec<Trial>, Vec<Trial>) {
    let foreign: Vec<usize> = known
        .iter()
        .copied()
        .filter(|row| (pool.sample..pool.paired).contains(row))
        .collect();
    let mut trials = vec![mixed(pool.sample(), &foreign, rng)];
    trials.extend(reordered(pool, rng));
    trials.extend(parts(pool, rng));
    trials.extend(equal(known, rng));
    let companions = companions(pool, &foreign, rng);
    trials.extend(same_beginnings(known, rng));
    trials.extend(sorted(pool));
    (trials, companions)
}

/// Rows of any size, drawn from all that are `known`.
pub(crate) fn sized(known: &[usize], rng: &mut Rng) -> Vec<Trial> {
    let mut sizes = SIZES.to_vec();
    sizes.extend((2..=SMALL).filter(|size| !SIZES.contains(size)));
    sizes.extend((0..ANY_SIZES).map(|_| rng.usize(2..2000)));
    sizes
        .into_iter()
        .map(|size| Trial::new(Kind::Sized, drawn(known, size, rng)))
        .collect()
}

/// What another worker is asked, in another order than the first.
pub(crate) fn fresh(pool: &Pool, known: &[usize], rng: &mut Rng) -> Vec<Trial> {
    // What came first now comes last: who remembers the first of a kind now remembers another.
    let mut firsts = pool.firsts(known);
    firsts.reverse();
    let mut backwards = known.to_vec();
    backwards.reverse();
    let mut trials = vec![firsts, backwards.clone()];
    trials.retain(|rows| !rows.is_empty());
    trials.extend(backwards.iter().take(8).map(|row| vec![*row]));
    let mut sample = pool.sample();
    rng.shuffle(&mut sample);
    trials.extend(sample.iter().take(8).map(|row| vec![*row]));
    trials.push(sample);
    trials.extend([3, 17, 120, 1000].map(|size| drawn(known, size, rng)));
    trials.push(pool.sample());
    trials
        .into_iter()
        .map(|rows| Trial::new(Kind::Fresh, rows))
        .collect()
}

/// Calls of whole tiles: alone, in all places, among others.
pub(crate) fn tiled(pool: &Pool, known: &[usize], tile: u32, rng: &mut Rng) -> Vec<Trial> {
    let rows = tile as usize;
    let mut trials = vec![pool.sample()];
    trials.extend(pool.sample().into_iter().take(8).map(|row| vec![row]));
    trials.extend([100, 333, 1000, 4096].map(|size| drawn(known, size, rng)));
    // Of a kernel's last rows, which are computed in another way, few have other bits: it takes many
    // of them to see that the tile is too small.
    let multiples = (WIDEST_KERNEL / rows).max(4);
    let sizes = (1..=multiples).flat_map(|tiles| [tiles * rows, tiles * rows - 1]);
    let sizes: Vec<usize> = sizes.collect();
    for _ in 0..TILED / sizes.len() {
        trials.extend(sizes.iter().map(|size| drawn(known, *size, rng)));
    }
    trials
        .into_iter()
        .filter(|rows| !rows.is_empty())
        .map(|rows| Trial::new(Kind::Tiled { tile }, rows))
        .collect()
}

/// `size` of `rows`, each as often as it comes.
pub(crate) fn drawn(rows: &[usize], size: usize, rng: &mut Rng) -> Vec<usize> {
    (0..size).map(|_| rows[rng.usize(..rows.len())]).collect()
}

fn mixed(mut rows: Vec<usize>, others: &[usize], rng: &mut Rng) -> Trial {
    rows.extend(others);
    rng.shuffle(&mut rows);
    Trial::new(Kind::Mixed, rows)
}

fn reordered(pool: &Pool, rng: &mut Rng) -> Vec<Trial> {
    let rows = pool.sample();
    let reversed = rows.iter().rev().copied().collect();
    let mut trials = vec![
        Trial::new(Kind::Reversed, reversed),
        Trial::new(Kind::Again, rows.clone()),
    ];
    for _ in 0..3 {
        let mut shuffled = rows.clone();
        rng.shuffle(&mut shuffled);
        trials.push(Trial::new(Kind::Shuffled, shuffled));
    }
    for by in [1, rows.len() / 3, rows.len() / 2] {
        let mut rotated = rows.clone();
        rotated.rotate_left(by.min(rows.len()));
        trials.push(Trial::new(Kind::Rotated, rotated));
    }
    trials
}

fn parts(pool: &Pool, rng: &mut Rng) -> Vec<Trial> {
    let rows = pool.sample();
    let at = rng.usize(..rows.len());
    let doubled: Vec<usize> = rows.iter().flat_map(|row| [*row, *row]).collect();
    let mut trials = vec![
        Trial::new(Kind::Twice, doubled),
        Trial::new(Kind::Twice, [rows.clone(), rows.clone()].concat()),
    ];
    for at in [rows.len() / 2, at, 1, rows.len() - 1] {
        for part in [&rows[..at], &rows[at..]] {
            if !part.is_empty() {
                trials.push(Trial::new(Kind::Part, part.to_vec()));
            }
        }
    }
    trials
}

/// The same row in every place, and one other among them.
fn equal(known: &[usize], rng: &mut Rng) -> Vec<Trial> {
    let mut trials = vec![];
    for size in [2, 7, 33, 130] {
        let row = known[rng.usize(..known.len())];
        let mut rows = vec![row; size];
        trials.push(Trial::new(Kind::AllEqual, rows.clone()));
        rows[rng.usize(..size)] = known[rng.usize(..known.len())];
        trials.push(Trial::new(Kind::Mixed, rows));
    }
    trials
}

/// Each foreign row among those of the sample, at another place.
fn companions(pool: &Pool, foreign: &[usize], rng: &mut Rng) -> Vec<Trial> {
    let among = |row: &usize| {
        let mut rows = pool.sample();
        rows.insert(rng.usize(..=rows.len()), *row);
        Trial::new(Kind::Mixed, rows)
    };
    let mut trials: Vec<Trial> = foreign.iter().map(among).collect();
    for row in foreign {
        let other = pool.sample()[row % pool.sample];
        trials.push(Trial::new(Kind::Mixed, vec![other, *row]));
    }
    if !foreign.is_empty() {
        trials.push(Trial::new(Kind::Mixed, foreign.to_vec()));
    }
    trials
}

/// What remembers answers by how a call begins, or by its length, gives itself away.
fn same_beginnings(known: &[usize], rng: &mut Rng) -> Vec<Trial> {
    let mut trials = vec![];
    for size in [2, 6, 20] {
        let mut rows = drawn(known, size, rng);
        trials.push(Trial::new(Kind::Sized, rows.clone()));
        // Not the last one either, where there are some between.
        let end = if size > 4 { size - 1 } else { size };
        for row in &mut rows[size / 2..end] {
            *row = known[rng.usize(..known.len())];
        }
        trials.push(Trial::new(Kind::SameBeginning, rows));
    }
    trials
}

fn sorted(pool: &Pool) -> Vec<Trial> {
    let schema = pool.rows.schema();
    let columns = schema.fields().iter().zip(pool.rows.columns());
    let mut trials = vec![];
    for (field, column) in columns.take(MOST_SORTED) {
        let values = column.slice(0, pool.sample);
        for descending in [false, true] {
            let options = SortOptions {
                descending,
                ..SortOptions::default()
            };
            // Lists have no order.
            let Ok(order) = sort_to_indices(&values, Some(options), None) else {
                continue;
            };
            let rows = order.values().iter().map(|row| *row as usize).collect();
            let column = field.name().clone();
            trials.push(Trial::new(Kind::Sorted { column }, rows));
        }
    }
    trials
}
