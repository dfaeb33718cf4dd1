//! One message in, one message out: their frames, their compression, their limits.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::codec::{
    BufferSettings, CompressionEncoding, DecodeBuf, Decoder, EncodeBody,
    SingleMessageCompressionOverride, Streaming,
};
use tonic::{Code, Status};
use tonic_prost::ProstEncoder;

use crate::body;
use crate::delivery::Content;
use crate::error::Refusal;
use crate::media::text;
use crate::settings::Settings;

pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How the messages of one request are read and written: compressed as the client does it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    encoding: Option<CompressionEncoding>,
    limit: u64,
}

impl Exchange {
    pub(super) fn of(headers: &HeaderMap, settings: &Settings) -> Result<Self, Refusal> {
        let encoding = match text(headers, &ENCODING) {
            "" | "identity" => None,
            "gzip" => Some(CompressionEncoding::Gzip),
            "deflate" => Some(CompressionEncoding::Deflate),
            _ => return Err(Refusal::MessageEncoding),
        };
        Ok(Self {
            encoding,
            limit: settings.max_body_bytes,
        })
    }

    /// The message that a body is.
    pub(super) fn read<M: Message + Default + 'static>(self, body: Bytes) -> Result<M, Refusal> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let decoder = Weighed {
            limit,
            message: std::marker::PhantomData::<M>,
        };
        let body = Full::new(body);
        let mut messages = Streaming::new_request(decoder, body, self.encoding, Some(limit));
        // All of the body is there, so nothing is waited for.
        let mut next = || messages.next().now_or_never().flatten().transpose();
        let message = next().map_err(|status| self.refusal(&status))?;
        let message = message.ok_or_else(|| bad("there is none"))?;
        match next() {
            Ok(None) => Ok(message),
            _ => Err(bad("there are several")),
        }
    }

    fn refusal(self, status: &Status) -> Refusal {
        let limit = self.limit;
        if status.code() == Code::ResourceExhausted || status.code() == Code::OutOfRange {
            return Refusal::MessageTooLarge { limit };
        }
        bad(status.message())
    }

    /// The answer that is one message.
    pub(super) fn write<M: Message + 'static>(
        self,
        message: M,
    ) -> Result<Response<Content>, Refusal> {
        let body = EncodeBody::new_server(
            ProstEncoder::new(BufferSettings::default()),
            stream::iter([Ok(message)]),
            self.encoding,
            SingleMessageCompressionOverride::default(),
            None,
        );
        let written = body.collect().now_or_never().and_then(Result::ok);
        let written = written.ok_or(Refusal::Internal)?;
        let trailers = written.trailers().cloned();
        let mut response = Response::new(Content::Whole(written.to_bytes(), trailers));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let encoding = match self.encoding {
            Some(CompressionEncoding::Gzip) => "gzip",
            Some(CompressionEncoding::Deflate) => "deflate",
            _ => return Ok(response),
        };
        headers.insert(ENCODING, HeaderValue::from_static(encoding));
        Ok(response)
    }
}

fn bad(reason: impl Into<String>) -> Refusal {
    Refusal::BadMessage {
        reason: reason.into(),
    }
}

/// Decodes a message if what it would become fits into `limit` bytes.
///
/// An empty tensor is two bytes of a message and hundreds in memory, so the length of a body is no bound.
struct Weighed<M> {
    limit: usize,
    message: std::marker::PhantomData<M>,
}

impl<M: Message + Default + 'static> Decoder for Weighed<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        let message = source.copy_to_bytes(source.remaining());
        let wrong = |error: prost::DecodeError| Status::invalid_argument(error.to_string());
        if weight(&message, 0).map_err(wrong)? > self.limit {
            return Err(Status::resource_exhausted(""));
        }
        M::decode(message).map(Some).map_err(wrong)
    }
}

/// What the fields of a message take at each depth, in bytes: a tensor, its shape or its contents, a value
/// of the contents that has a length of its own.
const FIELD_BYTES: [usize; 3] = [512, 256, 32];

/// The field that is looked into at each depth: `inputs`, then their `contents`.
const LOOKED_INTO: u32 = 5;

/// Whether a field of this depth is a list of integers, which take a byte or more each: the shape of a
/// tensor, and its contents of the types `int`, `int64`, `uint` and `uint64`.
fn is_integers(depth: usize, tag: u32) -> bool {
    matches!((depth, tag), (1, 3) | (2, 2..=5))
}

/// What a message takes in memory besides the bytes that it came in, roughly.
fn weight(mut message: &[u8], depth: usize) -> Result<usize, prost::DecodeError> {
    let mut weight = 0_usize;
    while message.has_remaining() {
        let (tag, wire_type) = decode_key(&mut message)?;
        weight = weight.saturating_add(FIELD_BYTES[depth]);
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX);
        let Some((field, rest)) = message.split_at_checked(length) else {
            // Decoding tells what is wrong with it.
            return Ok(weight);
        };
        message = rest;
        let more = if is_integers(depth, tag) {
            integers(field).saturating_mul(size_of::<i64>())
        } else if tag == LOOKED_INTO && depth + 1 < FIELD_BYTES.len() {
            self::weight(field, depth + 1)?
        } else {
            0
        };
        weight = weight.saturating_add(more);
    }
    Ok(weight)
}

