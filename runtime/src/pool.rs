//! Lends workers to calls, takes them back, replaces broken ones.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::future::try_join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::process::{Call, Process};
use crate::runtime::{Answered, Usage, cores};
use crate::zygote::{Sharing, Zygote};
use crate::{Confinement, EnvelopeFile, Error};

/// A worker beyond the least number that had nothing to do for so long is ended.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);

/// A worker that cannot start is not tried again before this.
const START_PAUSE: Duration = Duration::from_secs(1);

/// So many workers in a row may end before their first answer until the next one has to wait.
const MOST_BARREN: u32 = 3;

/// The first of these waits, and the longest.
const BARREN_PAUSE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(10);

/// Lends the workers of one envelope.
#[derive(Debug)]
pub(crate) struct Pool {
    envelope: Arc<EnvelopeFile>,
    zygote: Zygote,
    least: usize,
    most: usize,
    limits: Limits,
    /// Workers that are kept ready beside those that are busy.
    spare: usize,
    cores: usize,
    state: Mutex<State>,
    /// A worker came back, a start ended, or the pool stopped.
    changed: Notify,
}

/// When a healthy worker is replaced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) calls: Option<u64>,
    /// Memory that it has got since its first call, in bytes.
    pub(crate) growth: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last is used next: the others' memory may go cold.
    idle: Vec<(Process, Instant)>,
    lent: usize,
    starting: usize,
    waiting: usize,
    replaced: u64,
    recycled: u64,
    barren: u32,
    /// Why the last start failed, while no worker is alive.
    broken: Option<(String, String)>,
    stopped: bool,
}

impl State {
    fn alive(&self) -> usize {
        self.idle.len() + self.lent
    }

    /// How long the next worker has to wait.
    fn pause(&self) -> Duration {
        match self.barren.checked_sub(MOST_BARREN) {
            None | Some(0) => Duration::ZERO,
            Some(more) => {
                let doubled = BARREN_PAUSE.start().saturating_mul(1 << (more - 1).min(16));
                doubled.min(*BARREN_PAUSE.end())
            }
        }
    }
}

impl Pool {
    /// Starts the first workers.
    pub(crate) async fn start(
        zygote: Zygote,
        envelope: Arc<EnvelopeFile>,
        workers: RangeInclusive<usize>,
        limits: Limits,
        spare: bool,
    ) -> Result<Arc<Self>, Error> {
        let (least, most) = workers.into_inner();
        // One at first: what cannot start is found out once.
        let mut idle = vec![(zygote.worker().await?, Instant::now())];
        let others = try_join_all((1..least).map(|_| zygote.worker())).await?;
        idle.extend(others.into_iter().map(|process| (process, Instant::now())));
        // Where each worker loads everything for itself, one that may never be used is too dear.
        let is_cheap = zygote.sharing().await != Some(Sharing::Nothing);
        let pool = Arc::new(Self {
            envelope,
            zygote,
            least,
            most,
            limits,
            spare: usize::from(spare && is_cheap),
            cores: cores(),
            state: Mutex::new(State {
                idle,
                ..State::default()
            }),
            changed: Notify::new(),
        });
        if least < most + pool.spare {
            tokio::spawn(end_idle(Arc::downgrade(&pool)));
        }
        Ok(pool)
    }

    pub(crate) fn envelope(&self) -> &EnvelopeFile {
        &self.envelope
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn confinement(&self) -> Option<&Confinement> {
        self.zygote.launch.confinement()
    }

    pub(crate) async fn sharing(&self) -> Option<Sharing> {
        self.zygote.sharing().await
    }

    pub(crate) fn idle_processes(&self) -> Vec<i32> {
        let state = self.state();
        state
            .idle
            .iter()
            .map(|(process, _)| process.pid())
            .collect()
    }

    pub(crate) fn usage(&self) -> Usage {
        let state = self.state();
        Usage {
            workers: state.alive().min(self.most),
            busy: state.lent,
            waiting: state.waiting,
            replaced: state.replaced,
            recycled: state.recycled,
            barren: state.barren,
        }
    }

    /// Ends the workers; those that are lent when they come back, or after `grace`.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        {
            let mut state = self.state();
            state.stopped = true;
            state.idle.clear();
        }
        self.changed.notify_waiters();
        let deadline = Instant::now() + grace;
        loop {
            let changed = self.changed.notified();
            if self.state().lent == 0 {
                return;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return self.zygote.end().await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker that is not one of the pool's.
    pub(crate) async fn start_process(&self) -> Result<Process, Error> {
        self.zygote.worker().await
    }

    /// Waits for an idle worker; starts another when there are none and more are allowed.
    pub(crate) async fn lend(self: &Arc<Self>) -> Result<LentWorker, Error> {
        let _waiting = Waiting::begin(self);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before looking: a return in between must wake us
            if let Some(lent) = self.try_lend()? {
                return Ok(lent);
            }
            changed.await;
        }
    }

    fn try_lend(self: &Arc<Self>) -> Result<Option<LentWorker>, Error> {
        let mut state = self.state();
        if state.stopped {
            return Err(Error::Stopped);
        }
        let lent = (state.lent < self.most).then(|| self.ready_worker(&mut state));
        let lent = lent.flatten();
        state.lent += usize::from(lent.is_some());
        // Who has got a worker does not wait for one any more.
        let calls = state.lent + state.waiting - usize::from(lent.is_some());
        self.top_up(&mut state, calls);
        let awake = state.lent < self.cores;
        if lent.is_none()
            && let Some((reason, stderr)) = state.broken.take()
        {
            return Err(Error::Start { reason, stderr });
        }
        Ok(lent.map(|process| LentWorker {
            pool: Arc::clone(self),
            process: Some(process),
            awake,
        }))
    }

    /// One that died while it had nothing to do must not cost a call.
    fn ready_worker(&self, state: &mut State) -> Option<Process> {
        while let Some((process, _)) = state.idle.pop() {
            if process.is_ready() {
                return Some(process);
            }
            self.mourn(state, process);
        }
        None
    }

    fn mourn(&self, state: &mut State, process: Process) {
        state.replaced += 1;
        state.barren = if process.calls() == 0 {
            state.barren.saturating_add(1)
        } else {
            0
        };
        if state.barren == MOST_BARREN {
            self.zygote.doubt();
        }
        drop(process);
    }

    /// Starts as many workers as are wanted for so many calls.
    fn top_up(self: &Arc<Self>, state: &mut State, calls: usize) {
        let wanted = (calls + self.spare).clamp(self.least, self.most + self.spare);
        // A call that is dropped may end outside of any runtime, when a program is coming down.
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return;
        };
        while !state.stopped && state.alive() + state.starting < wanted {
            state.starting += 1;
            let pause = state.pause();
            let pool = Arc::clone(self);
            handle.spawn(async move {
                sleep(pause).await;
                pool.start_another().await;
            });
        }
    }

