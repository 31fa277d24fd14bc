//! A store whose answers do not end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame};
use rstest::rstest;
use s3_log_rollup::pass::Ended;

use crate::bench::{Bench, LOGS, done};

/// Far more than any answer may take.
const FLOOD: u64 = 512 << 20;
const CHUNK: u64 = 64 << 10;

/// Which requests are answered without end, by method and path with query.
type Meets = fn(&str, &str) -> bool;

/// What the answer begins like.
#[derive(Clone, Copy, Debug)]
struct Answer {
    status: u16,
    begins: &'static str,
    goes_on: u8,
    /// The length that it announces, if it does.
    length: Option<u64>,
}

/// The testbed behind a proxy that answers some requests without end.
#[derive(Clone, Debug)]
struct Endless {
    inner: SharedHttpClient,
    meets: Meets,
    answer: Answer,
    /// The longest that was read of one answer, in bytes.
    read: Arc<AtomicU64>,
    /// How many answers were such.
    met: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Connector {
    endless: Endless,
    inner: SharedHttpConnector,
}

impl HttpClient for Endless {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connector { endless: self.clone(), inner })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Endless { meets, answer, read, met, .. } = &self.endless;
        let path = request.uri().split_once("testbed.local").map_or("", |(_, path)| path).to_owned();
        if !meets(request.method(), &path) {
            return self.inner.call(request);
        }
        met.fetch_add(1, Ordering::Relaxed);
        let body = Flood { answer: *answer, sent: 0, read: Arc::clone(read) };
        let status = answer.status.try_into().expect("a status");
        let mut response = HttpResponse::new(status, SdkBody::from_body_1_x(body));
        if let Some(length) = answer.length {
            response.headers_mut().insert("content-length", length.to_string());
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

struct Flood {
    answer: Answer,
    sent: u64,
    read: Arc<AtomicU64>,
}

impl Body for Flood {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.sent >= FLOOD {
            return Poll::Ready(None);
        }
        let chunk = match self.sent {
            0 => Bytes::from_static(self.answer.begins.as_bytes()),
            _ => Bytes::from(vec![self.answer.goes_on; usize::try_from(CHUNK).expect("small")]),
        };
        self.sent += chunk.len() as u64;
        self.read.fetch_max(self.sent, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

const LISTING: &str = "<?xml version=\"1.0\"?><ListBucketResult><Contents><Key>";
const ERROR: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>";

fn answer(status: u16, begins: &'static str) -> Answer {
    Answer { status, begins, goes_on: b'x', length: None }
}

fn lists(_: &str, path: &str) -> bool {
    path.contains("list-type=2")
}

fn heads(method: &str, _: &str) -> bool {
    method == "HEAD"
}

fn puts(method: &str, path: &str) -> bool {
    method == "PUT" && path.contains("/rollup/2026")
}

fn deletes(_: &str, path: &str) -> bool {
    path.contains("?delete")
}

fn reads_a_log(method: &str, path: &str) -> bool {
    method == "GET" && path.contains("11-00-15")
}

fn reads_the_rollup(method: &str, path: &str) -> bool {
    method == "GET" && path.contains("/rollup/2026")
}

fn reads_a_manifest(method: &str, path: &str) -> bool {
    method == "GET" && path.contains("/_manifests/")
}

/// A pass with a manifest to settle, a rollup to append to and ten log objects, behind such a proxy: how it ended, and
/// the most that was read of one answer.
async fn pass(meets: Meets, answer: Answer) -> (Bench, Ended, u64) {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", "old\n");
    done(&bench.pass(&[("ROLLUP_KEEP", "true")]).await);
    for second in 10..20 {
        bench.log(&format!("logs/2026-01-31-11-00-{second}-A"), &format!("line {second}\n"));
    }
    let inner = bench.bed.http_client();
    let endless = Endless { inner, meets, answer, read: Arc::default(), met: Arc::default() };
    let ended = bench.pass_through(SharedHttpClient::new(endless.clone())).await;
    assert!(endless.met.load(Ordering::Relaxed) > 0, "nothing was answered without end");
    let read = endless.read.load(Ordering::Relaxed);
    (bench, ended, read)
}

#[rstest]
#[case::a_listing(lists, answer(200, LISTING))]
#[case::a_listing_that_is_refused(lists, answer(403, ERROR))]
#[case::a_listing_of_blanks(lists, Answer { goes_on: b' ', ..answer(200, LISTING) })]
#[case::elements_without_end(lists, Answer { goes_on: b'<', ..answer(200, LISTING) })]
#[case::an_error_of_a_head(heads, answer(500, ERROR))]
#[case::an_error_of_a_get(reads_a_log, answer(403, ERROR))]
#[case::an_error_of_a_put(puts, answer(400, ERROR))]
#[case::the_answer_of_a_put(puts, answer(200, "x"))]
#[case::the_answer_of_a_delete(deletes, answer(200, "<DeleteResult><Deleted><Key>"))]
#[case::a_log_object(reads_a_log, answer(200, "x"))]
#[case::the_old_rollup(reads_the_rollup, answer(200, "x"))]
#[case::a_manifest(reads_a_manifest, answer(200, "{"))]
#[case::a_manifest_that_says_how_long_it_is(
    reads_a_manifest,
    Answer { length: Some(100 << 30), ..answer(200, "{") }
)]
#[tokio::test(start_paused = true)]
async fn an_answer_without_end_ends_the_pass_with_an_error_in_bounded_memory_and_time(
    #[case] meets: Meets,
    #[case] answer: Answer,
) {
    let (bench, ended, read) = pass(meets, answer).await;
    assert!(read <= (16 << 20) + CHUNK, "{read} bytes of one answer were read");
    assert_ne!(ended.exit_code(), 0, "{:#?}", ended.report);
    assert!(ended.report.seconds < 600.0, "it took {} s", ended.report.seconds);
    done(&bench.pass(&[]).await);
    assert!(bench.bed.keys(LOGS).is_empty());
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn the_error_says_that_the_answer_does_not_end() {
    let (_, ended, _) = pass(lists, answer(200, LISTING)).await;
    let error = ended.error.expect("no listing, no pass").to_string();
    assert!(error.contains("longer than 16777216 bytes"), "{error}");
}
