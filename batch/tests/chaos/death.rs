//! How a process ends itself at a point of a job: it hears of the points, as events.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A point, how often it is reached alive, and the file in which the process says that it died there.
pub(crate) type Doom<'d> = (&'d str, usize, &'d Path);

/// Tells a process that is about to start where it dies.
pub(crate) fn doom(command: &mut Command, (point, times, fired): Doom<'_>) {
    command
        .env("CHAOS_POINT", point)
        .env("CHAOS_TIMES", times.to_string())
        .env("CHAOS_FIRED", fired);
}

/// From now on this process dies where it was told to.
pub(crate) fn await_death() {
    if let Some(death) = Death::told() {
        tracing::subscriber::set_global_default(death).unwrap();
    }
}

/// Hears of the points that the job is at, and ends the process at one of them.
struct Death {
    point: String,
    times: usize,
    seen: AtomicUsize,
    fired: PathBuf,
}

impl Death {
    fn told() -> Option<Self> {
        Some(Self {
            point: std::env::var("CHAOS_POINT").ok()?,
            times: std::env::var("CHAOS_TIMES").ok()?.parse().ok()?,
            seen: AtomicUsize::new(0),
            fired: std::env::var_os("CHAOS_FIRED")?.into(),
        })
    }
}

impl Subscriber for Death {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "batch::point"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut point = Point(String::new());
        event.record(&mut point);
        if point.0 == self.point && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.times {
            std::fs::write(&self.fired, &self.point).unwrap();
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Point(String);

impl Visit for Point {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "point" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
