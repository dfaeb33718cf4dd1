//! The order of the trials: what is asked, and when enough was asked.

use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use envelope_format::{Certificate, Equality, Function};
use fastrand::Rng;
use tokio::time::Instant;

use super::evidence::Evidence;
use super::foreign::foreign;
use super::lent::is_called_for_each_row;
use super::pace::Pace;
use super::trials::{self, Kind, LARGE, Pool, Trial};
use super::{Ask, Certified, Heard, Trials, Whom, Workers};
use crate::{Error, padded};

/// As long as the sample itself may take.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(600);

/// Rows with extreme values that may cost a worker, before no more of them are tried.
const MOST_LOST: usize = 2;

/// Refused rows that are tried once more, in company.
const MOST_REFUSED: usize = 6;

/// Rows of a tile, the smallest first.
const TILES: [u32; 6] = [2, 4, 8, 16, 32, 64];

/// Longest time for one of the largest calls.
const LARGE_LIMIT: f64 = 1.0;

/// Why the trials ended.
enum End {
    /// The output for a row depends on something else, or cannot be tested.
    NotRowWise(String),
    /// Not the function's fault.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An examination under way.
struct Examination<'e, W> {
    workers: &'e mut W,
    function: &'e Function,
    pool: Pool,
    evidence: Evidence,
    pace: Pace,
    /// Foreign rows that the function refused, and what it said.
    refused: Vec<usize>,
    tell: &'e (dyn Fn(u32, u32) + Sync),
    planned: u32,
    skipped: bool,
}

/// Tests `function` on its `sample`.
pub(crate) async fn examine<W: Workers>(
    function: &Function,
    sample: &RecordBatch,
    workers: &mut W,
    settings: Trials,
    tell: &(dyn Fn(u32, u32) + Sync),
) -> Result<Certified, Error> {
    let reducer = is_reducer(function);
    let none = |reason: String, trials| Certified {
        certificate: not_row_wise(settings.seed, reason, trials, reducer),
        output: None,
    };
    let mut rng = Rng::with_seed(settings.seed);
    if sample.num_rows() == 0 {
        return Ok(none("its sample has no rows".into(), 0));
    }
    let (pool, output, pace) = match begin(function, sample, workers, settings, &mut rng).await {
        Ok(begun) => begun,
        Err(End::NotRowWise(reason)) => return Ok(none(reason, 1)),
        Err(End::Failed(error)) => return Err(error),
    };
    let shape = function.signature.output.shape;
    let evidence = Evidence::new(output, shape, &pool.sample(), pool.num_rows());
    let mut examination = Examination {
        workers,
        function,
        pool,
        evidence,
        pace,
        refused: vec![],
        tell,
        planned: 0,
        skipped: false,
    };
    match examination.run(&mut rng).await {
        Ok(()) => examination.certified(settings.seed, &mut rng).await,
        Err(End::NotRowWise(reason)) => Ok(none(reason, examination.evidence.trials)),
        Err(End::Failed(error)) => Err(error),
    }
}

/// One row for all the rows of a call. A function that takes one row at a time is none.
fn is_reducer(function: &Function) -> bool {
    let signature = &function.signature;
    signature.output.shape.is_one_row() && !signature.input.shape.is_one_row()
}

/// Asks for the sample, and makes rows to mix it with.
async fn begin<W: Workers>(
    function: &Function,
    sample: &RecordBatch,
    workers: &mut W,
    settings: Trials,
    rng: &mut Rng,
) -> Result<(Pool, RecordBatch, Pace), End> {
    let began = Instant::now();
    let heard = workers
        .ask(
            Whom::First,
            Ask {
                rows: sample.clone(),
                deadline: SAMPLE_DEADLINE,
            },
        )
        .await?;
    let pace = Pace::new(began, settings.limit);
    let output = match heard {
        Heard::Rows(output) => output,
        Heard::Refused(what) | Heard::Lost(what) => {
            return Err(End::NotRowWise(format!("with its own sample: {what}")));
        }
    };
    if output.num_rows() != sample.num_rows() {
        return Err(End::NotRowWise(format!(
            "it gave {} rows for {}",
            output.num_rows(),
            sample.num_rows()
        )));
    }
    let foreign =
        foreign(&function.signature.input, sample, rng).map_err(|e| unfit(function, &e))?;
    let pool = Pool::new(sample, &foreign).map_err(|e| unfit(function, &e))?;
    Ok((pool, output, pace))
}

fn unfit(function: &Function, error: &ArrowError) -> Error {
    Error::RowsDoNotFit {
        function: function.name.clone(),
        reason: error.to_string(),
    }
}

