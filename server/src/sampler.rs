//! Whether gathering changes answers: a few gathered calls are asked again alone.
//!
//! The certificate says what was tested at save; this is the test that goes on in production. The
//! answers have been sent by then. On a difference gathering ends, until the service is started or
//! the envelope is changed, and an alarm says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow_array::RecordBatch;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// How many rows and bytes calls may be gathered to, and whether they still are.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    sampler: Sampler,
    is_off: AtomicBool,
}

/// Chooses one of so many gathered calls, and counts what came of it.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// 0: none are asked again.
    pub(crate) every: u64,
    pub(crate) seen: AtomicU64,
    pub(crate) counts: SamplerCounts,
}

/// What came of the calls that were asked again.
#[derive(Debug, Clone, Default)]
pub(crate) struct SamplerCounts {
    pub(crate) equal: Counter,
    pub(crate) different: Counter,
    /// Alone it failed, or there was no time for it.
    pub(crate) failed: Counter,
    /// 1 while calls are gathered.
    pub(crate) is_gathering: Gauge,
}

impl Gathering {
    pub(crate) fn new(rows: usize, bytes: usize, every: u64, counts: SamplerCounts) -> Self {
        counts.is_gathering.set(1);
        Self {
            rows,
            bytes,
            sampler: Sampler {
                every,
                seen: AtomicU64::new(0),
                counts,
            },
            is_off: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.is_off.load(Ordering::Relaxed)
    }

    /// Which of so many calls that went together is to be asked again.
    pub(crate) fn choose(&self, calls: usize) -> Option<usize> {
        let Sampler { every, seen, .. } = &self.sampler;
        let calls = calls as u64;
        let before = seen.fetch_add(calls, Ordering::Relaxed);
        // The next one that is due, counted from 1.
        let due = (before.checked_div(*every)? + 1) * every;
        let position = due - before - 1;
        (position < calls).then(|| usize::try_from(position).unwrap_or(0))
    }

    /// Compares what a call was answered with what it gave alone, bit for bit: only functions of
    /// which that was tested are gathered.
    pub(crate) fn compare(
        &self,
        function: &str,
        answered: &RecordBatch,
        alone: Result<RecordBatch, runtime::Error>,
    ) {
        let counts = &self.sampler.counts;
        let Ok(alone) = alone else {
            counts.failed.inc();
            return;
        };
        // What differs would tell values of the caller: it is not logged.
        if runtime::difference(&alone, answered, 0.0).is_none() {
            counts.equal.inc();
            return;
        }
        counts.different.inc();
        counts.is_gathering.set(0);
        self.is_off.store(true, Ordering::Relaxed);
        let rows = answered.num_rows();
        tracing::error!(
            function,
            rows,
            "a call gathered with others was answered differently than alone: calls of `{function}` \
             are not gathered any more; save the envelope again, with a sample that shows it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(every: u64, groups: &[usize]) -> Vec<Option<usize>> {
        let gathering = Gathering::new(1, 1, every, SamplerCounts::default());
        groups
            .iter()
            .map(|calls| gathering.choose(*calls))
            .collect()
    }

    #[test]
    fn one_of_so_many_calls_is_chosen_wherever_it_is() {
        assert_eq!(chosen(4, &[3, 3, 3, 3]), [None, Some(0), Some(1), Some(2)]);
        assert_eq!(chosen(1, &[2, 2]), [Some(0), Some(0)]);
        assert_eq!(chosen(1000, &[999, 1, 5]), [None, Some(0), None]);
    }

    #[test]
    fn none_is_chosen_when_nobody_wants_it() {
        assert_eq!(chosen(0, &[2, 5000]), [None, None]);
    }
}