/// How many integers a packed list holds: the last byte of each has no highest bit.
fn integers(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

/// How long the caller gives us: `grpc-timeout`, as gRPC writes it, or as over HTTP.
pub(super) fn patience(headers: &HeaderMap, most: Duration) -> Result<Duration, Refusal> {
    let most = body::patience(headers, most)?;
    if !headers.contains_key(TIMEOUT) {
        return Ok(most);
    }
    let time = timeout(text(headers, &TIMEOUT)).ok_or(Refusal::Timeout)?;
    Ok(most.min(time))
}

/// Up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(3600 * count)),
        "M" => Some(Duration::from_secs(60 * count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::grpc::generated::model_infer_request::InferInputTensor;
    use crate::protocol::grpc::generated::{InferTensorContents, ModelInferRequest};

    fn exchange(encoding: &str, max_body_bytes: u64) -> Exchange {
        let headers = HeaderMap::from_iter([(ENCODING, encoding.parse().unwrap())]);
        let settings = Settings {
            max_body_bytes,
            ..Settings::default()
        };
        Exchange::of(&headers, &settings).unwrap()
    }

    fn named(name: &str) -> ModelInferRequest {
        ModelInferRequest {
            model_name: name.into(),
            ..ModelInferRequest::default()
        }
    }

    /// The body that a client would send.
    fn sent(exchange: Exchange, message: ModelInferRequest) -> Bytes {
        match exchange.write(message).unwrap().into_body() {
            Content::Whole(bytes, _) => bytes,
            Content::Messages(_) => unreachable!(),
        }
    }

    #[test]
    fn a_message_is_written_and_read_in_each_encoding() {
        for encoding in ["identity", "gzip", "deflate"] {
            let exchange = exchange(encoding, 1 << 20);
            let message = named(&"x".repeat(10_000));
            let bytes = sent(exchange, message.clone());
            assert_eq!(bytes.len() < 1000, encoding != "identity");
            assert_eq!(exchange.read::<ModelInferRequest>(bytes).unwrap(), message);
        }
        let headers = HeaderMap::from_iter([(ENCODING, "br".parse().unwrap())]);
        let refused = Exchange::of(&headers, &Settings::default());
        assert!(matches!(refused, Err(Refusal::MessageEncoding)));
    }

    #[test]
    fn an_answer_ends_with_its_status() {
        let response = exchange("identity", 100).write(named("f")).unwrap();
        let Content::Whole(_, Some(trailers)) = response.body() else {
            panic!("no trailers");
        };
        assert_eq!(trailers["grpc-status"], "0");
    }

    #[test]
    fn a_body_is_one_whole_message() {
        let exchange = exchange("identity", 1 << 20);
        let whole = sent(exchange, named("f"));
        let twice = [&*whole, &*whole].concat();
        let cut = whole.slice(..whole.len() - 1);
        let long = [&*whole, b"x"].concat();
        for body in [Bytes::new(), twice.into(), cut, long.into(), "{}".into()] {
            let read = exchange.read::<ModelInferRequest>(body.clone());
            assert!(matches!(read, Err(Refusal::BadMessage { .. })), "{body:?}");
        }
    }

    #[test]
    fn what_a_message_unpacks_to_is_no_longer_than_a_body_may_be() {
        let bomb = sent(exchange("gzip", 1 << 30), named(&"x".repeat(1 << 20)));
        let read = exchange("gzip", 1 << 16).read::<ModelInferRequest>(bomb);
        assert!(matches!(
            read,
            Err(Refusal::MessageTooLarge { limit: 65536 })
        ));
    }

    #[test]
    fn a_message_that_would_be_large_in_memory_is_not_decoded() {
        let limit = 1 << 20;
        let empty = |count| vec![InferInputTensor::default(); count];
        let contents = |count| InferTensorContents {
            bytes_contents: vec![Bytes::new(); count],
            ..InferTensorContents::default()
        };
        let of = |inputs| ModelInferRequest {
            inputs,
            ..ModelInferRequest::default()
        };
        let holding = |count| {
            of(vec![InferInputTensor {
                contents: Some(contents(count)),
                ..InferInputTensor::default()
            }])
        };
        let counted = |count| {
            of(vec![InferInputTensor {
                contents: Some(InferTensorContents {
                    int64_contents: vec![1; count],
                    ..InferTensorContents::default()
                }),
                ..InferInputTensor::default()
            }])
        };
        let shaped = |count| {
            of(vec![InferInputTensor {
                shape: vec![1; count],
                ..InferInputTensor::default()
            }])
        };
        let exchange = exchange("identity", limit);
        for (message, fits) in [
            (of(empty(1000)), true),
            (of(empty(3000)), false),
            (holding(30_000), true),
            (holding(40_000), false),
            (counted(130_000), true),
            (counted(140_000), false),
            (shaped(130_000), true),
            (shaped(140_000), false),
        ] {
            let bytes = sent(exchange, message);
            assert!(bytes.len() < 150_000);
            let read = exchange.read::<ModelInferRequest>(bytes);
            assert_eq!(read.is_ok(), fits);
            assert!(fits || matches!(read, Err(Refusal::MessageTooLarge { .. })));
        }
    }

    #[test]
    fn time_is_read_as_grpc_writes_it() {
        let most = Duration::from_secs(30);
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(TIMEOUT, value.parse().unwrap())]);
            patience(&headers, most).ok()
        };
        assert_eq!(with("99999999H"), Some(most));
        assert_eq!(with("1M"), Some(most));
        assert_eq!(with("2S"), Some(Duration::from_secs(2)));
        assert_eq!(with("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(with("7u"), Some(Duration::from_micros(7)));
        assert_eq!(with("9n"), Some(Duration::from_nanos(9)));
        for bad in [
            "",
            "m",
            "1",
            "1.5S",
            "-1S",
            "+1S",
            "123456789n",
            "1s",
            "1 S",
        ] {
            assert_eq!(with(bad), None, "{bad}");
        }
        assert_eq!(patience(&HeaderMap::new(), most).ok(), Some(most));
    }
}
