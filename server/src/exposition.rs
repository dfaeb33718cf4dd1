//! The two text formats of metrics: `OpenMetrics` where it is asked for, else that of Prometheus.

use hyper::HeaderMap;
use hyper::header::ACCEPT;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The one that the caller can read.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter();
        let mut texts = accepted.filter_map(|value| value.to_str().ok());
        if texts.any(|text| text.split(',').any(is_open_metrics)) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

fn is_open_metrics(accepted: &str) -> bool {
    let mut parts = accepted.split(';').map(str::trim);
    let is_type = parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
    // `q=0` is for what is not wanted.
    let is_wanted = parts.all(|parameter| match parameter.split_once('=') {
        Some(("version", version)) => version.trim_matches('"') == "1.0.0",
        Some(("q", weight)) => weight.parse::<f32>().is_ok_and(|weight| weight > 0.0),
        _ => true,
    });
    is_type && is_wanted
}

/// What is in `open_metrics` as Prometheus 0.0.4 writes it: there a counter is called in its comments
/// as in its samples, and there is no end.
pub(crate) fn prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 256);
    let mut help = "";
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            // It comes before the type, which says how it is called.
            help = line;
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            describe(&mut out, help, described);
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn describe(out: &mut String, help: &str, described: &str) {
    let (name, kind) = described.split_once(' ').unwrap_or((described, "untyped"));
    let total = if kind == "counter" { "_total" } else { "" };
    let text = help
        .strip_prefix("# HELP ")
        .and_then(|help| help.strip_prefix(name))
        .unwrap_or_default();
    out.push_str(&format!(
        "# HELP {name}{total}{text}\n# TYPE {name}{total} {kind}\n"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(values: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        Format::of(&headers)
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let asks = [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "text/plain;q=0.5, application/openmetrics-text;version=1.0.0;q=0.75, */*;q=0.1",
        ];
        for ask in asks {
            assert_eq!(accepts(&[ask]), Format::OpenMetrics, "{ask}");
        }
        let others = [
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text; version=2.0.0",
        ];
        for other in others {
            assert_eq!(accepts(&[other]), Format::Prometheus, "{other}");
        }
        assert_eq!(accepts(&[]), Format::Prometheus);
        assert_eq!(
            accepts(&["*/*", "application/openmetrics-text"]),
            Format::OpenMetrics
        );
    }

    #[test]
    fn counters_are_described_by_the_name_they_have() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b Others.\n# TYPE b gauge\n\
                    b 1\n# EOF\n";
        let plain = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b Others.\n\
                     # TYPE b gauge\nb 1\n";
        assert_eq!(prometheus(open), plain);
    }
}
