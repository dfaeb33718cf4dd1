//! In which form rows are in a body.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName};

/// A form of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// A document of JSON.
    Json,
    /// A row of JSON on each line.
    Lines,
    /// Comma-separated values.
    Csv,
    /// A stream of Arrow's interprocess format.
    Arrow,
    /// A Parquet file.
    Parquet,
    /// JSON, and then the bytes of tensors.
    Tensors,
}

const NAMES: [(&str, Media); 9] = [
    ("application/json", Media::Json),
    ("application/jsonlines", Media::Lines),
    ("application/x-ndjson", Media::Lines),
    ("application/x-jsonlines", Media::Lines),
    ("text/csv", Media::Csv),
    ("application/vnd.apache.arrow.stream", Media::Arrow),
    ("application/vnd.apache.parquet", Media::Parquet),
    ("application/x-parquet", Media::Parquet),
    ("application/octet-stream", Media::Tensors),
];

/// What was said of the form of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    Known(Media),
    Unknown,
}

impl Media {
    /// The form of the body that comes with `headers`. Text is in UTF-8 or not read.
    pub(crate) fn said(headers: &HeaderMap) -> Said {
        let text = text(headers, &CONTENT_TYPE);
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        if name.is_empty() {
            return Said::Nothing;
        }
        let is_utf8 = parts.all(|parameter| {
            let known = ["charset=utf-8", "charset=\"utf-8\"", ""];
            known
                .iter()
                .any(|known| parameter.eq_ignore_ascii_case(known))
        });
        match Self::named(name) {
            Some(media) if is_utf8 => Said::Known(media),
            _ => Said::Unknown,
        }
    }

    /// The first form that `headers` accept, if they name one.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let names = text(headers, &ACCEPT).split(',');
        names
            .filter_map(|name| Self::named(name.split(';').next()?.trim()))
            .next()
    }

    fn named(name: &str) -> Option<Self> {
        let same = |(known, _): &&(&str, Self)| known.eq_ignore_ascii_case(name);
        NAMES.iter().find(same).map(|(_, media)| *media)
    }

    /// The name that answers have.
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Lines {
            return "application/jsonlines";
        }
        let found = NAMES.iter().find(|(_, media)| *media == self);
        found.map_or("application/json", |(name, _)| name)
    }
}

/// A header as text; empty when it is not there, or is none.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> Said {
        let value = value.parse().expect("a header");
        Media::said(&HeaderMap::from_iter([(CONTENT_TYPE, value)]))
    }

    #[test]
    fn text_in_another_encoding_than_utf_8_is_not_read() {
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;",
        ] {
            assert_eq!(said(good), Said::Known(Media::Json), "{good}");
        }
        for bad in [
            "text/plain",
            "application/json; charset=utf-16",
            "application/json; format=pandas-split",
            "application/jsonp",
            "application/x-pickle",
        ] {
            assert_eq!(said(bad), Said::Unknown, "{bad}");
        }
        assert_eq!(Media::said(&HeaderMap::new()), Said::Nothing);
    }

    #[test]
    fn the_first_form_that_is_known_is_given() {
        let accepted = |value: &str| {
            let value = value.parse().expect("a header");
            Media::accepted(&HeaderMap::from_iter([(ACCEPT, value)]))
        };
        assert_eq!(accepted("text/html, text/csv;q=0.5, */*"), Some(Media::Csv));
        assert_eq!(accepted("*/*"), None);
    }
}
