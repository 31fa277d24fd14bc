//! The S3 verbs that the program uses, each with its retries; the only place that knows the SDK.
//!
//! A request is one attempt after another until it succeeds, is refused for good, or has been tried
//! nine times. What a refusal means for a rollup is not decided here.

mod bounded;
mod connect;
mod delete;
mod failure;
mod list;
mod read;
mod sample;
mod traffic;
mod uploads;
mod whole;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::Client;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use aws_config::SdkConfig;
pub use connect::{client, sdk_config};
pub use delete::{DELETE_KEYS, NotDeleted};
pub use failure::{Failure, Kind};
pub use list::{Object, Page, Start};
pub use read::{Attributes, Head};
use sample::Sample;
pub use traffic::{Counts, Operation, Traffic};
pub use uploads::{Begun, Part};
pub use write::{Condition, crc_header};

/// Attempts at one request. With full jitter on 0.1 s doubling up to 10 s they last about 20 s.
const ATTEMPTS: u32 = 9;
/// The attempt at a listing after which the user is told why it takes so long.
const SAID: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long one attempt may take, apart from its body.
const ATTEMPT: Duration = Duration::from_mins(1);
/// Copying 5 GiB, and completing an upload of many parts, take S3 minutes.
const LONG_ATTEMPT: Duration = Duration::from_mins(10);
/// A body slower than this many bytes a second is given up.
const SLOWEST: u64 = 50_000;
/// The metadata entry that names the batch which last changed a rollup.
const BATCH: &str = "rollup-batch";

/// One bucket.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    bucket: Arc<str>,
    traffic: Arc<Traffic>,
    sample: Sample,
}

impl Store {
    /// A bucket, reached by this client.
    #[must_use]
    pub fn new(client: Client, bucket: &str, traffic: Arc<Traffic>) -> Self {
        Self { client, bucket: bucket.into(), traffic, sample: Sample::default() }
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What was asked so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// One request, tried until it succeeds or is refused for good.
    async fn ask<T, F>(
        &self,
        operation: Operation,
        key: Option<&str>,
        time: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.ask_of((operation, key), None, time, attempt).await
    }

    /// The same of a request for so many keys, at the pace for them.
    async fn ask_of<T, F>(
        &self,
        (operation, key): (Operation, Option<&str>),
        keys: Option<usize>,
        time: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let limit = if operation.writes() { &self.traffic.writes } else { &self.traffic.reads };
        let mut ambiguous = false;
        for number in 1.. {
            let paced = match keys {
                Some(keys) => Some((keys, self.traffic.deletes.wait(keys).await)),
                None => None,
            };
            let permit = limit.acquire().await;
            self.traffic.counts.count(operation);
            let answer = tokio::time::timeout(time, attempt()).await.unwrap_or_else(|_| {
                let what = format!("no answer within {} s", time.as_secs());
                Err(self.broken(Kind::NoAnswer, operation, key, &what).ambiguous_if(true))
            });
            let failure = match answer {
                Ok(answer) => {
                    permit.answered();
                    if let Some((keys, _)) = paced {
                        self.traffic.deletes.taken(keys);
                    }
                    return Ok(answer);
                }
                Err(failure) => failure.ambiguous_if(ambiguous),
            };
            let throttled = failure.kind == Kind::Throttled;
            if throttled {
                self.traffic.counts.throttled.fetch_add(1, Ordering::Relaxed);
            }
            match paced {
                // Too many keys, not too many requests.
                Some((_, since)) if throttled => self.traffic.deletes.throttled(since),
                None if throttled => permit.throttled(),
                _ => permit.answered(),
            }
            if !failure.transient() || number == ATTEMPTS {
                return Err(failure);
            }
            if number == SAID && operation == Operation::ListObjectsV2 {
                tracing::warn!("trying again: {failure}");
            } else {
                tracing::debug!(attempt = number, "{failure}");
            }
            ambiguous = failure.ambiguous;
            pause(number).await;
        }
        unreachable!("the loop ends with its last attempt")
    }

    fn failure<E>(
        &self,
        error: aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
        operation: Operation,
        key: Option<&str>,
    ) -> Failure
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        Failure::of(error, operation, &self.bucket, key)
    }

    fn broken(&self, kind: Kind, operation: Operation, key: Option<&str>, what: &str) -> Failure {
        let ambiguous = kind == Kind::NoAnswer;
        Failure::new(kind, operation, &self.bucket, key, what).ambiguous_if(ambiguous)
    }
}

/// Exponential backoff with full jitter.
pub async fn pause(attempt: u32) {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
}
