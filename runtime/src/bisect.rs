//! Which rows are guilty: a batch that fails is halved until only they fail.

use std::ops::Range;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use tokio::time::Instant;

use crate::certify::is_called_for_each_row;
use crate::{Error, Runtime, arrow_schema};

/// What came of a batch whose rows fail one by one.
#[derive(Debug)]
pub struct Mapped {
    /// The output of the rows that have one, in their order.
    pub rows: RecordBatch,
    /// The others, by number and in order, and what was wrong with each.
    pub failed: Vec<(usize, Error)>,
}

impl Runtime {
    /// As [`Runtime::map`], but a row that makes the function fail, or kills its worker, fails alone:
    /// the batch is halved until it is found, which takes about 2 log₂(rows) calls for each such row.
    /// `deadline` is for all of them.
    ///
    /// Only where the certificate says that rows do not depend on each other; otherwise, and when
    /// more than `most_failed` rows fail, the whole batch fails as in [`Runtime::map`].
    ///
    /// # Errors
    /// As [`Runtime::map`]; a missed deadline is nobody's fault and fails the whole batch.
    pub async fn map_each(
        &self,
        function: Option<&str>,
        rows: RecordBatch,
        most_failed: usize,
        deadline: Duration,
    ) -> Result<Mapped, Error> {
        let found = self.envelope().function(function)?;
        let can_be_split = found.certificate.row_wise || is_called_for_each_row(found);
        let begun = Instant::now();
        let mut search = Search::new(rows.num_rows());
        while let Some(range) = search.next() {
            let part = rows.slice(range.start, range.len());
            let left = deadline.saturating_sub(begun.elapsed());
            match self.map(function, part, left).await {
                Ok(output) => search.succeeded(output),
                Err(error) if can_be_split && is_of_rows(&error) => {
                    search.failed(range, error, most_failed)?;
                }
                Err(error) => return Err(error),
            }
        }
        let schema = search.outputs.first().map_or_else(
            || arrow_schema(&found.signature.output),
            RecordBatch::schema,
        );
        let rows = concat_batches(&schema, &search.outputs);
        Ok(Mapped {
            rows: rows.map_err(|error| Error::Output {
                function: found.name.clone(),
                reason: error.to_string(),
            })?,
            failed: search.guilty,
        })
    }
}

/// Whether some row may be to blame.
fn is_of_rows(error: &Error) -> bool {
    matches!(
        error,
        Error::Function { .. }
            | Error::Output { .. }
            | Error::RowsDoNotFit { .. }
            | Error::Crashed { .. }
    )
}

/// The parts that are still to be called, and what came of the others.
#[derive(Debug)]
struct Search {
    /// The next one last.
    waiting: Vec<Range<usize>>,
    outputs: Vec<RecordBatch>,
    guilty: Vec<(usize, Error)>,
}

impl Search {
    fn new(rows: usize) -> Self {
        Self {
            waiting: Vec::from([Range {
                start: 0,
                end: rows,
            }]),
            outputs: vec![],
            guilty: vec![],
        }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.waiting.pop()
    }

    fn succeeded(&mut self, output: RecordBatch) {
        self.outputs.push(output);
    }

    /// Halves a part, or blames its only row.
    fn failed(&mut self, range: Range<usize>, error: Error, most: usize) -> Result<(), Error> {
        if range.len() <= 1 {
            if range.is_empty() || self.guilty.len() == most {
                return Err(error);
            }
            self.guilty.push((range.start, error));
            return Ok(());
        }
        let middle = range.start + range.len() / 2;
        self.waiting
            .extend([middle..range.end, range.start..middle]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn crash() -> Error {
        Error::Crashed {
            reason: String::new(),
            stderr: String::new(),
        }
    }

    /// The rows found guilty, and how many calls that took.
    fn search(rows: usize, bad: &BTreeSet<usize>, most: usize) -> Option<(Vec<usize>, usize)> {
        let mut search = Search::new(rows);
        let mut calls = 0;
        while let Some(range) = search.next() {
            calls += 1;
            if bad.range(range.clone()).next().is_some() {
                search.failed(range, crash(), most).ok()?;
            }
        }
        Some((search.guilty.iter().map(|(row, _)| *row).collect(), calls))
    }

    #[test]
    fn all_guilty_rows_are_found_in_order_and_no_other() {
        for bad in [
            vec![],
            vec![0],
            vec![999],
            vec![0, 1, 2],
            vec![5, 500, 501, 998],
        ] {
            let bad: BTreeSet<usize> = bad.into_iter().collect();
            let (found, calls) = search(1000, &bad, 10).expect("few enough");
            assert_eq!(found, bad.iter().copied().collect::<Vec<_>>());
            assert!(calls <= 1 + bad.len() * 20, "{calls} calls for {bad:?}");
        }
    }

    #[test]
    fn too_many_guilty_rows_end_the_search() {
        let bad = (0..100).collect();
        assert!(search(100, &bad, 99).is_none());
        assert_eq!(search(100, &bad, 100).expect("just enough").0.len(), 100);
    }
}
