//! The body of a call: read whole, within a length and a time, before anything else is spent on it.

use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Body;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, EXPECT, HeaderMap, HeaderValue, VARY};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::Settings;
use crate::error::Refusal;
use crate::media::text;

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
    let encoding = Encoding::of(headers)?;
    let mut body = Box::pin(body);
    let (limit, after) = (settings.max_body_bytes, settings.body_timeout);
    let collected = timeout(after, collect(&mut body, limit)).await;
    let collected = collected.unwrap_or(Err(Refusal::SlowBody { after }));
    // Who expects to be told to go on has not begun to send.
    if matches!(collected, Err(Refusal::BodyTooLarge { .. })) && !headers.contains_key(EXPECT) {
        tokio::spawn(timeout(DISCARD_TIME, discard(body)));
    }
    let body = collected?;
    if encoding == Encoding::Identity {
        return Ok(body);
    }
    let decoded = spawn_blocking(move || encoding.decoded(body, limit)).await;
    decoded.map_err(|_| Refusal::Internal)?
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

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    /// Which is zlib's format, whatever the name says.
    Deflate,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let name = text(headers, &CONTENT_ENCODING).trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Refusal::ContentEncoding),
        }
    }

    /// What was compressed, which is no longer than a body may be.
    fn decoded(self, body: Bytes, limit: u64) -> Result<Bytes, Refusal> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => inflated(MultiGzDecoder::new(&*body), limit),
            Self::Deflate => inflated(ZlibDecoder::new(&*body), limit),
            Self::Zstd => inflated(unpacker(&body).map_err(|error| bad(&error))?, limit),
        }
    }
}

/// The standard for HTTP has clients stay within this window, 8 MiB; unpacking takes as much memory.
const ZSTD_WINDOW_LOG: u32 = 23;

fn unpacker(body: &[u8]) -> io::Result<impl io::Read> {
    let mut unpacker = zstd::Decoder::with_buffer(body)?;
    unpacker.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(unpacker)
}

fn bad(error: &io::Error) -> Refusal {
    Refusal::BadEncoding {
        reason: error.to_string(),
    }
}

fn inflated(reader: impl io::Read, limit: u64) -> Result<Bytes, Refusal> {
    let mut body = vec![];
    let read = reader.take(limit + 1).read_to_end(&mut body);
    let length = read.map_err(|error| bad(&error))?;
    if length as u64 > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    Ok(body.into())
}

/// Answers shorter than this, in bytes, are not compressed: it takes longer than sending them.
const COMPRESSED_FROM: usize = 4 << 10;

/// Whether the client reads answers that are compressed.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut names = text(headers, &ACCEPT_ENCODING).split(',');
    names.any(|name| {
        let (name, quality) = name.split_once(';').unwrap_or((name, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !quality.trim().starts_with("q=0")
    })
}

/// A long answer, compressed where the client can read that.
pub(crate) fn compressed(
    response: Response<Full<Bytes>>,
    accepts_gzip: bool,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let length = response.body().size_hint().exact().unwrap_or(0);
    if !accepts_gzip || length < COMPRESSED_FROM as u64 {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = body.into_inner().unwrap_or_default();
    let mut writer = GzEncoder::new(vec![], Compression::fast());
    let written = writer.write_all(&body).and_then(|()| writer.finish());
    let gzip = HeaderValue::from_static("gzip");
    head.headers.insert(CONTENT_ENCODING, gzip);
    let vary = HeaderValue::from_static("accept-encoding");
    head.headers.insert(VARY, vary);
    let body = written.map_err(|_| Refusal::Internal)?;
    Ok(Response::from_parts(head, Full::new(body.into())))
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

    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn json() -> HeaderMap {
        HeaderMap::new()
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

    fn encoded(name: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, name.parse().unwrap())])
    }

    fn gzipped(content: &[u8]) -> Vec<u8> {
        let mut writer = GzEncoder::new(vec![], Compression::best());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    #[tokio::test]
    async fn a_body_that_is_compressed_is_read_up_to_the_limit_of_what_it_holds() {
        let ask = async |content: &[u8], limit| {
            let body = Full::new(Bytes::from(gzipped(content)));
            read(&encoded("gzip"), body, &settings(limit)).await
        };
        assert_eq!(ask(b"abc", 1000).await.unwrap(), "abc");
        let bomb = ask(&vec![0; 1 << 20], 10_000).await;
        assert!(matches!(bomb, Err(Refusal::BodyTooLarge { limit: 10_000 })));
    }

    #[tokio::test]
    async fn zstandard_is_read_within_its_limit_and_its_window() {
        let ask = async |packed: Vec<u8>| {
            let body = Full::new(Bytes::from(packed));
            read(&encoded("zstd"), body, &settings(1000)).await
        };
        let packed = |content: &[u8]| zstd::encode_all(content, 3).unwrap();
        assert_eq!(ask(packed(b"abc")).await.unwrap(), "abc");
        let bomb = ask(packed(&vec![0; 1 << 20])).await;
        assert!(matches!(bomb, Err(Refusal::BodyTooLarge { limit: 1000 })));
        let mut cut = packed(b"abc");
        cut.pop();
        assert!(matches!(ask(cut).await, Err(Refusal::BadEncoding { .. })));
        let mut writer = zstd::Encoder::new(vec![], 1).unwrap();
        writer.window_log(ZSTD_WINDOW_LOG + 1).unwrap();
        writer.write_all(b"abc").unwrap();
        let wide = ask(writer.finish().unwrap()).await;
        assert!(matches!(wide, Err(Refusal::BadEncoding { .. })));
    }

    #[tokio::test]
    async fn what_is_not_compressed_as_it_says_is_refused() {
        for (name, body) in [("gzip", "no"), ("deflate", "{}"), ("zstd", "{}")] {
            let read = read(&encoded(name), Full::new(Bytes::from(body)), &settings(100)).await;
            assert!(matches!(read, Err(Refusal::BadEncoding { .. })), "{name}");
        }
        let read = read(&encoded("br"), Full::new(Bytes::new()), &settings(100)).await;
        assert!(matches!(read, Err(Refusal::ContentEncoding)));
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
