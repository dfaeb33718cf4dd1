//! Dynamic batching: gathers the calls that queued while the workers were busy into one.
//!
//! A call never waits for others: when a worker is free it goes at once, alone. When all are busy
//! it queues, and the next free worker takes everything that queued, up to a number of rows, of bytes,
//! and what it can do in the time of the first. So batches grow with the load and cost nothing without it.
//!
//! A call that cannot be answered in time is not queued (see `backlog`), and one whose time has passed
//! is dropped before it reaches a worker.
//!
//! Calls are gathered only where the envelope holds the evidence that the output for a row does not
//! depend on the rows around it, to the bit. When a gathered call fails, its members are asked again in smaller groups
//! until the ones whose fault it is fail alone; when it does not end, each of them alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use envelope_format::{Equality, Function};
use prometheus_client::metrics::histogram::Histogram;
use runtime::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::backlog::{Backlog, Place};
use crate::calls::Calls;
use crate::error::Refusal;
use crate::pace::{Cost, Pace};
use crate::sampler::Gathering;

/// The queue of one function.
#[derive(Debug)]
pub(crate) struct Batcher {
    // Not bounded here: every call in it has a permit of the admission and a place in the backlog.
    queue: mpsc::UnboundedSender<Waiting>,
    line: Line,
}

/// What came of a call, and how.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) output: Result<RecordBatch, Refusal>,
    /// `None` when no worker has answered it.
    pub(crate) course: Option<Course>,
}

/// How a call went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// When it began to wait for a worker.
    pub(crate) queued: Instant,
    /// When it got one.
    pub(crate) begun: Instant,
    /// When the worker had answered it.
    pub(crate) ended: Instant,
    /// Rows of all calls that the worker was asked for together with it.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "spans alone tell it")
    )]
    pub(crate) rows: usize,
    /// How many calls these were, itself included.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "spans alone tell it")
    )]
    pub(crate) calls: usize,
}

/// A call that waits for its output.
#[derive(Debug)]
struct Waiting {
    rows: RecordBatch,
    queued: Instant,
    deadline: Instant,
    answer: oneshot::Sender<(Result<RecordBatch, Arc<Error>>, Course)>,
    #[expect(dead_code, reason = "held for its drop")]
    place: Place,
}

impl Waiting {
    /// Whether its caller has gone, or given up, or is about to.
    fn is_moot(&self) -> bool {
        self.answer.is_closed() || self.deadline <= Instant::now()
    }

    /// Its caller may have gone.
    fn give(self, output: Result<RecordBatch, Arc<Error>>, together: Together) {
        let course = Course {
            queued: self.queued,
            begun: together.begun,
            ended: Instant::now(),
            rows: together.rows,
            calls: together.calls,
        };
        drop(self.answer.send((output, course)));
    }
}

/// What calls that were answered together have in common.
#[derive(Debug, Clone, Copy)]
struct Together {
    begun: Instant,
    rows: usize,
    calls: usize,
}

impl Together {
    fn of(group: &[Waiting], begun: Instant) -> Self {
        Self {
            begun,
            rows: group.iter().map(|call| call.rows.num_rows()).sum(),
            calls: group.len(),
        }
    }
}

/// Whom the batcher asks.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) function: Arc<str>,
    /// Free workers, shared by all functions of the envelope.
    pub(crate) workers: Arc<Semaphore>,
    /// What these workers have to do.
    pub(crate) backlog: Arc<Backlog>,
    /// How long they take.
    pub(crate) pace: Arc<Mutex<Pace>>,
    /// How long a worker has for a call at least, however short its callers' patience is.
    pub(crate) grace: Duration,
    /// `None` when calls must not be gathered.
    pub(crate) gather: Option<Arc<Gathering>>,
    /// Counts the rows of what is sent to a worker.
    pub(crate) rows: Histogram,
}

impl Line {
    fn gathering(&self) -> Option<&Arc<Gathering>> {
        self.gather.as_ref().filter(|gathering| gathering.is_on())
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cost(&self) -> Cost {
        self.pace().cost()
    }

    /// What a call of so many rows adds to the work of the workers.
    fn work(&self, cost: &Cost, rows: usize) -> Duration {
        match self.gathering() {
            Some(gathering) => cost.gathered(rows, gathering.rows),
            None => cost.alone(rows),
        }
    }

    /// Asks a worker, and learns how long it takes.
    ///
    /// A worker that has not answered in time is replaced, and the first call of the next one takes
    /// longer: if that could be too long for impatient callers, each worker would be replaced before
    /// it had answered once, and nobody would be served ever again.
    async fn ask(&self, rows: RecordBatch, time: Duration) -> Result<RecordBatch, Error> {
        let (begun, count) = (Instant::now(), rows.num_rows());
        let time = time.max(self.grace);
        let output = self.calls.call(&self.function, rows, time).await;
        self.pace().learn(count, begun.elapsed());
        output
    }
}

/// Whether the envelope holds the evidence that calls of `function` may be gathered: nobody can see
/// in an answer who else asked. With a tile that holds as well, for the runtime fills tiles up.
pub(crate) fn may_gather(function: &Function) -> bool {
    let certificate = &function.certificate;
    let shapes = [
        function.signature.input.shape,
        function.signature.output.shape,
    ];
    certificate.row_wise
        && certificate.equality == Equality::Bitwise
        && !shapes.iter().any(|shape| shape.is_one_row())
}

impl Batcher {
    pub(crate) fn start(line: Line) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(dispatch(line.clone(), waiting));
        Self { queue, line }
    }

