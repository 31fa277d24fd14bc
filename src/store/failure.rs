//! What can go wrong with a request, told apart by what the program does about it.

use std::error::Error as StdError;
use std::{fmt, io};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::Operation;
use super::connect::Unanswered;
use crate::shown::shown;

/// A request that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Failure {
    /// What follows from it.
    pub kind: Kind,
    /// The request.
    pub operation: Operation,
    /// The bucket it went to.
    pub bucket: String,
    /// The key, where it had one.
    pub key: Option<String>,
    /// An earlier or the last attempt may have been applied although it was not answered.
    pub ambiguous: bool,
    /// S3's code and message, or the network's.
    pub detail: String,
}

/// What kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 404 of an object or an upload.
    Missing,
    /// 404 of the bucket.
    NoSuchBucket,
    /// 403; for a HEAD or GET it may hide a 404 from who may not list.
    Denied,
    /// 412.
    Condition,
    /// 409.
    Conflict,
    /// 403 `InvalidObjectState`: archived, it cannot be read.
    Archived,
    /// 301, 307, 400: the bucket is in another region, which S3 may have named.
    Elsewhere(Option<String>),
    /// No credentials, or such as S3 does not know or takes for expired.
    Credentials,
    /// The endpoint's certificate is not trusted, or not its own.
    Certificate,
    /// The clocks of this machine and of S3 are too far apart.
    Clock,
    /// 503 or 429: asked too often.
    Throttled,
    /// Any other 5xx.
    Server,
    /// No answer, half an answer, or one that cannot be read.
    NoAnswer,
    /// The body is not what was announced or listed.
    Damaged,
    /// S3 found that the bytes are not those of the checksum.
    Checksum,
    /// Any other refusal.
    Refused,
}

impl Failure {
    /// Would asking again help?
    #[must_use]
    pub fn transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Server | Kind::NoAnswer | Kind::Damaged)
    }

    /// Would another run meet the same, whatever the object?
    #[must_use]
    pub fn hopeless(&self) -> bool {
        match self.kind {
            Kind::NoSuchBucket | Kind::Elsewhere(_) | Kind::Credentials | Kind::Certificate | Kind::Clock => true,
            Kind::Denied => !self.operation.reads_an_object(),
            _ => false,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is the end of the SDK's error")]
    pub(super) fn of<E>(error: SdkError<E, HttpResponse>, operation: Operation, bucket: &str, key: Option<&str>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let region = error
            .raw_response()
            .and_then(|response| response.headers().get("x-amz-bucket-region"))
            .map(ToOwned::to_owned);
        let code = error.code().map(ToOwned::to_owned);
        let kind = match &error {
            SdkError::ServiceError(_) => kind(operation, status.unwrap_or(0), code.as_deref(), region),
            _ if mentions_credentials(&error) => Kind::Credentials,
            _ if refuses_certificate(&error) => Kind::Certificate,
            _ => Kind::NoAnswer,
        };
        let detail = match (&code, error.message(), status) {
            (Some(code), Some(message), _) => format!("{code}: {message}"),
            (Some(code), None, _) => code.clone(),
            (None, _, Some(status)) if matches!(error, SdkError::ServiceError(_)) => format!("HTTP status {status}"),
            _ => unanswered(&error),
        };
        let ambiguous = matches!(kind, Kind::NoAnswer | Kind::Server);
        Self::new(kind, operation, bucket, key, &detail).ambiguous_if(ambiguous)
    }

    pub(super) fn new(kind: Kind, operation: Operation, bucket: &str, key: Option<&str>, detail: &str) -> Self {
        Self {
            kind,
            operation,
            bucket: bucket.to_owned(),
            key: key.map(ToOwned::to_owned),
            ambiguous: false,
            detail: shown(detail).to_string(),
        }
    }

    pub(super) fn ambiguous_if(mut self, ambiguous: bool) -> Self {
        self.ambiguous |= ambiguous;
        self
    }
}

fn kind(operation: Operation, status: u16, code: Option<&str>, region: Option<String>) -> Kind {
    match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => Kind::NoSuchBucket,
        ("InvalidObjectState", _) => Kind::Archived,
        ("RequestTimeTooSkewed", _) => Kind::Clock,
        (
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired"
            // versitygw's word for the first of them, with status 404.
            | "XAdminUserNotFound",
            _,
        ) => Kind::Credentials,
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 307) => Kind::Elsewhere(region),
        ("SlowDown" | "RequestLimitExceeded" | "ThrottlingException" | "Throttling", _) | (_, 429 | 503) => {
            Kind::Throttled
        }
        // Asked again, the store still would not know how.
        ("NotImplemented", _) | (_, 501) => Kind::Refused,
        ("RequestTimeout", _) => Kind::NoAnswer,
        ("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch", _) => Kind::Checksum,
        // A multipart upload that S3 itself cannot finish answers 200 with an error in the body.
        ("InternalError", _) | (_, 200 | 500..) => Kind::Server,
        // Not S3's own answer: somebody's in between, and it says nothing of the object.
        (code, 404) if operation == Operation::GetObject && code != "NoSuchKey" => Kind::NoAnswer,
        (_, 404) => Kind::Missing,
        (_, 403 | 401) => Kind::Denied,
        (_, 412) => Kind::Condition,
        (_, 409) => Kind::Conflict,
        _ => Kind::Refused,
    }
}

fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn StdError + 'static)| (*error).source())
}

fn mentions_credentials(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(<dyn std::error::Error + 'static>::is::<aws_credential_types::provider::error::CredentialsError>)
}

fn refuses_certificate(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| {
        // The source of an I/O error is its payload's source, not its payload.
        let mut payload = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        while let Some(nested) = payload.and_then(|error| error.downcast_ref::<io::Error>()) {
            payload = nested.get_ref();
        }
        let tls = payload.and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    })
}

/// The endpoint and everything that went wrong on the way to it; of other errors the innermost says most.
fn unanswered(error: &(dyn StdError + 'static)) -> String {
    let whys: Vec<_> = chain(error).skip_while(|error| !error.is::<Unanswered>()).map(ToString::to_string).collect();
    if whys.is_empty() { chain(error).last().map_or_else(String::new, ToString::to_string) } else { whys.join(": ") }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, operation, bucket, key, detail, .. } = self;
        write!(f, "{operation} s3://{bucket}")?;
        if let Some(key) = key {
            write!(f, "/{}", shown(key))?;
        }
        write!(f, " failed: {detail}")?;
        match kind {
            Kind::Denied => write!(f, "; allow {} there", operation.action()),
            Kind::NoSuchBucket => write!(f, "; check the bucket's name, its account and the endpoint"),
            Kind::Elsewhere(Some(region)) => {
                let region = shown(region);
                write!(f, "; the bucket {bucket} is in the region {region}: set AWS_REGION={region}")
            }
            Kind::Elsewhere(None) => write!(f, "; the bucket {bucket} is in another region: set AWS_REGION to it"),
            Kind::Credentials => write!(
                f,
                "; the credentials are refused: check the access key and its secret, log in again (SSO), or see why the \
                 role's token is not fresh"
            ),
            Kind::Certificate => write!(
                f,
                "; if the endpoint is the right one, name a PEM file with its certificate authority in AWS_CA_BUNDLE, \
                 which is then trusted instead of the system's"
            ),
            Kind::Clock => write!(f, "; set this machine's clock"),
            Kind::Archived => write!(f, "; restore the object first (RestoreObject), or let it lie"),
            Kind::Throttled | Kind::Server => write!(f, "; tried again in vain: run again later"),
            Kind::NoAnswer if detail.contains("tunnel error") => write!(
                f,
                "; the proxy of HTTPS_PROXY does not let it through: check the proxy, or name the endpoint's host in NO_PROXY"
            ),
            Kind::NoAnswer => write!(f, "; check the network, the proxy and the endpoint, then run again"),
            Kind::Damaged => write!(f, "; the object or the connection is damaged"),
            Kind::Checksum => write!(f, "; nothing was written, run again"),
            Kind::Missing | Kind::Condition | Kind::Conflict | Kind::Refused => Ok(()),
        }
    }
}
