//! Answers that the testbed makes itself, and what faults do to those that S3 would give.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Response, StatusCode};
use s3s::Body;
use s3s::dto::StreamingBlob;

use crate::fault::FaultKind;
use crate::listing::Position;
use crate::rope::Rope;

/// The `<Error>` document of S3.
fn error_document(code: &str, message: &str) -> String {
    let message = message.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
}

/// An error as S3 answers it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(error_document(code, message)));
    *response.status_mut() = StatusCode::from_u16(status).expect("an HTTP status has three digits");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// Reads a body of the testbed's own, which cannot fail.
async fn collected(body: Body) -> Bytes {
    let pieces: VecDeque<Bytes> = body.try_collect().await.expect("a body in memory can be read");
    Rope::from(pieces).bytes()
}

fn set_length(response: &mut Response<Body>, length: usize) {
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
}

/// A body of another length is honest about it, and says nothing about its bytes.
fn relabel(response: &mut Response<Body>, length: usize) {
    set_length(response, length);
    for name in ["x-amz-checksum-crc64nvme", "x-amz-checksum-crc32", "x-amz-checksum-type"] {
        response.headers_mut().remove(name);
    }
}

/// The text between two tags.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// The page with another answer to "is there more?"; `next` is the token, none ends the listing.
fn with_next(document: &str, next: Option<&str>) -> String {
    let mut changed = document.to_owned();
    if let Some(token) = element(document, "NextContinuationToken") {
        let whole = format!("<NextContinuationToken>{token}</NextContinuationToken>");
        changed = changed.replace(&whole, "");
    }
    if let Some(truncated) = element(document, "IsTruncated") {
        let more = next.map_or_else(
            || "<IsTruncated>false</IsTruncated>".to_owned(),
            |token| format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"),
        );
        changed = changed.replace(&format!("<IsTruncated>{truncated}</IsTruncated>"), &more);
    }
    changed
}

/// What a fault makes of an answer, once the request was applied. `token` is the one that the request carried.
pub(crate) async fn distorted(mut response: Response<Body>, fault: &FaultKind, token: Option<&str>) -> Response<Body> {
    match fault {
        FaultKind::StatusAfter(status, code) => return error(*status, code, "a fault of the testbed"),
        FaultKind::OkWithErrorBody(code) | FaultKind::OkWithErrorBodyAfter(code) => {
            return error(200, code, "a fault of the testbed");
        }
        FaultKind::WrongETag => {
            let other = HeaderValue::from_static("\"00000000000000000000000000000bad\"");
            response.headers_mut().insert(ETAG, other);
            return response;
        }
        _ => {}
    }
    let whole = collected(std::mem::take(response.body_mut())).await;
    if whole.is_empty() {
        // Whoever waits for no body has had the whole answer with its headers.
        return response;
    }
    let body = match fault {
        FaultKind::TruncatedBody => {
            set_length(&mut response, whole.len());
            let half = stream::iter([Ok(whole.slice(..whole.len() / 2))]);
            let broken = stream::once(async {
                // What came before is on its way: a server sends what it has while it waits for more.
                tokio::time::sleep(Duration::from_millis(1)).await;
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke"))
            });
            StreamingBlob::wrap(half.chain(broken)).into()
        }
        FaultKind::ShortBody => {
            let half = whole.slice(..whole.len() / 2);
            relabel(&mut response, half.len());
            Body::from(half)
        }
        FaultKind::LongBody => {
            let more = [&whole[..], &whole[..whole.len().div_ceil(2)]].concat();
            relabel(&mut response, more.len());
            Body::from(more)
        }
        FaultKind::WrongChecksum => {
            let mut bytes = whole.to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            Body::from(bytes)
        }
        FaultKind::WrongBit => {
            let mut bytes = whole.to_vec();
            bytes[0] ^= 1;
            relabel(&mut response, bytes.len());
            Body::from(bytes)
        }
        FaultKind::Slow(rate) => {
            set_length(&mut response, whole.len());
            slow(&whole, *rate)
        }
        FaultKind::Trickle(pause) => {
            set_length(&mut response, whole.len());
            trickle(whole, *pause)
        }
        FaultKind::RepeatPage | FaultKind::EndEarly => {
            let first = Position::Start.token();
            let next = (*fault == FaultKind::RepeatPage).then(|| token.unwrap_or(&first));
            let changed = with_next(&String::from_utf8_lossy(&whole), next);
            if response.headers().contains_key(CONTENT_LENGTH) {
                set_length(&mut response, changed.len());
            }
            Body::from(changed)
        }
        _ => Body::from(whole),
    };
    *response.body_mut() = body;
    response
}

/// The bytes at `rate` bytes a second, in at most 100 pieces.
fn slow(whole: &Bytes, rate: u64) -> Body {
    let size = whole.len().div_ceil(100).max(1);
    let pieces: Vec<Bytes> =
        (0..whole.len()).step_by(size).map(|at| whole.slice(at..(at + size).min(whole.len()))).collect();
    let paced = stream::iter(pieces).then(move |piece| async move {
        let length = u32::try_from(piece.len()).expect("a piece is a hundredth of an answer");
        tokio::time::sleep(Duration::from_secs(1) * length / u32::try_from(rate.max(1)).unwrap_or(u32::MAX)).await;
        Ok::<_, io::Error>(piece)
    });
    StreamingBlob::wrap(paced).into()
}

/// The bytes one by one, each after a pause.
fn trickle(whole: Bytes, pause: Duration) -> Body {
    let bytes = stream::iter(0..whole.len()).then(move |at| {
        let byte = whole.slice(at..=at);
        async move {
            tokio::time::sleep(pause).await;
            Ok::<_, io::Error>(byte)
        }
    });
    StreamingBlob::wrap(bytes).into()
}
