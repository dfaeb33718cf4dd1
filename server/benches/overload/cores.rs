//! Which cores are whose.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One core for the generator, the others for the service; all for both where there is only one.
#[derive(Debug)]
pub(crate) struct Cores {
    generator: CpuSet,
    service: CpuSet,
}

impl Cores {
    pub(crate) fn shared_out() -> Self {
        let all = sched_getaffinity(None).unwrap();
        if all.count() < 2 {
            return Self {
                generator: all,
                service: all,
            };
        }
        let first = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap();
        let (mut generator, mut service) = (CpuSet::new(), all);
        generator.set(first);
        service.unset(first);
        Self { generator, service }
    }

    /// Threads that this one begins from now on are the generator's.
    pub(crate) fn for_generator(&self) {
        sched_setaffinity(None, &self.generator).unwrap();
    }

    /// Processes that this thread begins from now on are the service's.
    pub(crate) fn for_service(&self) {
        sched_setaffinity(None, &self.service).unwrap();
    }
}