    /// Whether a call that comes now can be answered within `patience`. To be asked before anything
    /// is spent on it.
    pub(crate) fn has_time(&self, patience: Duration) -> Result<(), Refusal> {
        self.line
            .backlog
            .has_time(self.line.cost().alone(1), patience)
    }

    /// Asks for `rows` at once, whoever waits: how the function is tried before it is served.
    pub(crate) async fn try_out(
        &self,
        rows: RecordBatch,
        time: Duration,
    ) -> Result<RecordBatch, Error> {
        self.line.ask(rows, time).await
    }

    /// The output for `rows`, by `deadline`.
    ///
    /// Dropping the future takes the call out of the queue. Once a worker has it, it is finished
    /// and its output thrown away: that costs less than another worker.
    pub(crate) async fn call(&self, rows: RecordBatch, deadline: Instant) -> Called {
        let mut course = None;
        let output = self.wait_for(rows, deadline, &mut course).await;
        Called { output, course }
    }

    async fn wait_for(
        &self,
        rows: RecordBatch,
        deadline: Instant,
        course: &mut Option<Course>,
    ) -> Result<RecordBatch, Refusal> {
        let queued = Instant::now();
        let after = deadline - queued;
        let (cost, count) = (self.line.cost(), rows.num_rows());
        let backlog = &self.line.backlog;
        backlog.has_time(cost.alone(count), after)?;
        let place = backlog.enter(count, self.line.work(&cost, count))?;
        let (answer, answered) = oneshot::channel();
        self.queue
            .send(Waiting {
                rows,
                queued,
                deadline,
                answer,
                place,
            })
            .map_err(|_| Refusal::Internal)?;
        let answered = timeout_at(deadline, answered).await;
        let answered = answered.map_err(|_| Refusal::Deadline { after })?;
        let (output, went) = answered.map_err(|_| Refusal::Internal)?;
        *course = Some(went);
        output.map_err(|error| {
            if matches!(*error, Error::Deadline { .. }) {
                Refusal::Deadline { after }
            } else {
                Refusal::Call(error)
            }
        })
    }
}

/// Takes calls from the queue whenever a worker is free.
async fn dispatch(line: Line, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let mut next = None;
    loop {
        let Some(first) = (match next.take() {
            Some(left_over) => Some(left_over),
            None => waiting.recv().await,
        }) else {
            return;
        };
        let Ok(worker) = line.workers.clone().acquire_owned().await else {
            return;
        };
        if first.is_moot() {
            continue;
        }
        let most = Most::of(&line, first.deadline);
        let (group, left_over) = gather(first, &mut waiting, most);
        next = left_over;
        let line = line.clone();
        tokio::spawn(async move {
            answer(&line, group).await;
            drop(worker);
        });
    }
}

/// How much may be gathered.
#[derive(Debug, Clone, Copy)]
struct Most {
    rows: usize,
    bytes: usize,
}

impl Most {
    /// What can be done in half the time that the first call has: when it fails, there is time to ask again.
    fn of(line: &Line, deadline: Instant) -> Self {
        let Some(gathering) = line.gathering() else {
            return Self { rows: 0, bytes: 0 };
        };
        let time = half_until(deadline);
        Self {
            rows: gathering.rows.min(line.cost().rows_within(time)),
            bytes: gathering.bytes,
        }
    }
}

fn half_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()) / 2
}