    async fn start_another(self: Arc<Self>) {
        let started = self.zygote.worker().await;
        if started.is_err() {
            sleep(START_PAUSE).await;
        }
        let mut state = self.state();
        state.starting -= 1;
        match started {
            Ok(process) if !state.stopped => {
                state.broken = None;
                state.idle.insert(0, (process, Instant::now()));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!("{error}");
                state.broken = (state.alive() == 0).then(|| broken(error));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn give_back(self: &Arc<Self>, process: Process, is_healthy: bool) {
        let mut state = self.state();
        state.lent -= 1;
        if !is_healthy {
            self.mourn(&mut state, process);
        } else if self.has_had_enough(&process) {
            state.recycled += 1;
            state.barren = 0;
        } else {
            state.barren = 0;
            if !state.stopped {
                state.idle.push((process, Instant::now()));
            }
        }
        let calls = state.lent + state.waiting;
        self.top_up(&mut state, calls);
        drop(state);
        self.changed.notify_waiters();
    }

    fn has_had_enough(&self, process: &Process) -> bool {
        // From a tenth less to a tenth more, by a number that no other worker has.
        let share = u64::from(process.pid().unsigned_abs() % 21);
        let has_answered = |limit: u64| process.calls() >= limit - limit / 10 + limit * share / 100;
        self.limits.calls.is_some_and(has_answered) || process.grown() > self.limits.growth
    }
}

fn broken(error: Error) -> (String, String) {
    if let Error::Start { reason, stderr } = error {
        return (reason, stderr);
    }
    (error.to_string(), String::new())
}

/// Ends workers that have had nothing to do, down to the least number.
async fn end_idle(pool: Weak<Pool>) {
    loop {
        sleep(IDLE_DEADLINE / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state();
        let mut surplus = state.alive().saturating_sub(pool.least);
        let now = Instant::now();
        state.idle.retain(|(_, since)| {
            let end = surplus > 0 && now.duration_since(*since) > IDLE_DEADLINE;
            surplus -= usize::from(end);
            !end
        });
    }
}

/// A worker that is ours until the loan ends.
#[derive(Debug)]
#[must_use = "a loan that is dropped without `returned` costs the worker"]
pub(crate) struct LentWorker {
    pool: Arc<Pool>,
    /// `None` once the loan has ended.
    process: Option<Process>,
    /// Whether there was a core to spare when it began.
    awake: bool,
}

impl LentWorker {
    pub(crate) async fn call(
        &mut self,
        call: Call<'_>,
        rows: &RecordBatch,
    ) -> Result<Answered, Error> {
        let awake = self.awake;
        match &mut self.process {
            Some(process) => process.call(Call { awake, ..call }, rows).await,
            None => Err(Error::Stopped),
        }
    }

    pub(crate) async fn observed(&mut self) -> Result<serde_json::Value, Error> {
        match &mut self.process {
            Some(process) => process.observed().await,
            None => Err(Error::Stopped),
        }
    }

    /// The worker is healthy: another call may use it.
    pub(crate) fn returned(mut self) {
        if let Some(process) = self.process.take() {
            self.pool.give_back(process, true);
        }
    }
}

impl Drop for LentWorker {
    /// An unfinished loan may leave a damaged or busy worker: it is ended, and another is started.
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            self.pool.give_back(process, false);
        }
    }
}

/// Counts a call as waiting for as long as it lives.
struct Waiting<'p>(&'p Pool);

impl<'p> Waiting<'p> {
    fn begin(pool: &'p Pool) -> Self {
        let mut state = pool.state();
        state.waiting += 1;
        if state.waiting == 1 {
            // That was somebody else's, who has gone.
            state.broken = None;
        }
        drop(state);
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
