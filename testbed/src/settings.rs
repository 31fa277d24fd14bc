//! How a testbed behaves from its start: latency, limits, and the ways in which other servers differ from S3.

use std::time::Duration;

/// The settings of a testbed. The default answers at once, without limits, as Amazon S3 would.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long every request takes beside its work: half of it before it is applied, half after.
    pub latency: Duration,
    /// A seed that makes every latency a random one between none and twice [`latency`](Self::latency), the same
    /// ones for the same seed and the same order of requests: another interleaving per seed.
    pub jitter: Option<u64>,
    /// S3's request limits; none by default.
    pub limits: Option<Limits>,
    /// What the testbed does unlike Amazon S3.
    pub quirks: Quirks,
    /// The region of buckets that name none.
    pub region: String,
    /// The account that owns the buckets, compared with `x-amz-expected-bucket-owner`.
    pub owner: String,
    /// The secret key that goes with every access key, [`SECRET_KEY`](crate::SECRET_KEY) by default.
    pub secret_key: String,
    /// Whether signatures are checked: any access key is good, with the secret key above. Off, requests are taken as unsigned, which is faster.
    pub check_signatures: bool,
    /// Whether every request is kept for [`requests`](crate::Testbed::requests); off, only the counts are.
    pub keep_requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: None,
            limits: None,
            quirks: Quirks::default(),
            region: "us-east-1".to_owned(),
            owner: "111122223333".to_owned(),
            secret_key: crate::SECRET_KEY.to_owned(),
            check_signatures: true,
            keep_requests: true,
        }
    }
}

/// Requests a second that a partition takes before it answers 503 `SlowDown`. Up to a second's worth may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// GET, HEAD and LIST requests a second for each partition.
    pub reads: f64,
    /// PUT, COPY, POST and DELETE requests a second for each partition; each key of `DeleteObjects` is one.
    pub writes: f64,
    /// How many partitions there are, at least 1. A key belongs to one by the hash of its folder: all before its last `/`.
    pub partitions: usize,
}

impl Limits {
    /// What S3 documents for one partitioned prefix: 5,500 reads and 3,500 writes a second.
    #[must_use]
    pub fn s3() -> Self {
        Self { reads: 5_500.0, writes: 3_500.0, partitions: 1 }
    }

    /// Both limits scaled down, for tests that cannot send thousands of requests a second.
    #[must_use]
    pub fn divided_by(self, divisor: f64) -> Self {
        Self { reads: self.reads / divisor, writes: self.writes / divisor, ..self }
    }

    /// The same limits for each of `partitions` partitions.
    #[must_use]
    pub fn partitions(self, partitions: usize) -> Self {
        Self { partitions, ..self }
    }
}

/// What other S3 servers were seen to do instead; all off by default.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each named after what it does")]
pub struct Quirks {
    /// `If-Match` and `If-None-Match` of a write are ignored: old servers.
    pub ignore_write_conditions: bool,
    /// `If-Match` and `ETag` of a delete are ignored: `MinIO`, versitygw.
    pub ignore_delete_conditions: bool,
    /// `UploadPartCopy` into an upload with CRC64NVME is answered 400 `InvalidArgument`: `MinIO`.
    pub refuse_checksum_with_copied_part: bool,
    /// `UploadPartCopy` makes a part with a wrong bit and names its checksum: a disk or a memory that is broken.
    pub damage_copied_parts: bool,
    /// `If-Match` of a write on a missing key is answered 412 instead of 404: `SeaweedFS`.
    pub if_match_on_missing_is_412: bool,
}

/// How a bucket is created. The default has no versions and stands in the testbed's own region.
#[derive(Clone, Debug, Default)]
pub struct BucketOptions {
    /// Whether writes and deletes keep what was there before as noncurrent versions.
    pub versioned: bool,
    /// The region; a request signed for another one is answered 301.
    pub region: Option<String>,
}