/// `first` and what has queued behind it, up to so much; and the call that was too much.
fn gather(
    first: Waiting,
    waiting: &mut mpsc::UnboundedReceiver<Waiting>,
    most: Most,
) -> (Vec<Waiting>, Option<Waiting>) {
    let mut rows = first.rows.num_rows();
    let mut bytes = first.rows.get_array_memory_size();
    let mut group = vec![first];
    while rows < most.rows
        && bytes < most.bytes
        && let Ok(next) = waiting.try_recv()
    {
        if next.is_moot() {
            continue;
        }
        rows += next.rows.num_rows();
        bytes = bytes.saturating_add(next.rows.get_array_memory_size());
        if rows > most.rows || bytes > most.bytes {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

/// Gives each call of the group its output, or the reason why there is none.
async fn answer(line: &Line, group: Vec<Waiting>) {
    let begun = Instant::now();
    let mut groups = vec![group];
    while let Some(mut group) = groups.pop() {
        group.retain(|call| !call.is_moot());
        let Some(time) = time_of(&group) else {
            continue;
        };
        let together = Together::of(&group, begun);
        match ask(line, &group, time).await {
            Ok(output) => {
                let sample = sample(line, &group, &output);
                scatter(group, &output, together);
                if let Some(sample) = sample {
                    ask_again(line, sample, time).await;
                }
            }
            Err(Error::Deadline { .. }) if group.len() > 1 => ask_apart(line, group),
            Err(error) if group.len() > 1 && may_be_the_fault_of_one(&error) => {
                groups.extend(split(group, &error))
            }
            Err(error) => {
                let error = Arc::new(error);
                for call in group {
                    call.give(Err(error.clone()), together);
                }
            }
        }
    }
}

/// How long a worker has for the group. Several calls have what they were gathered for (see
/// [`Most`]): if one of them never ends, there is time to ask the others again.
fn time_of(group: &[Waiting]) -> Option<Duration> {
    match group {
        [] => None,
        [only] => Some(only.deadline - Instant::now()),
        [first, ..] => Some(half_until(first.deadline)),
    }
}

/// Each call alone, on whichever worker is free: one of them may not end, and must not keep the
/// others from the worker it has.
fn ask_apart(line: &Line, group: Vec<Waiting>) {
    for call in group {
        let line = line.clone();
        tokio::spawn(async move {
            if let Ok(_worker) = line.workers.clone().acquire_owned().await {
                answer(&line, vec![call]).await;
            }
        });
    }
}

/// One call of the function on the rows of the whole group.
async fn ask(line: &Line, group: &[Waiting], time: Duration) -> Result<RecordBatch, Error> {
    let rows = match group {
        [only] => only.rows.clone(),
        _ => concat_batches(&group[0].rows.schema(), group.iter().map(|call| &call.rows)).map_err(
            |error| Error::RowsDoNotFit {
                function: line.function.to_string(),
                reason: error.to_string(),
            },
        )?,
    };
    let expected = rows.num_rows();
    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    line.rows.observe(expected as f64);
    let output = line.ask(rows, time).await?;
    if group.len() > 1 && output.num_rows() != expected {
        let reason = format!(
            "it has {} rows for {expected} rows of input",
            output.num_rows()
        );
        return Err(Error::Output {
            function: line.function.to_string(),
            reason,
        });
    }
    Ok(output)
}

/// A call that is asked again: its rows, and what it was answered.
struct Sample {
    rows: RecordBatch,
    answered: RecordBatch,
}

/// One of the group, when it is due.
fn sample(line: &Line, group: &[Waiting], output: &RecordBatch) -> Option<Sample> {
    let gathering = line.gathering().filter(|_| group.len() > 1)?;
    let chosen = gathering.choose(group.len())?;
    let before = group[..chosen]
        .iter()
        .map(|call| call.rows.num_rows())
        .sum();
    let rows = group[chosen].rows.clone();
    Some(Sample {
        answered: output.slice(before, rows.num_rows()),
        rows,
    })
}

/// On the worker that is still ours: nobody waits for it but the calls behind.
async fn ask_again(line: &Line, Sample { rows, answered }: Sample, time: Duration) {
    let Some(gathering) = &line.gather else {
        return;
    };
    let time = time.max(line.grace);
    let alone = line.calls.call(&line.function, rows, time).await;
    gathering.compare(&line.function, &answered, alone);
}

/// Each call's own rows, without a copy.
fn scatter(group: Vec<Waiting>, output: &RecordBatch, together: Together) {
    let mut begin = 0;
    for call in group {
        let length = match together.calls {
            // All of it, however many rows: a function may give one row for the whole call.
            1 => output.num_rows(),
            _ => call.rows.num_rows(),
        };
        call.give(Ok(output.slice(begin, length)), together);
        begin += length;
    }
}

fn may_be_the_fault_of_one(error: &Error) -> bool {
    matches!(
        error,
        Error::Function { .. }
            | Error::Output { .. }
            | Error::Crashed { .. }
            | Error::RowsDoNotFit { .. }
    )
}

/// Smaller groups. Halves find one bad call among many in few calls; but after a crash every call
/// goes alone, because each further crash costs a worker.
fn split(mut group: Vec<Waiting>, error: &Error) -> Vec<Vec<Waiting>> {
    if matches!(error, Error::Crashed { .. }) {
        return group.into_iter().map(|call| vec![call]).collect();
    }
    let second = group.split_off(group.len() / 2);
    vec![second, group]
}

#[cfg(test)]
mod tests;
