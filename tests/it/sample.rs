//! GETs of sources are made like one of the SDK's, and no different.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use s3_log_rollup::pass::Ended;
use testbed::{FaultKind, Operation, Recorded, When};
use tokio::sync::watch;

use crate::bench::{Bench, LOGS, OUT, config, done};
use crate::sources::small;

/// GETs of sources: the key, the status, and whether the SDK sent it itself.
fn gets(bench: &Bench) -> Vec<(String, Option<u16>, bool)> {
    let gets = bench.bed.requests().into_iter().filter(|request| request.operation == Operation::GetObject);
    let gets = gets.filter(|request| request.bucket.as_deref() == Some(LOGS));
    gets.map(|Recorded { key, status, numbered, .. }| (key.unwrap_or_default(), status, numbered)).collect()
}

/// A checked signature is of the address as it was written, so a key that is written in another way than S3's is refused.
#[tokio::test(start_paused = true)]
async fn keys_of_every_kind_are_read_by_requests_that_the_sdk_has_not_put_together() {
    let mut bench = Bench::new();
    let groups = [
        "",
        "a b/",
        "a+b/",
        "50%/",
        "50%25/",
        "what?x=y&z#/",
        "ü/日本/",
        "a//b/",
        "./../",
        "~!$'()*,;:@=[]{}|^\\\"<>`/",
        "tab\t/",
    ];
    for (group, second) in groups.iter().zip(10..) {
        bench.log(&format!("logs/{group}2026-01-31-10-00-{second}-A"), &format!("line {second}\n"));
    }
    done(&bench.pass(&[]).await);
    bench.balanced();
    let gets = gets(&bench);
    assert_eq!(gets.len(), groups.len(), "{gets:#?}");
    for (key, status, of_the_sdk) in gets {
        assert_eq!((status, of_the_sdk), (Some(200), false), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn old_rollups_are_read_in_the_same_way() {
    let mut bench = Bench::new();
    bench.bed.put(OUT, "rollup/2026-01-31", "what is there already\n");
    bench.log("logs/2026-01-31-10-00-10-A", "line\n");
    done(&bench.pass(&[]).await);
    let of_the_rollup = bench.bed.requests().into_iter().filter(|request| {
        request.operation == Operation::GetObject && request.key.as_deref() == Some("rollup/2026-01-31")
    });
    assert_eq!(of_the_rollup.map(|request| request.numbered).collect::<Vec<_>>(), [false]);
    assert_eq!(bench.text("2026-01-31"), "what is there already\nline\n");
}

/// The SDK reads what it has not sent: it is not asked for twice.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_the_object_costs_no_second_request() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    let key = "logs/2026-01-31-10-00-15-A";
    let reads = When::operation(Operation::GetObject).bucket(LOGS).key(key);
    bench.bed.fault(reads.clone(), FaultKind::Status(403, "InvalidObjectState"));
    let ended = bench.pass(&[]).await;
    assert_eq!(ended.exit_code(), 0, "{:#?}", ended.report);
    assert_eq!(ended.report.left["archived, to be restored first"].examples, [key]);
    assert_eq!(gets(&bench).len(), 10);
    bench.once();

    bench.bed.forget_requests();
    bench.bed.fault(reads, FaultKind::Status(503, "SlowDown"));
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(ended.report.throttled, 1);
    assert_eq!(gets(&bench).len(), 2);
    bench.balanced();
}

/// Credentials that are to be renewed as soon as they are there. It counts them, and has no more than this.
#[derive(Clone, Debug)]
struct Fleeting(Arc<AtomicU64>, u64);

impl ProvideCredentials for Fleeting {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        if self.0.fetch_add(1, Ordering::Relaxed) >= self.1 {
            let gone = CredentialsError::provider_error("the role was taken away");
            return future::ProvideCredentials::ready(Err(gone));
        }
        let (token, expiry) = (Some(String::from("token")), Some(SystemTime::now() + Duration::from_secs(1)));
        let credentials = Credentials::new("AKIATESTBED", testbed::SECRET_KEY, token, expiry, "test");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn with_credentials(bench: &Bench, provider: Fleeting) -> Ended {
    let sdk = bench.sdk().into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build();
    let (_stop, stop) = watch::channel(false);
    bench.run(config(&[("ROLLUP_CONCURRENCY", "1")]), sdk, 1, stop).await
}

#[tokio::test(start_paused = true)]
async fn each_get_is_signed_with_credentials_that_are_fresh() {
    let mut bench = Bench::new();
    small(&mut bench, 10..40);
    let provider = Fleeting(Arc::default(), u64::MAX);
    done(&with_credentials(&bench, provider.clone()).await);
    bench.balanced();
    let (asked, read) = (provider.0.load(Ordering::Relaxed), gets(&bench).len());
    assert!(asked >= 30 && read == 30, "credentials {asked} times for {read} reads");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_renewed_end_the_pass_at_the_first_get_that_needs_them() {
    let mut bench = Bench::new();
    small(&mut bench, 10..40);
    // Enough to come to the sources, as the test above has it.
    let all = Fleeting(Arc::default(), u64::MAX);
    done(&with_credentials(&bench.copy(), all.clone()).await);
    let to_come_as_far = all.0.load(Ordering::Relaxed) / 2;
    let ended = with_credentials(&bench, Fleeting(Arc::default(), to_come_as_far)).await;
    assert_eq!(ended.exit_code(), 3, "{:#?}", ended.report);
    let error = ended.error.expect("it ended with one").to_string();
    assert!(error.starts_with("GetObject") && error.contains("the role was taken away"), "{error}");
    assert!(!gets(&bench).is_empty() && gets(&bench).len() < 30);
    bench.once();
}
