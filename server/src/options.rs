//! What an operator types: the flags and variables of a service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use runtime::{Grant, Sandbox, SandboxLevel};

use crate::{Coercion, Settings, TlsFiles};

/// Flags of a service, the same for a built executable and for `envelope serve`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Port to listen on; 0 takes any free one [default: what the platform says, or 8080]
    #[arg(short, long, env = "ENVELOPE_PORT")]
    pub port: Option<u16>,

    /// Address to listen on; in a container 0.0.0.0, or nobody outside of it is heard
    #[arg(long, env = "ENVELOPE_HOST", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,

    /// Answer requests for this host, too; repeated, or with commas [default: this machine's names; on other addresses: any]
    #[arg(
        long = "allow-host",
        env = "ENVELOPE_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = parse_host
    )]
    pub allow_hosts: Vec<String>,

    /// Answer health and metrics at a port of their own, by plain HTTP; metrics then nowhere else
    #[arg(long, env = "ENVELOPE_METRICS_LISTEN", value_name = "[HOST:]PORT", value_parser = parse_listen)]
    pub metrics_listen: Option<SocketAddr>,

    /// TLS, and which files it is made of.
    #[command(flatten)]
    pub tls: TlsOptions,

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

    /// What the platform says.
    #[command(flatten)]
    pub platform: Platform,

    /// What becomes of spans.
    #[cfg(feature = "otlp")]
    #[command(flatten)]
    pub otlp: crate::OtlpOptions,
}

/// Flags about TLS. With a certificate, a service speaks nothing else to those who call it.
#[derive(Debug, Clone, Args)]
pub struct TlsOptions {
    /// Speak TLS with the certificate in this PEM file, followed by those that have signed it; read again on SIGHUP
    #[arg(
        long,
        env = "ENVELOPE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the certificate, not encrypted, in a PEM file
    #[arg(
        long,
        env = "ENVELOPE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,

    /// Answer only clients with a certificate that one of those in this PEM file has signed
    #[arg(
        long,
        env = "ENVELOPE_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_client_ca: Option<PathBuf>,
}

/// Variables that platforms set in the containers that they start. Whatever the operator says comes
/// before them.
#[derive(Debug, Clone, Args)]
pub struct Platform {
    /// The port, on Cloud Run, Heroku and others
    #[arg(long, env = "PORT", value_name = "PORT", hide = true)]
    pub platform_port: Option<u16>,

    /// The port, on `SageMaker`
    #[arg(
        long,
        env = "SAGEMAKER_BIND_TO_PORT",
        value_name = "SAGEMAKER_BIND_TO_PORT",
        hide = true
    )]
    pub sagemaker_port: Option<u16>,

    /// The port, on Vertex AI
    #[arg(long, env = "AIP_HTTP_PORT", value_name = "AIP_HTTP_PORT", hide = true)]
    pub aip_port: Option<u16>,

    /// The path where Vertex AI asks whether calls may be sent
    #[arg(long, env = "AIP_HEALTH_ROUTE", value_name = "AIP_HEALTH_ROUTE", hide = true, value_parser = parse_path)]
    pub aip_health_route: Option<String>,

    /// The path where Vertex AI sends calls
    #[arg(long, env = "AIP_PREDICT_ROUTE", value_name = "AIP_PREDICT_ROUTE", hide = true, value_parser = parse_path)]
    pub aip_predict_route: Option<String>,
}

impl TlsOptions {
    /// The files, if there is to be TLS.
    #[must_use]
    pub fn files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.tls_client_ca.clone(),
        })
    }
}

impl Platform {
    /// The port that the platform will send to.
    fn port(&self) -> Option<u16> {
        self.platform_port.or(self.sagemaker_port).or(self.aip_port)
    }
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
        let port = self.port.or(self.platform.port());
        Settings {
            listen: SocketAddr::new(self.host, port.unwrap_or(settings.listen.port())),
            listen_for_monitors: self.metrics_listen,
            tls: self.tls.files(),
            allow_hosts: self.allow_hosts.clone(),
            health_path: self.platform.aip_health_route.clone(),
            predict_path: self.platform.aip_predict_route.clone(),
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
            #[cfg(feature = "otlp")]
            collector: self.otlp.collector(),
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

/// A name without a port: a name is the same one at all of them.
fn parse_host(text: &str) -> Result<String, String> {
    let is_name = |text: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !text.is_empty() && text.bytes().all(plain)
    };
    let name = Some(text.trim_end_matches('.')).filter(is_name);
    name.map(str::to_ascii_lowercase)
        .ok_or_else(|| "expected a name like `models.example.com`, without a port".to_owned())
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let alone = text
        .parse()
        .map(|port: u16| (Ipv4Addr::LOCALHOST, port).into());
    alone
        .or_else(|_| text.parse())
        .map_err(|_| "expected a port like `9090`, or an address like `0.0.0.0:9090`".to_owned())
}

fn parse_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_path = is_path && !text.contains(['?', '#']);
    is_path
        .then(|| text.to_owned())
        .ok_or_else(|| "expected a path like `/predict`".to_owned())
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
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    fn typed(flags: &[&str]) -> Result<Settings, clap::Error> {
        let typed = Typed::try_parse_from([&["service"], flags].concat())?;
        Ok(typed.options.settings())
    }

    #[test]
    fn what_the_operator_says_comes_before_what_the_platform_says() {
        let port = |flags: &[&str]| typed(flags).unwrap().listen.port();
        let vertex = ["--aip-port", "3"];
        let all = ["--sagemaker-port", "2", "--platform-port", "1"];
        assert_eq!(port(&[]), 8080);
        assert_eq!(port(&vertex), 3);
        assert_eq!(port(&[vertex, [all[0], all[1]]].concat()), 2);
        assert_eq!(port(&[&vertex[..], &all].concat()), 1);
        assert_eq!(port(&[&vertex[..], &all, &["--port", "0"]].concat()), 0);
    }

    #[test]
    fn a_certificate_needs_its_key_and_those_of_clients_need_both() {
        assert_eq!(typed(&[]).unwrap().tls, None);
        let both = ["--tls-cert", "c", "--tls-key", "k"];
        let files = typed(&both).unwrap().tls.unwrap();
        assert_eq!((files.key, files.client_ca), ("k".into(), None));
        for missing in [&both[..2], &both[2..], &["--tls-client-ca", "c"]] {
            assert!(typed(missing).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn monitors_are_of_this_machine_unless_another_is_said() {
        assert_eq!(parse_listen("9090"), Ok(([127, 0, 0, 1], 9090).into()));
        assert_eq!(parse_listen("0.0.0.0:1"), Ok(([0, 0, 0, 0], 1).into()));
        assert_eq!(parse_listen("[::1]:1").map(|at| at.port()), Ok(1));
        for text in ["", "a", "localhost", "0.0.0.0", "99999", ":1"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_and_routes_are_paths() {
        assert_eq!(parse_host("A.example.com."), Ok("a.example.com".to_owned()));
        for text in ["", ".", "a:1", "https://a", "*", "a b"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
        assert!(parse_path("/v1/endpoints/1:predict").is_ok());
        for text in ["", "predict", "/a b", "/a?b"] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }

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
