//! What the trials have shown: which rows are known, how far apart their outputs were.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use envelope_format::{Certificate, Equality, Shape};

use super::compare::{Scale, apart, is_narrow, told, unlike};
use super::trials::{Pool, Trial, take};

/// Relative differences that a certificate may state, the best first.
const TOLERANCES: [f64; 3] = [1e-12, 1e-9, 1e-6];

/// And these too where numbers have 32 bits.
const TOLERANCES_OF_32_BITS: [f64; 2] = [1e-5, 1e-4];

/// How much larger the stated tolerance is than any difference that was seen.
const MARGIN: f64 = 8.0;

/// What the function gave for each row of the pool when it was first asked, and how much that has
/// differed since.
#[derive(Debug)]
pub(crate) struct Evidence {
    outputs: RecordBatch,
    /// Where in `outputs` the one of a row of the pool is; `None` when the function refused it.
    at: Vec<Option<usize>>,
    scale: Scale,
    most: f64,
    worst: f64,
    pub(crate) trials: u32,
}

impl Evidence {
    /// With the outputs of the rows `known` of a pool of `rows`; nothing is known of the others.
    pub(crate) fn new(output: RecordBatch, shape: Shape, known: &[usize], rows: usize) -> Self {
        let most = if output.columns().iter().any(is_narrow) {
            TOLERANCES_OF_32_BITS[TOLERANCES_OF_32_BITS.len() - 1]
        } else {
            TOLERANCES[TOLERANCES.len() - 1]
        };
        let mut at = vec![None; rows];
        for (place, row) in known.iter().enumerate() {
            at[*row] = Some(place);
        }
        let scale = if matches!(shape, Shape::NumpyMatrix | Shape::TorchMatrix) {
            Scale::of_matrix(&output)
        } else {
            Scale::of(&output)
        };
        Self {
            scale,
            at,
            outputs: output,
            most,
            worst: 0.0,
            trials: 0,
        }
    }

    /// Remembers what was given for foreign rows, one output row each.
    pub(crate) fn learn(&mut self, learned: &[(usize, RecordBatch)]) -> Result<(), ArrowError> {
        for ((row, _), place) in learned.iter().zip(self.outputs.num_rows()..) {
            self.at[*row] = Some(place);
        }
        let batches =
            std::iter::once(&self.outputs).chain(learned.iter().map(|(_, output)| output));
        self.outputs = concat_batches(&self.outputs.schema(), batches)?;
        Ok(())
    }

    /// Rows that the function took when each was alone.
    pub(crate) fn known(&self) -> Vec<usize> {
        let rows = self.at.iter().enumerate();
        rows.filter_map(|(row, at)| at.map(|_| row)).collect()
    }

    /// Compares what was given for the rows of a trial; `Err` says how it depends on other rows.
    pub(crate) fn judge(
        &mut self,
        pool: &Pool,
        trial: &Trial,
        given: &RecordBatch,
    ) -> Result<(), String> {
        self.trials += 1;
        let reason = |what: String| Err(format!("{}: {what}", trial.told()));
        if given.num_rows() != trial.rows.len() {
            return reason(format!(
                "it gave {} rows for {}",
                given.num_rows(),
                trial.rows.len()
            ));
        }
        // What is given for wild rows is rounding, which nobody can promise anything of.
        let places = trial.rows.iter().enumerate();
        let looked_at: Vec<usize> = places
            .filter(|(_, row)| !pool.is_wild(**row))
            .map(|(place, _)| place)
            .collect();
        let expected = looked_at
            .iter()
            .filter_map(|place| self.at[trial.rows[*place]])
            .collect::<Vec<_>>();
        let compared = take(&self.outputs, &expected).and_then(|expected| {
            let given = take(given, &looked_at)?;
            Ok((expected, given))
        });
        let Ok((expected, given)) = compared else {
            return reason("its output cannot be compared".into());
        };
        if let Some(what) = unlike(&expected, &given) {
            return reason(what);
        }
        let apart = apart(&expected, &given, &self.scale);
        self.worst = self.worst.max(apart.distance);
        if apart.distance > self.most {
            return reason(told(&expected, &given, apart.place));
        }
        Ok(())
    }

    /// What was given for the first `count` known rows.
    pub(crate) fn outputs(&self, count: usize) -> RecordBatch {
        self.outputs.slice(0, count)
    }

    /// Whether all outputs for the same row had the same bits.
    pub(crate) fn is_bitwise(&self) -> bool {
        self.worst == 0.0
    }

    /// The certificate of a function that passed.
    pub(crate) fn certificate(&self, seed: u64) -> Certificate {
        let tolerances = TOLERANCES.into_iter().chain(TOLERANCES_OF_32_BITS);
        let mut tolerances = tolerances.filter(|most| *most < self.most);
        let enough = |most: &f64| self.worst * MARGIN <= *most;
        let tolerance = tolerances.find(enough).unwrap_or(self.most);
        Certificate {
            row_wise: true,
            equality: if self.is_bitwise() {
                Equality::Bitwise
            } else {
                Equality::Close
            },
            tile: None,
            trials: self.trials,
            seed,
            reason: None,
            tolerance: (!self.is_bitwise()).then_some(tolerance),
            reducer: false,
            planned: None,
        }
    }
}
