//! The body of a call: read whole, within a length and a time, before anything else is spent on it.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap};
use tokio::time::timeout;

use crate::Settings;
use crate::error::Refusal;

/// Room that is made for a body before any of it has come: its stated length costs a liar nothing.
const FIRST_BYTES: u64 = 256 << 10;

/// How long a body that was refused is read on and thrown away.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Reads the body of a call.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    settings: &Settings,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    check_media_type(headers)?;
    let mut body = Box::pin(body);
    let (limit, after) = (settings.max_body_bytes, settings.body_timeout);
    let collected = timeout(after, collect(&mut body, limit)).await;
    let collected = collected.unwrap_or(Err(Refusal::SlowBody { after }));
    // Who expects to be told to go on has not begun to send.
    if matches!(collected, Err(Refusal::BodyTooLarge { .. })) && !headers.contains_key(EXPECT) {
        tokio::spawn(timeout(DISCARD_TIME, discard(body)));
    }
    collected
}

async fn collect<B: Body<Data = Bytes>>(
    body: &mut Pin<Box<B>>,
    limit: u64,
) -> Result<Bytes, Refusal> {
    let stated = body.size_hint().lower();
    if stated > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BrokenBody)?.into_data() else {
            continue;
        };
        let length = first.as_ref().map_or(0, Bytes::len).max(rest.len()) + data.len();
        if length as u64 > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        match &first {
            // A short body comes in one piece and is not copied.
            None => first = Some(data),
            Some(begin) => {
                if rest.is_empty() {
                    rest.reserve(usize::try_from(stated.min(FIRST_BYTES)).unwrap_or(0));
                    rest.extend_from_slice(begin);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() {
        first.unwrap_or_default()
    } else {
        rest.freeze()
    })
}

/// A client that looks for the answer only after it has sent everything would find a broken
/// connection instead of it, if nobody read on.
async fn discard<B: Body>(mut body: Pin<Box<B>>) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// JSON, in UTF-8, not compressed.
fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    if !parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
    {
        return Err(Refusal::MediaType);
    }
    let utf8 = ["charset=utf-8", "charset=\"utf-8\"", ""];
    if !parts.all(|parameter| {
        utf8.iter()
            .any(|known| parameter.eq_ignore_ascii_case(known))
    }) {
        return Err(Refusal::MediaType);
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Refusal::ContentEncoding),
        _ => Ok(()),
    }
}

/// How long the caller gives us, in seconds, in `x-request-timeout`; never more than the settings.
pub(crate) fn patience(headers: &HeaderMap, most: Duration) -> Result<Duration, Refusal> {
    let Some(value) = headers.get("x-request-timeout") else {
        return Ok(most);
    };
    let text = value.to_str().map_err(|_| Refusal::Timeout)?;
    // `parse` would take `inf`, `1e3` and `+1` too.
    if text.is_empty()
        || text.len() > 20
        || !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(Refusal::Timeout);
    }
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 => {
            Ok(most.min(Duration::try_from_secs_f64(seconds).unwrap_or(most)))
        }
        _ => Err(Refusal::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn json() -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())])
    }

    fn settings(max_body_bytes: u64) -> Settings {
        Settings {
            max_body_bytes,
            body_timeout: Duration::from_millis(20),
            ..Settings::default()
        }
    }

    fn pieces(pieces: Vec<&'static str>) -> impl Body<Data = Bytes> + Send + 'static {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        StreamBody::new(futures::stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_one_body() {
        let body = read(&json(), pieces(vec!["ab", "", "c", "d"]), &settings(4))
            .await
            .unwrap();
        assert_eq!(body, "abcd");
    }

    #[tokio::test]
    async fn a_body_that_says_it_is_too_long_is_not_read() {
        let refusal = read(&json(), Full::new(Bytes::from("12345")), &settings(4))
            .await
            .unwrap_err();
        assert!(matches!(refusal, Refusal::BodyTooLarge { limit: 4 }));
    }

    #[tokio::test]
    async fn a_body_that_does_not_say_its_length_is_read_up_to_the_limit() {
        let refusal = read(
            &json(),
            pieces(vec!["12", "345", "never read"]),
            &settings(4),
        )
        .await
        .unwrap_err();
        assert!(matches!(refusal, Refusal::BodyTooLarge { limit: 4 }));
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up() {
        let stalled =
            StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert!(matches!(
            read(&json(), stalled, &settings(4)).await,
            Err(Refusal::SlowBody { .. })
        ));
    }

    #[test]
    fn only_json_is_read() {
        let with = |value: &str| HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;",
        ] {
            assert!(check_media_type(&with(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/json; charset=utf-16",
            "application/jsonp",
            "application/x-pickle",
        ] {
            assert!(check_media_type(&with(bad)).is_err(), "{bad}");
        }
        assert!(check_media_type(&HeaderMap::new()).is_err());
        let mut compressed = json();
        compressed.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(matches!(
            check_media_type(&compressed),
            Err(Refusal::ContentEncoding)
        ));
    }

    #[test]
    fn a_caller_may_shorten_the_deadline_and_not_lengthen_it() {
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(
                "x-request-timeout".parse().unwrap(),
                value.parse().unwrap(),
            )]);
            patience(&headers, Duration::from_secs(30)).ok()
        };
        assert_eq!(with("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(with("100000000000000000"), Some(Duration::from_secs(30)));
        for bad in ["", "0", "0.0", "-1", "abc", "inf", "nan", "1e3", "1,5", "."] {
            assert_eq!(with(bad), None, "{bad}");
        }
        assert_eq!(
            patience(&HeaderMap::new(), Duration::from_secs(3)).ok(),
            Some(Duration::from_secs(3))
        );
    }
}
