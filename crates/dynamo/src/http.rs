//! The service's HTTP: one POST an operation, its name in a header, and the quirks that clients rely on.
//!
//! The order of checks is the service's: size, method and content type, then whether the body is JSON, the
//! operation's name, the signature, and last what the operation itself finds.

use crate::error::{Failure, SERIALIZATION};
use crate::metrics::{Metrics, OK};
use crate::operation::{Operation, Place, TokensInProgress, unknown};
use crate::signature::{self, Credentials, Signed};
use crate::wire::reader::is_json;
use api::Database;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    ORIGIN,
};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The largest body, before and after decompression.
const BODY_SIZE_BYTES_MAX: usize = 16 << 20;
/// A body must be there within.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// Answers larger than this are compressed for clients that can read it.
const COMPRESSED_SIZE_BYTES_MIN: usize = 4096;

const JSON_1_0: &str = "application/x-amz-json-1.0";
const JSON: &str = "application/json";

type NoFrames = futures::stream::Empty<Result<Frame<Bytes>, Infallible>>;
/// An answer: whole, or (where the service answers so) in no chunks.
pub type Body = Either<Full<Bytes>, StreamBody<NoFrames>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const CRC32: HeaderName = HeaderName::from_static("x-amz-crc32");
const TARGET: &str = "x-amz-target";

/// What all connections share.
pub struct Door {
    pub database: Arc<dyn Database>,
    pub place: Place,
    pub credentials: Credentials,
    pub metrics: Metrics,
    pub tokens_in_progress: TokensInProgress,
    /// Request ids count up from a random start.
    pub next_request_id: AtomicU64,
}

/// An answer before its headers.
struct Answer {
    status: StatusCode,
    content_type: Option<&'static str>,
    body: Bytes,
}

impl Answer {
    fn json(status: StatusCode, content_type: &'static str, body: String) -> Answer {
        Answer {
            status,
            content_type: Some(content_type),
            body: body.into(),
        }
    }

    fn not_found() -> Answer {
        Answer {
            status: StatusCode::NOT_FOUND,
            content_type: None,
            body: Bytes::from_static(b"<UnknownOperationException/>\n"),
        }
    }
}

pub async fn handle(
    door: Arc<Door>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(status) => {
            let mut response =
                Response::new(Either::Right(StreamBody::new(futures::stream::empty())));
            *response.status_mut() = status;
            return Ok(response);
        }
    };
    let headers = &head.headers;
    let mut response = if head.method == Method::OPTIONS && headers.contains_key(ORIGIN) {
        preflight(headers)
    } else {
        let answer = if head.method == Method::GET {
            Answer {
                status: StatusCode::OK,
                content_type: None,
                body: format!("healthy: dynamodb.{}.amazonaws.com ", door.place.region).into(),
            }
        } else {
            post(&door, &head, body).await
        };
        respond(answer, headers)
    };
    if headers.contains_key(ORIGIN) {
        set(
            &mut response,
            "access-control-allow-origin",
            HeaderValue::from_static("*"),
        );
    }
    let id = request_id(door.next_request_id.fetch_add(1, Ordering::Relaxed));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

fn set(response: &mut Response<Body>, name: &'static str, value: HeaderValue) {
    response
        .headers_mut()
        .insert(HeaderName::from_static(name), value);
}

async fn read_body(body: Incoming) -> Result<Bytes, StatusCode> {
    let collected = tokio::time::timeout(
        BODY_PATIENCE,
        Limited::new(body, BODY_SIZE_BYTES_MAX).collect(),
    );
    match collected.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// A browser asks whether it may.
fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::new())));
    for (asked, allowed) in [
        (
            "access-control-request-headers",
            "access-control-allow-headers",
        ),
        (
            "access-control-request-method",
            "access-control-allow-methods",
        ),
    ] {
        if let Some(value) = headers.get(asked) {
            set(&mut response, allowed, value.clone());
        }
    }
    set(
        &mut response,
        "access-control-max-age",
        HeaderValue::from_static("172800"),
    );
    set(
        &mut response,
        "content-length",
        HeaderValue::from_static("0"),
    );
    response
}

/// Thirty-two characters' worth of what is written as fifty-two.
fn request_id(number: u64) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    let mut state = number;
    let mut id = String::with_capacity(52);
    for _ in 0..4 {
        // SplitMix64: spreads neighbouring numbers over all bits.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        for position in 0..13 {
            let index = (bits >> (5 * position).min(59)) & 31;
            id.push(char::from(ALPHABET[index as usize]));
        }
    }
    id
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

