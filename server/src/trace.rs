//! W3C trace context: which trace a request belongs to.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;

/// A trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace(u128);

impl Trace {
    /// The one in the header `traceparent`, or a new one when there is none that is valid.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut parents = headers.get_all("traceparent").iter();
        match (parents.next(), parents.next()) {
            (Some(parent), None) => parent.to_str().ok().and_then(parse),
            _ => None,
        }
        .unwrap_or_else(Self::begin)
    }

    fn begin() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Keyed at random, once for each process: different counts give unrelated ids.
        static KEYS: LazyLock<[RandomState; 2]> =
            LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let half = |keys: &RandomState| {
            let mut hasher = keys.build_hasher();
            hasher.write_u64(count);
            u128::from(hasher.finish())
        };
        let id = half(&KEYS[0]) << 64 | half(&KEYS[1]);
        Self(id.max(1))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// `00-<32 hex digits>-<16>-<2>`; versions to come may have more behind it.
fn parse(text: &str) -> Option<Trace> {
    let mut fields = text.split('-');
    let mut field = |digits| fields.next().and_then(|text| hex(text, digits));
    let (version, id) = (field(2)?, field(32)?);
    let (parent, _flags) = (field(16)?, field(2)?);
    let is_valid = version != 0xff && id != 0 && parent != 0;
    (is_valid && (version > 0 || fields.next().is_none())).then_some(Trace(id))
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_lower))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parents: &[&str]) -> HeaderMap {
        let name = || hyper::header::HeaderName::from_static("traceparent");
        let pairs = parents.iter().map(|text| (name(), text.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_trace_goes_on() {
        let trace = Trace::of(&headers(&[GOOD]));
        assert_eq!(trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more";
        assert_eq!(Trace::of(&headers(&[later])).0, trace.0);
    }

    #[test]
    fn what_is_not_valid_begins_a_new_one() {
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text}");
        }
        let twice = Trace::of(&headers(&[GOOD, GOOD]));
        assert_ne!(Some(twice), parse(GOOD));
    }

    #[test]
    fn new_traces_are_all_different() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| Trace::begin().0).collect();
        assert_eq!(ids.len(), 1000);
    }
}
