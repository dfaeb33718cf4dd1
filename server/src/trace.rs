//! W3C trace context: which trace a request belongs to, and where in it.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;

/// A trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    /// Where the request comes from; `None` when the trace begins with it.
    pub(crate) parent: Option<Parent>,
}

/// The span that a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) span: u64,
    /// Whether its spans are recorded.
    pub(crate) is_sampled: bool,
}

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
        let id = u128::from(random()) << 64 | u128::from(random());
        Self { id, parent: None }
    }
}

/// A number that is not 0 and not foreseen.
pub(crate) fn random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Keyed at random, once for each process: different counts give unrelated numbers.
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = KEYS.build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.finish().max(1)
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.id)
    }
}

/// `00-<32 hex digits>-<16>-<2>`; versions to come may have more behind it.
fn parse(text: &str) -> Option<Trace> {
    let mut fields = text.split('-');
    let mut field = |digits| fields.next().and_then(|text| hex(text, digits));
    let (version, id) = (field(2)?, field(32)?);
    let (span, flags) = (u64::try_from(field(16)?).ok()?, field(2)?);
    let is_valid = version != 0xff && id != 0 && span != 0;
    let is_sampled = flags & 1 == 1;
    (is_valid && (version > 0 || fields.next().is_none())).then_some(Trace {
        id,
        parent: Some(Parent { span, is_sampled }),
    })
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
        let later = Trace::of(&headers(&[later]));
        assert_eq!(later.id, trace.id);
        let span = 0x00f0_67aa_0ba9_02b7;
        let parent = |is_sampled| Some(Parent { span, is_sampled });
        assert_eq!((trace.parent, later.parent), (parent(true), parent(false)));
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
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| Trace::begin().id).collect();
        assert_eq!(ids.len(), 1000);
    }
}
