//! What an operator types: the flags and variables of a service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use runtime::{Grant, Sandbox, SandboxLevel};

use crate::{Coercion, Settings};

/// Flags of a service, the same for a built executable and for `envelope serve`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Port to listen on; 0 takes any free one
    #[arg(short, long, env = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,

    /// Worker processes: one number, or the fewest and the most [default: one for each core]
    #[arg(long, env = "ENVELOPE_WORKERS", value_name = "MIN..MAX", value_parser = parse_workers)]
    pub workers: Option<RangeInclusive<usize>>,

    /// Longest time that a call may take, in seconds
    #[arg(long, env = "ENVELOPE_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub timeout: Duration,

    /// Longest body of a call
    #[arg(long, env = "ENVELOPE_MAX_BODY", value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub max_body: u64,

    /// Most rows that are gathered from several calls; 1 gathers none
    #[arg(long, env = "ENVELOPE_MAX_BATCH", value_name = "ROWS", default_value_t = Settings::default().max_batch_rows)]
    pub max_batch: usize,

    /// One of so many gathered calls is asked again alone, and compared; 0 asks none
    #[arg(long, env = "ENVELOPE_SAMPLE_EVERY", value_name = "CALLS", default_value_t = Settings::default().sample_every)]
    pub sample_every: u64,

    /// Replace each worker after about so many calls [default: never]
    #[arg(long, env = "ENVELOPE_RECYCLE_CALLS", value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..))]
    pub recycle_calls: Option<u64>,

    /// Replace a worker that has got so much memory since its first call [default: 1GiB]
    #[arg(long, env = "ENVELOPE_RECYCLE_GROWTH", value_name = "BYTES", value_parser = parse_memory)]
    pub recycle_growth: Option<u64>,

    /// Ask every so often whether there is another envelope to serve [default when given: every 2 seconds]
    #[arg(long, env = "ENVELOPE_WATCH", value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "2", value_parser = parse_seconds)]
    pub watch: Option<Duration>,

    /// Change values in calls of `/invocations` as that server does, also where it destroys them [default: refuse]
    #[arg(long, env = "ENVELOPE_COERCE", value_name = "SERVER")]
    pub coerce: Option<Coercion>,

    /// What workers may do.
    #[command(flatten)]
    pub sandbox: SandboxOptions,
}

/// Flags about what workers may do, the same for all that starts workers.
#[derive(Debug, Clone, Args)]
pub struct SandboxOptions {
    /// How much workers are confined: none, basic, default or strong
    #[arg(
        long = "sandbox",
        env = "ENVELOPE_SANDBOX",
        value_name = "LEVEL",
        default_value_t
    )]
    pub level: SandboxLevel,

    /// Start with less than the level says when this machine cannot give it
    #[arg(
        long = "sandbox-allow-degraded",
        env = "ENVELOPE_SANDBOX_ALLOW_DEGRADED",
        value_parser = FalseyValueParser::new()
    )]
    pub allow_degraded: bool,

    /// What workers may do besides: `network`, `read=PATH` or `write=PATH`; repeated, or with commas
    #[arg(
        long = "grant",
        env = "ENVELOPE_GRANT",
        value_name = "GRANT",
        value_delimiter = ','
    )]
    pub grants: Vec<Grant>,

    /// Private memory that a worker may have; above `none` [default: no limit]
    #[arg(long, env = "ENVELOPE_MEMORY", value_name = "BYTES", value_parser = parse_memory)]
    pub memory: Option<u64>,
}

impl SandboxOptions {
    /// The sandbox that these options mean.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox {
            level: self.level,
            allow_degraded: self.allow_degraded,
            memory: self.memory,
            ..Sandbox::default()
        };
        sandbox.granting(self.grants.iter().cloned())
    }
}

impl Options {
    /// The settings that these options mean.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let settings = Settings::default();
        Settings {
            listen: SocketAddr::new(self.host, self.port),
            workers: self
                .workers
                .clone()
                .unwrap_or_else(|| settings.workers.clone()),
            call_deadline: self.timeout,
            max_body_bytes: self.max_body,
            max_batch_rows: self.max_batch,
            sample_every: self.sample_every,
            coercion: self.coerce,
            watch: self.watch,
            recycle_calls: self.recycle_calls,
            recycle_growth_bytes: self.recycle_growth,
            sandbox: self.sandbox.sandbox(),
            ..settings
        }
    }
}

/// More would be an operator's slip: a worker is a process of some 100 MB.
const MOST_WORKERS: usize = 1024;

/// An offset in an Arrow column of text has 31 bits.
const LONGEST_BODY: u64 = 1 << 30;

fn parse_workers(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (fewest, most) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.strip_prefix('=').unwrap_or(text).parse::<usize>();
    match (number(fewest), number(most)) {
        (Ok(fewest), Ok(most)) if 1 <= fewest && fewest <= most && most <= MOST_WORKERS => {
            Ok(fewest..=most)
        }
        _ => Err(format!(
            "expected a number like `4` or a range like `1..4`, at most {MOST_WORKERS}"
        )),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds, above 0 and at most 86400".to_owned())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    sized(text)
        .filter(|bytes| (1..=LONGEST_BODY).contains(bytes))
        .ok_or_else(|| "expected bytes like `65536` or `64MiB`, at most `1GiB`".to_owned())
}

fn parse_memory(text: &str) -> Result<u64, String> {
    sized(text)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected bytes like `512MiB` or `4GiB`".to_owned())
}

fn sized(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_number_or_a_range() {
        assert_eq!(parse_workers("4"), Ok(4..=4));
        assert_eq!(parse_workers("1..4"), Ok(1..=4));
        for text in ["", "0", "0..2", "3..2", "..", "1..", "a", "-1", "1..=99999"] {
            assert!(parse_workers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units_and_a_limit() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        for text in [
            "",
            "0",
            "-1",
            "1TB",
            "MiB",
            "2GiB",
            "18446744073709551615GiB",
            "1.5MiB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_may_be_more_than_a_body() {
        assert_eq!(parse_memory("16GiB"), Ok(16 << 30));
        for text in ["", "0", "1TB", "18446744073709551615GiB"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_above_nothing_and_below_a_day() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "-1", "nan", "inf", "1e9", "30s"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
