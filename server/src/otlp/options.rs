//! What an operator types about spans: the variables that OpenTelemetry has for it.

use std::str::FromStr as _;

use clap::Args;
use clap::builder::FalseyValueParser;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use super::{Collector, Sampling};

/// Flags about spans. Without an endpoint there are none.
#[derive(Debug, Clone, Args)]
pub struct OtlpOptions {
    /// Send spans of calls to this collector of OpenTelemetry, over HTTP
    #[arg(long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = parse_endpoint)]
    pub endpoint: Option<Endpoint>,

    /// What to send along, as `NAME=VALUE,...`
    #[arg(long = "otlp-headers", env = "OTEL_EXPORTER_OTLP_HEADERS", value_name = "HEADERS",
          hide_env_values = true, value_parser = parse_headers)]
    pub headers: Option<HeaderMap>,

    /// Name of the service in spans [default: that of the envelope]
    #[arg(long = "otlp-service", env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    pub service: Option<String>,

    /// What else to tell of the service, as `NAME=VALUE,...`
    #[arg(long = "otlp-attributes", env = "OTEL_RESOURCE_ATTRIBUTES", value_name = "ATTRIBUTES", value_parser = parse_pairs)]
    pub attributes: Option<Pairs>,

    /// Which traces to record: `always_on`, `parentbased_traceidratio` … [default: those that callers record, and all that begin here]
    #[arg(
        long = "otlp-sampler",
        env = "OTEL_TRACES_SAMPLER",
        value_name = "SAMPLER"
    )]
    pub sampler: Option<Sampling>,

    /// Which share of traces to record, from 0 to 1, if the sampler takes a share
    #[arg(long = "otlp-sampler-arg", env = "OTEL_TRACES_SAMPLER_ARG", value_name = "SHARE", value_parser = parse_share)]
    pub share: Option<f64>,

    /// Send no spans, whatever else is said
    #[arg(long = "otlp-disabled", env = "OTEL_SDK_DISABLED", value_parser = FalseyValueParser::new())]
    pub disabled: bool,
}

/// Where a collector is; nowhere, if nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Option<Uri>);

/// Names and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

impl OtlpOptions {
    /// The collector that these options mean, if they do.
    #[must_use]
    pub fn collector(&self) -> Option<Collector> {
        let endpoint = self.endpoint.clone().filter(|_| !self.disabled);
        let sampling = self.sampler.unwrap_or_default();
        let said = |name: &&String| !name.is_empty();
        let Pairs(mut attributes) = self.attributes.clone().unwrap_or(Pairs(vec![]));
        let named = self.service.as_ref().filter(said);
        if named.is_some() {
            attributes.retain(|(key, _)| key != "service.name");
        }
        Some(Collector {
            headers: self.headers.clone().unwrap_or_default(),
            service: named.cloned(),
            attributes,
            sampling: self
                .share
                .map_or(sampling, |share| sampling.with_ratio(share)),
            ..Collector::at(endpoint?.0?)
        })
    }
}

/// The address to post to: the path for traces is behind what is said.
fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    if text.is_empty() {
        return Ok(Endpoint(None));
    }
    let address = format!("{}/v1/traces", text.trim_end_matches('/'));
    let address = Uri::from_str(&address).ok().filter(|address| {
        matches!(address.scheme_str(), Some("http" | "https"))
            && address.host().is_some_and(|host| !host.is_empty())
            // A password is sent as a header: addresses are in logs.
            && address.authority().is_some_and(|at| !at.as_str().contains('@'))
            && address.query().is_none()
    });
    let expected = || "expected an address like `http://127.0.0.1:4318`".to_owned();
    address
        .map(|address| Endpoint(Some(address)))
        .ok_or_else(expected)
}

fn parse_headers(text: &str) -> Result<HeaderMap, String> {
    let Pairs(pairs) = parse_pairs(text)?;
    let header = |(name, value): (String, String)| {
        let name = HeaderName::try_from(name).ok()?;
        let mut value = HeaderValue::try_from(value).ok()?;
        // It may be a password: it is in no log.
        value.set_sensitive(true);
        Some((name, value))
    };
    let headers: Option<HeaderMap> = pairs.into_iter().map(header).collect();
    headers.ok_or_else(|| "expected headers like `authorization=Bearer%20abc`".to_owned())
}

/// `name=value,…`, both with percent signs for what is special.
fn parse_pairs(text: &str) -> Result<Pairs, String> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text.trim()).decode_utf8().ok()?;
        Some(text.into_owned())
    };
    let pair = |text: &str| {
        let (name, value) = text.split_once('=')?;
        Some((
            decoded(name).filter(|name| !name.is_empty())?,
            decoded(value)?,
        ))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let pairs: Option<_> = parts.map(pair).collect();
    pairs
        .map(Pairs)
        .ok_or_else(|| "expected `name=value,name=value`".to_owned())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        options: OtlpOptions,
    }

    const AT: &str = "--otlp-endpoint=http://c:4318";

    fn typed(flags: &[&str]) -> Option<Collector> {
        let typed = Typed::try_parse_from([&["service"], flags].concat());
        typed.unwrap().options.collector()
    }

    #[test]
    fn spans_are_sent_only_where_somebody_is_said_to_take_them() {
        assert_eq!(typed(&[]), None);
        assert_eq!(typed(&["--otlp-endpoint="]), None);
        assert_eq!(typed(&[AT, "--otlp-disabled"]), None);
        let address = |flag| typed(&[flag]).unwrap().address.to_string();
        assert_eq!(address(AT), "http://c:4318/v1/traces");
        assert_eq!(
            address("--otlp-endpoint=https://c/otlp/"),
            "https://c/otlp/v1/traces"
        );
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for text in [
            "c",
            "c:4318",
            "grpc://c:4317",
            "http://",
            "http://c?a=b",
            "http://a:b@c",
        ] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_are_decoded_and_not_shown() {
        let collector = typed(&[
            AT,
            "--otlp-headers=authorization=Bearer%20s3cret, x-a = b=c,",
        ]);
        let headers = collector.unwrap().headers;
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!(headers["x-a"], "b=c");
        assert!(!format!("{headers:?}").contains("s3cret"));
        for text in ["a", "=b", "a b=c", "a=%0a"] {
            assert!(parse_headers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_of_the_service_comes_before_one_among_its_attributes() {
        let attributes = "--otlp-attributes=service.name=a,zone=b";
        let of = |flags: &[&str]| {
            let collector = typed(flags).unwrap();
            (collector.service, collector.attributes.len())
        };
        assert_eq!(of(&[AT, attributes]), (None, 2));
        assert_eq!(
            of(&[AT, attributes, "--otlp-service=c"]),
            (Some("c".into()), 1)
        );
    }

    #[test]
    fn a_share_is_for_the_samplers_that_take_one() {
        let sampler = |name: &str| {
            let flags = [AT, "--otlp-sampler", name, "--otlp-sampler-arg", "0.5"];
            typed(&flags).unwrap().sampling.to_string()
        };
        assert_eq!(sampler("always_on"), "always_on");
        assert_eq!(sampler("traceidratio"), "traceidratio of 0.5");
        for share in ["", "-1", "1.1", "nan", "half"] {
            assert!(parse_share(share).is_err(), "{share}");
        }
    }
}