fn not_row_wise(seed: u64, reason: String, trials: u32, reducer: bool) -> Certificate {
    let reason = if reducer {
        format!("{REDUCER}; for one row at a time: {reason}")
    } else {
        reason
    };
    Certificate {
        row_wise: false,
        equality: Equality::None,
        tile: None,
        trials,
        seed,
        reason: Some(reason),
        tolerance: None,
        reducer,
        planned: None,
    }
}

const REDUCER: &str = "it gives one row for all the rows of a call";

impl<W: Workers> Examination<'_, W> {
    /// Everything but the search for a tile.
    async fn run(&mut self, rng: &mut Rng) -> Result<(), End> {
        let alone = trials::alone(&self.pool, rng);
        self.planned = count(alone.len() + self.pool.foreign().len());
        self.try_pairs(&alone).await?;
        self.meet_foreign().await?;
        let known = self.evidence.known();
        let (mixtures, companions) = trials::mixtures(&self.pool, &known, rng);
        let mut sized = trials::sized(&known, rng);
        let others = sized.split_off(trials::FIRST_SIZES);
        let fresh = trials::fresh(&self.pool, &known, rng);
        self.planned = self.evidence.trials
            + count(mixtures.len() + companions.len() + sized.len())
            + count(others.len() + fresh.len() + 1);
        self.try_affordable(sized).await?;
        self.try_all(Whom::First, mixtures).await?;
        self.try_pairs(&companions).await?;
        self.refused_in_company().await?;
        self.no_rows().await?;
        self.try_affordable(others).await?;
        self.try_all(Whom::First, vec![self.again()]).await?;
        self.try_all(Whom::Fresh, fresh).await?;
        self.try_large(&known, rng).await
    }

    fn again(&self) -> Trial {
        Trial::new(Kind::Again, self.pool.sample())
    }

    async fn try_all(&mut self, whom: Whom, trials: Vec<Trial>) -> Result<(), End> {
        for trial in trials {
            self.check_time()?;
            self.attempt(whom, &trial).await?;
        }
        Ok(())
    }

    /// Two at once.
    async fn try_pairs(&mut self, trials: &[Trial]) -> Result<(), End> {
        for pair in trials.chunks(2) {
            self.check_time()?;
            self.attempt_pair(pair).await?;
        }
        Ok(())
    }

    /// Those for which there is time, two at once.
    async fn try_affordable(&mut self, trials: Vec<Trial>) -> Result<(), End> {
        for pair in trials.chunks(2) {
            let rows = pair.iter().map(|trial| trial.rows.len()).max().unwrap_or(0);
            if self.pace.allows(rows) {
                self.attempt_pair(pair).await?;
            } else {
                self.skipped = true;
            }
        }
        Ok(())
    }

    async fn try_large(&mut self, known: &[usize], rng: &mut Rng) -> Result<(), End> {
        for size in LARGE {
            if self.pace.seconds(size) > LARGE_LIMIT || !self.pace.allows(size) {
                return Ok(());
            }
            let trial = Trial::new(Kind::Sized, trials::drawn(known, size, rng));
            self.attempt(Whom::First, &trial).await?;
        }
        Ok(())
    }

    async fn attempt(&mut self, whom: Whom, trial: &Trial) -> Result<(), End> {
        let rows = self.rows(&trial.rows)?;
        let heard = self.ask(whom, rows).await?;
        self.judge(trial, heard)
    }

    async fn attempt_pair(&mut self, pair: &[Trial]) -> Result<(), End> {
        let batches = pair.iter().map(|trial| self.rows(&trial.rows));
        let batches = batches.collect::<Result<_, _>>()?;
        for (trial, heard) in pair.iter().zip(self.ask_pair(batches).await?) {
            self.judge(trial, heard)?;
        }
        Ok(())
    }

    fn judge(&mut self, trial: &Trial, heard: Heard) -> Result<(), End> {
        let given = match heard {
            Heard::Rows(given) => given,
            Heard::Refused(what) | Heard::Lost(what) => {
                self.evidence.trials += 1;
                return Err(End::NotRowWise(format!("{}: {what}", trial.told())));
            }
        };
        let judged = self.evidence.judge(&self.pool, trial, &given);
        (self.tell)(self.evidence.trials, self.planned.max(self.evidence.trials));
        judged.map_err(End::NotRowWise)
    }

    fn rows(&self, rows: &[usize]) -> Result<RecordBatch, Error> {
        let taken = self.pool.take(rows);
        taken.map_err(|error| unfit(self.function, &error))
    }

    async fn ask(&mut self, whom: Whom, rows: RecordBatch) -> Result<Heard, Error> {
        let count = rows.num_rows();
        let began = Instant::now();
        let ask = self.in_time(rows);
        let heard = self.workers.ask(whom, ask).await?;
        self.pace.took(count, began.elapsed());
        Ok(heard)
    }

    /// Asks for one batch, or two workers at once for two: the time of the larger call then says how
    /// quick the function is.
    async fn ask_pair(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<Heard>, Error> {
        let two = match <[RecordBatch; 2]>::try_from(batches) {
            Ok(two) => two,
            Err(fewer) => {
                let mut heard = vec![];
                for rows in fewer {
                    heard.push(self.ask(Whom::First, rows).await?);
                }
                return Ok(heard);
            }
        };
        let most = two.iter().map(RecordBatch::num_rows).max().unwrap_or(0);
        let began = Instant::now();
        let [first, second] = two.map(|rows| self.in_time(rows));
        let heard = self.workers.ask_two(first, second).await?;
        self.pace.took(most, began.elapsed());
        Ok(heard.into())
    }

    fn in_time(&self, rows: RecordBatch) -> Ask {
        let deadline = self
            .pace
            .deadline(rows.num_rows(), self.pool.sample().len());
        Ask { rows, deadline }
    }

    /// Asks for each foreign row alone. One that is refused says nothing about the function yet.
    async fn meet_foreign(&mut self) -> Result<(), End> {
        let mut learned = vec![];
        let mut lost = 0;
        let foreign: Vec<usize> = self.pool.foreign().collect();
        for pair in foreign.chunks(2) {
            let is_asked = |row: &usize| lost < MOST_LOST || !self.pool.is_wild(*row);
            let pair: Vec<usize> = pair.iter().copied().filter(is_asked).collect();
            if self.pace.is_over() {
                continue;
            }
            let batches = pair.iter().map(|row| self.rows(&[*row]));
            let batches = batches.collect::<Result<_, _>>()?;
            for (row, heard) in pair.into_iter().zip(self.ask_pair(batches).await?) {
                match heard {
                    Heard::Rows(given) if given.num_rows() == 1 => learned.push((row, given)),
                    Heard::Rows(given) => {
                        let what = format!("with one row alone: it gave {} rows", given.num_rows());
                        return Err(End::NotRowWise(what));
                    }
                    Heard::Refused(_) => self.refused.push(row),
                    Heard::Lost(_) => lost += 1,
                }
                self.evidence.trials += 1;
                (self.tell)(self.evidence.trials, self.planned);
            }
        }
        self.evidence
            .learn(&learned)
            .map_err(|error| unfit(self.function, &error))?;
        let known = self.evidence.known();
        let tame: Vec<usize> = known
            .into_iter()
            .filter(|row| !self.pool.is_wild(*row))
            .collect();
        if self.pool.differ(&tame) {
            return Ok(());
        }
        Err(End::NotRowWise(
            "the sample has only one row, or equal ones, and it refuses others: nothing can be mixed"
                .into(),
        ))
    }

    /// A row that is refused alone is refused in any company, if rows do not depend on each other.
    async fn refused_in_company(&mut self) -> Result<(), End> {
        let refused: Vec<usize> = self.refused.iter().take(MOST_REFUSED).copied().collect();
        for row in refused {
            let mut rows = self.pool.sample();
            rows.push(row);
            let rows = self.rows(&rows)?;
            let heard = self.ask(Whom::First, rows).await?;
            self.evidence.trials += 1;
            if let Heard::Rows(_) = heard {
                return Err(End::NotRowWise(
                    "among other rows it takes a row that it refuses alone".into(),
                ));
            }
        }
        Ok(())
    }

    /// Many models refuse to be asked for nothing; but what is given for nothing must be nothing.
    async fn no_rows(&mut self) -> Result<(), End> {
        if is_called_for_each_row(self.function) {
            return Ok(());
        }
        let rows = self.rows(&[])?;
        let heard = self.ask(Whom::First, rows).await?;
        self.evidence.trials += 1;
        match heard {
            Heard::Rows(given) if given.num_rows() > 0 => Err(End::NotRowWise(format!(
                "it gave {} rows for none",
                given.num_rows()
            ))),
            Heard::Rows(_) | Heard::Refused(_) => Ok(()),
            Heard::Lost(what) => Err(End::NotRowWise(format!("with no rows: {what}"))),
        }
    }

    fn check_time(&self) -> Result<(), End> {
        if !self.pace.is_hopeless() {
            return Ok(());
        }
        Err(End::NotRowWise(format!(
            "it is too slow to be tested: {} of {} trials in {} s",
            self.evidence.trials,
            self.planned,
            self.pace.elapsed().as_secs()
        )))
    }

    /// The certificate of a function that passed; looks for a tile where bits were not equal.
    async fn certified(mut self, seed: u64, rng: &mut Rng) -> Result<Certified, Error> {
        let mut certificate = self.evidence.certificate(seed);
        let mut output = self.evidence.outputs(self.pool.sample().len());
        let reducer = is_reducer(self.function);
        if !self.evidence.is_bitwise() && !is_called_for_each_row(self.function) {
            for tile in TILES {
                let (tiled, trials) = self.tiled(tile, rng).await?;
                certificate.trials += trials;
                if let Some(tiled) = tiled {
                    certificate.tile = Some(tile);
                    certificate.equality = Equality::Bitwise;
                    certificate.tolerance = None;
                    output = tiled;
                    break;
                }
            }
        }
        certificate.planned = self
            .skipped
            .then(|| self.planned.max(certificate.trials + 1));
        if reducer {
            certificate.row_wise = false;
            certificate.reducer = true;
            certificate.reason = Some(REDUCER.into());
        }
        Ok(Certified {
            certificate,
            output: (!is_called_for_each_row(self.function)).then_some(output),
        })
    }

    /// The sample's output, if outputs have the same bits in all calls of whole tiles.
    async fn tiled(
        &mut self,
        tile: u32,
        rng: &mut Rng,
    ) -> Result<(Option<RecordBatch>, u32), Error> {
        let known = self.evidence.known();
        let Some(output) = self.ask_in_tiles(Whom::First, &known, tile).await? else {
            return Ok((None, 1));
        };
        let shape = self.function.signature.output.shape;
        let mut evidence = Evidence::new(output, shape, &known, self.pool.num_rows());
        let trials = trials::tiled(&self.pool, &known, tile, rng);
        for pair in trials.chunks(2) {
            let rows = pair.iter().map(|trial| trial.rows.len()).max().unwrap_or(0);
            if !self.pace.allows(rows) {
                self.skipped = true;
                continue;
            }
            let batches = pair.iter().map(|trial| self.filled(&trial.rows, tile));
            let batches = batches.collect::<Result<_, _>>()?;
            for (trial, heard) in pair.iter().zip(self.ask_pair(batches).await?) {
                let given = first_rows(heard, trial.rows.len());
                if !self.is_same(&mut evidence, trial, given) {
                    return Ok((None, evidence.trials + 1));
                }
            }
        }
        // What is remembered looks like the bits of a tile, until somebody else is asked.
        let elsewhere = Trial::new(Kind::Tiled { tile }, known.iter().rev().copied().collect());
        let given = self
            .ask_in_tiles(Whom::Fresh, &elsewhere.rows, tile)
            .await?;
        if !self.is_same(&mut evidence, &elsewhere, given) {
            return Ok((None, evidence.trials + 1));
        }
        let output = evidence.outputs(self.pool.sample().len());
        // Without a trial there is no evidence.
        Ok(((evidence.trials > 0).then_some(output), evidence.trials + 1))
    }

    fn is_same(&self, evidence: &mut Evidence, trial: &Trial, given: Option<RecordBatch>) -> bool {
        let judged = given.map(|given| evidence.judge(&self.pool, trial, &given));
        let done = self.evidence.trials + evidence.trials;
        (self.tell)(done, self.planned.max(done));
        matches!(judged, Some(Ok(()))) && evidence.is_bitwise()
    }

    async fn ask_in_tiles(
        &mut self,
        whom: Whom,
        rows: &[usize],
        tile: u32,
    ) -> Result<Option<RecordBatch>, Error> {
        let filled = self.filled(rows, tile)?;
        Ok(first_rows(self.ask(whom, filled).await?, rows.len()))
    }

    fn filled(&self, rows: &[usize], tile: u32) -> Result<RecordBatch, Error> {
        padded(self.rows(rows)?, Some(tile)).map_err(|error| unfit(self.function, &error))
    }
}

fn first_rows(heard: Heard, count: usize) -> Option<RecordBatch> {
    match heard {
        Heard::Rows(given) if given.num_rows() >= count => Some(given.slice(0, count)),
        Heard::Rows(_) | Heard::Refused(_) | Heard::Lost(_) => None,
    }
}

fn count(trials: usize) -> u32 {
    u32::try_from(trials).unwrap_or(u32::MAX)
}
