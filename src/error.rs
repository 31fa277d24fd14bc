//! Why a pass ended early, and the one mapping of that to an exit code.

use crate::config::ConfigErrors;
use crate::plan::EventTimeKeys;
use crate::store::{Failure, Kind};

/// Why the program ended before its pass was over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are wrong; nothing was requested.
    #[error("{0}")]
    Configuration(#[from] ConfigErrors),
    /// The command line.
    #[error("{0:?} is no argument: settings are environment variables. Try --help")]
    Argument(String),
    /// Found while listing.
    #[error("{0}")]
    EventTimeKeys(#[from] EventTimeKeys),
    /// `AWS_CA_BUNDLE` is of no use.
    #[error("AWS_CA_BUNDLE={path}: {why}")]
    CaBundle {
        /// Its value.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store does not enforce conditional writes.
    #[error(
        "s3://{bucket} accepted {what} although its condition fails, so two runs at once could lose lines. Use a store \
         that enforces conditional writes, or state that runs never overlap with ROLLUP_ASSUME_NO_OVERLAP=true"
    )]
    ConditionsIgnored {
        /// The destination.
        bucket: String,
        /// The request.
        what: String,
    },
    /// No credentials at all.
    #[error(
        "no credentials were found. Tried, in this order: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the profile \
         (AWS_PROFILE, with SSO too); AWS_WEB_IDENTITY_TOKEN_FILE (IRSA); AWS_CONTAINER_CREDENTIALS_FULL_URI (EKS Pod \
         Identity, ECS); the EC2 instance's role. What they answered: {0}"
    )]
    NoCredentials(String),
    /// What a run with another layout left cannot be settled.
    #[error(
        "{rollup} was written by a run with another level or template, and its sources could not be deleted ({why}). \
         Nothing was rolled up, since their lines would be in two rollups; run again"
    )]
    Unsettled {
        /// That rollup's key.
        rollup: String,
        /// Why.
        why: String,
    },
    /// `ROLLUP_CHECK` found that the store does not give back what was written.
    #[error("s3://{bucket}/{key} was written, but {what}. Use a store that keeps objects as they are")]
    Unfaithful {
        /// The destination.
        bucket: String,
        /// The probe's key.
        key: String,
        /// What is wrong.
        what: &'static str,
    },
    /// `ROLLUP_CHECK` took too long.
    #[error("{0}; check the network, the proxy and the endpoint")]
    Timeout(String),
    /// The operating system refused what the program runs on.
    #[error("the program cannot start: {0}")]
    Runtime(#[from] std::io::Error),
    /// A request that the pass cannot do without.
    #[error("{0}")]
    Store(#[from] Failure),
}

impl Error {
    /// 1: run again; 2: a setting; 3: a permission, a bucket, credentials: running again cannot help.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_)
            | Self::Argument(_)
            | Self::EventTimeKeys(_)
            | Self::CaBundle { .. }
            | Self::ConditionsIgnored { .. }
            | Self::Unfaithful { .. } => 2,
            Self::NoCredentials(_) => 3,
            Self::Store(failure) if failure.kind == Kind::Certificate => 2,
            Self::Store(failure) if failure.hopeless() => 3,
            Self::Runtime(_) | Self::Timeout(_) | Self::Unsettled { .. } | Self::Store(_) => 1,
        }
    }
}