async fn post(door: &Door, head: &hyper::http::request::Parts, raw: Bytes) -> Answer {
    let headers = &head.headers;
    let media_type = header(headers, "content-type")
        .split(';')
        .next()
        .unwrap_or("")
        .trim();
    let is_json_type = media_type == JSON || media_type == JSON_1_0;
    if head.method != Method::POST || (!raw.is_empty() && !is_json_type) {
        return Answer::not_found();
    }
    let content_type = if media_type == JSON_1_0 {
        JSON_1_0
    } else {
        JSON
    };
    let _in_flight = door.metrics.enter();
    let started = Instant::now();
    let target = header(headers, TARGET).split_once('.');
    let name = match target {
        Some(("DynamoDB_20120810" | "DynamoDBStreams_20120810", name)) => Some(name),
        _ => None,
    };
    let operation = name.and_then(Operation::parse);
    let result = run(door, head, &raw, name, operation).await;
    let operation_name = operation.map_or("unknown", Operation::name);
    let (answer, outcome) = match result {
        Ok(body) => (Answer::json(StatusCode::OK, content_type, body), OK),
        Err(failure) => {
            let status =
                StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            if status.is_server_error() {
                tracing::warn!(
                    operation = operation_name,
                    message = failure.message.as_deref().unwrap_or(""),
                    "a request failed"
                );
            }
            (
                Answer::json(status, content_type, failure.body()),
                failure.name(),
            )
        }
    };
    door.metrics
        .request(operation_name, outcome, started.elapsed());
    answer
}

async fn run(
    door: &Door,
    head: &hyper::http::request::Parts,
    raw: &Bytes,
    name: Option<&str>,
    operation: Option<Operation>,
) -> Result<String, Failure> {
    let decompressed = decompress(raw, header(&head.headers, CONTENT_ENCODING.as_str()))
        .ok_or_else(|| Failure::without_message(SERIALIZATION))?;
    let text =
        std::str::from_utf8(&decompressed).map_err(|_| Failure::without_message(SERIALIZATION))?;
    // A body that is not JSON comes first; the operation's own decoder would find it anyway.
    let checked = |failure: Failure| {
        if text.is_empty() || is_json(text) {
            failure
        } else {
            Failure::without_message(SERIALIZATION)
        }
    };
    let Some(operation) = operation else {
        return Err(checked(unknown(name)));
    };
    let now_seconds = door.database.now().latest.seconds();
    let signed = Signed {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or(""),
        headers: &head.headers,
        body: raw,
    };
    signature::check(&signed, &door.credentials, now_seconds).map_err(checked)?;
    if text.is_empty() {
        return Err(Failure::without_message(SERIALIZATION));
    }
    let host = header(&head.headers, HOST.as_str());
    operation.run(door, host, text).await
}

/// The body without its compression; `None` when it is not what it says, or too large.
fn decompress(raw: &Bytes, encoding: &str) -> Option<Bytes> {
    let mut body = Vec::new();
    let limit = BODY_SIZE_BYTES_MAX as u64 + 1;
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => return Some(raw.clone()),
        "gzip" | "x-gzip" => {
            GzDecoder::new(raw.as_ref())
                .take(limit)
                .read_to_end(&mut body)
                .ok()?;
        }
        // By the standard in zlib's frame; some clients leave it out.
        "deflate" => {
            let framed = ZlibDecoder::new(raw.as_ref())
                .take(limit)
                .read_to_end(&mut body);
            if framed.is_err() {
                body.clear();
                DeflateDecoder::new(raw.as_ref())
                    .take(limit)
                    .read_to_end(&mut body)
                    .ok()?;
            }
        }
        _ => return None,
    }
    (body.len() <= BODY_SIZE_BYTES_MAX).then(|| body.into())
}

fn respond(answer: Answer, headers: &HeaderMap) -> Response<Body> {
    let accepts_gzip = header(headers, ACCEPT_ENCODING.as_str())
        .split(',')
        .map(str::trim)
        .any(|coding| coding == "gzip" || coding.starts_with("gzip;") && !coding.ends_with("q=0"));
    let compressed = (accepts_gzip && answer.body.len() > COMPRESSED_SIZE_BYTES_MIN)
        .then(|| compress(&answer.body))
        .flatten();
    let is_compressed = compressed.is_some();
    let body = compressed.unwrap_or(answer.body);
    let crc = crc32fast::hash(&body);
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CRC32, HeaderValue::from(crc));
    if let Some(content_type) = answer.content_type {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if is_compressed {
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn compress(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    Some(encoder.finish().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_look_like_the_services() {
        let ids: std::collections::BTreeSet<String> = (0..100).map(request_id).collect();
        assert_eq!(ids.len(), 100);
        for id in ids {
            assert_eq!(id.len(), 52);
            assert!(
                id.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            );
        }
    }

    #[test]
    fn bodies_are_decompressed_within_limits() {
        let zipped = compress(b"{\"a\": 1}").expect("compresses");
        assert_eq!(
            decompress(&zipped, "gzip").as_deref(),
            Some(&b"{\"a\": 1}"[..])
        );
        assert_eq!(decompress(&zipped, "deflate"), None);
        assert_eq!(decompress(&zipped, "br"), None);
        assert_eq!(decompress(&Bytes::from_static(b"x"), "gzip"), None);
        let bomb = compress(&vec![0; BODY_SIZE_BYTES_MAX + 1]).expect("compresses");
        assert_eq!(decompress(&bomb, "gzip"), None);
    }
}
