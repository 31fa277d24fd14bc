//! The requests by their names, and how many of them and of their bytes there were.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limit::Limit;
use crate::pace::Pace;

/// The requests of this program, by S3's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they are S3's own")]
pub enum Operation {
    ListObjectsV2,
    GetObject,
    HeadObject,
    GetObjectTagging,
    PutObject,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
    DeleteObject,
    DeleteObjects,
}

impl Operation {
    const ALL: [Self; 13] = [
        Self::ListObjectsV2,
        Self::GetObject,
        Self::HeadObject,
        Self::GetObjectTagging,
        Self::PutObject,
        Self::CreateMultipartUpload,
        Self::UploadPart,
        Self::UploadPartCopy,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::ListMultipartUploads,
        Self::DeleteObject,
        Self::DeleteObjects,
    ];

    /// The permission it needs.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::ListObjectsV2 => "s3:ListBucket",
            Self::GetObject | Self::HeadObject => {
                "s3:GetObject (and kms:Decrypt, where the bucket is encrypted with KMS)"
            }
            Self::GetObjectTagging => "s3:GetObjectTagging",
            Self::PutObject
            | Self::CreateMultipartUpload
            | Self::UploadPart
            | Self::UploadPartCopy
            | Self::CompleteMultipartUpload => {
                "s3:PutObject (and kms:GenerateDataKey and kms:Decrypt, where the bucket is encrypted with KMS)"
            }
            Self::AbortMultipartUpload => "s3:AbortMultipartUpload",
            Self::ListMultipartUploads => "s3:ListBucketMultipartUploads",
            Self::DeleteObject | Self::DeleteObjects => "s3:DeleteObject",
        }
    }

    /// A refusal may be of the one object.
    #[must_use]
    pub fn reads_an_object(self) -> bool {
        matches!(self, Self::GetObject | Self::HeadObject | Self::GetObjectTagging)
    }

    pub(super) fn writes(self) -> bool {
        !self.reads_an_object() && !matches!(self, Self::ListObjectsV2 | Self::ListMultipartUploads)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What was asked so far, attempts included.
#[derive(Debug, Default)]
pub struct Counts {
    requests: [AtomicU64; Operation::ALL.len()],
    pub(super) throttled: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Counts {
    /// Requests by kind, attempts that failed included.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<Operation, u64> {
        let counts = Operation::ALL.iter().zip(&self.requests);
        counts.map(|(op, count)| (*op, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0).collect()
    }

    /// How often S3 said `SlowDown`.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of objects received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, operation: Operation) {
        self.requests[operation as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What both buckets of a pass share: the limits on requests in flight, and the counts.
#[derive(Debug)]
pub struct Traffic {
    /// LIST, GET, HEAD.
    pub reads: Limit,
    /// PUT, POST, COPY, DELETE.
    pub writes: Limit,
    /// Keys of `DeleteObjects`.
    pub deletes: Pace,
    /// What was asked.
    pub counts: Counts,
}
