//! The S3 verbs that the program uses, each with its retries; the only place that knows the SDK.
//!
//! A request is one attempt after another until it succeeds, is refused for good, or has been tried
//! nine times. What a refusal means for a rollup is not decided here.

mod connect;
mod failure;
mod whole;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ArchiveStatus, ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete,
    EncodingType, ObjectIdentifier, ObjectStorageClass, StorageClass,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub use aws_config::SdkConfig;
pub use connect::{client, sdk_config};
pub use failure::{Failure, Kind};

use crate::limit::Limit;
use crate::plan::{Listed, Storage};
use crate::source::{ETag, Source};

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
/// Keys of one `DeleteObjects`. S3 takes 1,000, and counts each as a write: smaller batches avoid storms of `SlowDown`.
pub const DELETE_KEYS: usize = 250;
/// The metadata entry that names the batch which last changed a rollup.
const BATCH: &str = "rollup-batch";
/// The most bytes of a manifest that are read: a million entries of the longest keys stay below.
const LARGEST_MANIFEST: u64 = 2 << 30;

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
    DeleteObject,
    DeleteObjects,
}

impl Operation {
    const ALL: [Self; 12] = [
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
            Self::DeleteObject | Self::DeleteObjects => "s3:DeleteObject",
        }
    }

    /// A refusal may be of the one object.
    #[must_use]
    pub fn reads_an_object(self) -> bool {
        matches!(self, Self::GetObject | Self::HeadObject | Self::GetObjectTagging)
    }

    fn writes(self) -> bool {
        !self.reads_an_object() && self != Self::ListObjectsV2
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
    throttled: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
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

    fn count(&self, operation: Operation) {
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
    /// What was asked.
    pub counts: Counts,
}

/// One bucket.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    bucket: Arc<str>,
    traffic: Arc<Traffic>,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first key of the prefix.
    First,
    /// Behind this key.
    After(String),
    /// Where S3's token says.
    Token(String),
}

/// An object of a listing.
#[derive(Debug)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its tag.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// Can it be read?
    pub storage: Storage,
}

impl Object {
    /// What the plan wants to know of it.
    #[must_use]
    pub fn listed(&self) -> Listed<'_> {
        Listed { key: &self.key, etag: self.etag.clone(), size: self.size, storage: self.storage }
    }
}

/// A page of a listing.
#[derive(Debug)]
pub struct Page {
    /// At most 1,000 objects, in key order.
    pub objects: Vec<Object>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
}

/// Properties of a rollup that an append keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// User metadata but for the batch.
    pub metadata: BTreeMap<String, String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Storage class.
    pub storage_class: Option<String>,
    /// Tags, as `x-amz-tagging` wants them.
    pub tagging: Option<String>,
}

/// What HEAD says of a rollup.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its tag.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// The batch that last changed it, as text.
    pub batch: Option<String>,
    /// CRC64NVME of the whole, where S3 shows one.
    pub crc: Option<u64>,
    /// It cannot be read nor copied before it is restored.
    pub archived: bool,
    /// The bucket is versioned.
    pub versioned: bool,
    /// How many tags it has.
    pub tags: u32,
    /// What an append keeps; tags are asked for apart.
    pub attributes: Attributes,
}

impl Head {
    /// What an own commit has made of a rollup.
    #[must_use]
    pub fn written(etag: ETag, size: u64, crc: Option<u64>, attributes: Attributes) -> Self {
        Self { etag, size, batch: None, crc, archived: false, versioned: false, tags: 0, attributes }
    }
}

/// The condition of a write.
#[derive(Clone, Debug)]
pub enum Condition {
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`
    Unchanged(ETag),
}

impl Condition {
    fn headers(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Absent => (Some(String::from("*")), None),
            Self::Unchanged(etag) => (None, Some(etag.quoted())),
        }
    }
}

/// A part that was sent or copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u16,
    /// Its tag.
    pub etag: String,
    /// Its CRC64NVME, where the upload has checksums.
    pub crc: Option<String>,
}

/// A key that `DeleteObjects` did not confirm as gone.
#[derive(Clone, Debug)]
pub struct NotDeleted {
    /// Its place in the request.
    pub at: usize,
    /// Why.
    pub failure: Failure,
}

/// The 64 bits as S3 writes them: big-endian, base64.
#[must_use]
pub fn crc_header(crc: u64) -> String {
    BASE64.encode(crc.to_be_bytes())
}

fn parse_crc(text: &str) -> Option<u64> {
    BASE64.decode(text).ok()?.try_into().ok().map(u64::from_be_bytes)
}

/// What stands for itself in the value of `x-amz-copy-source` (RFC 3986, section 2.3, and the slash).
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Store {
    /// A bucket, reached by this client.
    #[must_use]
    pub fn new(client: Client, bucket: &str, traffic: Arc<Traffic>) -> Self {
        Self { client, bucket: bucket.into(), traffic }
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

    /// A page of objects under `prefix`. The prefix is sent even where it is empty, since policies look at it.
    pub async fn list(&self, prefix: &str, start: &Start) -> Result<Page, Failure> {
        self.list_at_most(prefix, start, None).await
    }

    /// Is there an object of that very key? Answers also who may list but not read.
    pub async fn find(&self, key: &str) -> Result<bool, Failure> {
        let page = self.list_at_most(key, &Start::First, Some(1)).await?;
        Ok(page.objects.first().is_some_and(|object| object.key == key))
    }

    /// The failure of a listing that names the same continuation again and would never end.
    #[must_use]
    pub fn does_not_advance(&self, prefix: &str) -> Failure {
        let what = "the listing repeats itself: the store names the same continuation again";
        self.broken(Kind::NoAnswer, Operation::ListObjectsV2, Some(prefix), what)
    }

    async fn list_at_most(&self, prefix: &str, start: &Start, most: Option<i32>) -> Result<Page, Failure> {
        self.ask(Operation::ListObjectsV2, None, ATTEMPT, async || {
            let request = self.client.list_objects_v2().bucket(&*self.bucket).prefix(prefix);
            let request = request.encoding_type(EncodingType::Url).set_max_keys(most);
            let request = match start {
                Start::First => request,
                Start::After(key) => request.start_after(key),
                Start::Token(token) => request.continuation_token(token),
            };
            let page = request.send().await.map_err(|e| self.failure(e, Operation::ListObjectsV2, None))?;
            let encoded = page.encoding_type == Some(EncodingType::Url);
            let objects = page.contents.unwrap_or_default().into_iter().filter_map(|object| listed(object, encoded));
            let objects = objects.collect();
            let next = page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
            if page.is_truncated == Some(true) && next.is_none() {
                let what = "the page says that more follow but names no token";
                return Err(self.broken(Kind::NoAnswer, Operation::ListObjectsV2, None, what));
            }
            Ok(Page { objects, next })
        })
        .await
    }

    /// The bytes `range` (first, length) of an object, or all `size` of it, if it still has this tag.
    ///
    /// Request, body and length are one unit that is tried again as one.
    pub async fn get(
        &self,
        key: &str,
        etag: Option<&ETag>,
        range: Option<(u64, u64)>,
        size: u64,
    ) -> Result<Bytes, Failure> {
        let expected = range.map_or(size, |(_, length)| length);
        let time = ATTEMPT + Duration::from_secs(expected / SLOWEST);
        self.ask(Operation::GetObject, Some(key), time, async || {
            let request = self.client.get_object().bucket(&*self.bucket).key(key);
            let request = request.checksum_mode(ChecksumMode::Enabled).set_if_match(etag.map(ETag::quoted));
            let range = range.map(|(first, length)| format!("bytes={first}-{}", first + length - 1));
            let object = request.set_range(range).send().await;
            let object = object.map_err(|e| self.failure(e, Operation::GetObject, Some(key)))?;
            let found = self.tag(key, object.e_tag.as_deref())?;
            if etag.is_some_and(|listed| found != *listed) {
                return Err(self.broken(Kind::Condition, Operation::GetObject, Some(key), "it is another object now"));
            }
            let body = self.body(key, object.body, expected).await?;
            if (body.len() as u64) < expected {
                let what = format!("{} bytes came instead of {expected}", body.len());
                return Err(self.broken(Kind::Damaged, Operation::GetObject, Some(key), &what));
            }
            Ok(body)
        })
        .await
    }

    /// S3 names the tag of whatever it reads. Without one the answer is somebody's in between, and its body, which may
    /// even be of the right length, is not the object's.
    fn tag(&self, key: &str, etag: Option<&str>) -> Result<ETag, Failure> {
        let without = || self.broken(Kind::NoAnswer, Operation::GetObject, Some(key), "the answer names no ETag");
        etag.map(ETag::new).ok_or_else(without)
    }

    /// The whole body; an error as soon as it is longer than `most`.
    async fn body(&self, key: &str, mut body: ByteStream, most: u64) -> Result<Bytes, Failure> {
        let damaged = |what: &str| self.broken(Kind::Damaged, Operation::GetObject, Some(key), what);
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| damaged(&format!("the body broke off: {error}")))?;
            self.traffic.counts.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if (first.len() + joined.len() + chunk.len()) as u64 > most {
                return Err(damaged(&format!("more than {most} bytes came")));
            }
            if first.is_empty() && joined.is_empty() {
                first = chunk;
            } else {
                if joined.is_empty() {
                    joined.extend_from_slice(&first);
                    first = Bytes::new();
                }
                joined.extend_from_slice(&chunk);
            }
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }

    /// The bytes of an object of unknown length: a manifest.
    pub async fn get_small(&self, key: &str) -> Result<Bytes, Failure> {
        self.ask(Operation::GetObject, Some(key), LONG_ATTEMPT, async || {
            let request = self.client.get_object().bucket(&*self.bucket).key(key);
            let object = request.checksum_mode(ChecksumMode::Enabled).send().await;
            let object = object.map_err(|e| self.failure(e, Operation::GetObject, Some(key)))?;
            self.tag(key, object.e_tag.as_deref())?;
            let length = object.content_length.and_then(|length| u64::try_from(length).ok());
            let body = self.body(key, object.body, length.unwrap_or(LARGEST_MANIFEST)).await?;
            if length.is_some_and(|length| length != body.len() as u64) {
                return Err(self.broken(Kind::Damaged, Operation::GetObject, Some(key), "the body broke off"));
            }
            Ok(body)
        })
        .await
    }

    /// What S3 knows of a rollup.
    pub async fn head(&self, key: &str) -> Result<Head, Failure> {
        self.ask(Operation::HeadObject, Some(key), ATTEMPT, async || {
            let request = self.client.head_object().bucket(&*self.bucket).key(key).checksum_mode(ChecksumMode::Enabled);
            let head = request.send().await.map_err(|e| self.failure(e, Operation::HeadObject, Some(key)))?;
            parse_head(head).ok_or_else(|| {
                self.broken(Kind::NoAnswer, Operation::HeadObject, Some(key), "ETag or length are missing")
            })
        })
        .await
    }

    /// The tag that stands under a key.
    pub async fn head_etag(&self, key: &str) -> Result<ETag, Failure> {
        self.head(key).await.map(|head| head.etag)
    }

    /// An object's tags, as `x-amz-tagging` wants them.
    pub async fn tagging(&self, key: &str) -> Result<String, Failure> {
        self.ask(Operation::GetObjectTagging, Some(key), ATTEMPT, async || {
            let request = self.client.get_object_tagging().bucket(&*self.bucket).key(key);
            let tags = request.send().await.map_err(|e| self.failure(e, Operation::GetObjectTagging, Some(key)))?;
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let pairs = tags.tag_set().iter().map(|tag| format!("{}={}", encode(tag.key()), encode(tag.value())));
            Ok(pairs.collect::<Vec<_>>().join("&"))
        })
        .await
    }

    /// Writes an object in one request and returns its tag. `batch` goes into its metadata.
    pub async fn put(
        &self,
        key: &str,
        body: &Bytes,
        crc: u64,
        condition: &Condition,
        named: Option<(&Attributes, &str)>,
    ) -> Result<ETag, Failure> {
        let time = ATTEMPT + Duration::from_secs(body.len() as u64 / SLOWEST);
        self.ask(Operation::PutObject, Some(key), time, async || {
            let (if_none_match, if_match) = condition.headers();
            let mut request = self.client.put_object().bucket(&*self.bucket).key(key);
            if let Some((attributes, batch)) = named {
                request = request
                    .set_metadata(Some(metadata(attributes, batch)))
                    .set_content_type(attributes.content_type.clone())
                    .set_storage_class(attributes.storage_class.as_deref().map(StorageClass::from))
                    .set_tagging(attributes.tagging.clone());
            }
            let request = request
                .set_if_none_match(if_none_match)
                .set_if_match(if_match)
                .checksum_crc64_nvme(crc_header(crc))
                .body(body.clone().into());
            self.traffic.counts.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
            let put = request.send().await.map_err(|e| self.failure(e, Operation::PutObject, Some(key)))?;
            put.e_tag
                .as_deref()
                .map(ETag::new)
                .ok_or_else(|| self.broken(Kind::NoAnswer, Operation::PutObject, Some(key), "the ETag is missing"))
        })
        .await
    }

    /// Begins an upload. With `checksum`, S3 will compare the whole object's CRC64NVME at the end.
    pub async fn create_upload(
        &self,
        key: &str,
        named: Option<(&Attributes, &str)>,
        checksum: bool,
    ) -> Result<String, Failure> {
        self.ask(Operation::CreateMultipartUpload, Some(key), ATTEMPT, async || {
            let mut request = self.client.create_multipart_upload().bucket(&*self.bucket).key(key);
            if let Some((attributes, batch)) = named {
                request = request
                    .set_metadata(Some(metadata(attributes, batch)))
                    .set_content_type(attributes.content_type.clone())
                    .set_storage_class(attributes.storage_class.as_deref().map(StorageClass::from))
                    .set_tagging(attributes.tagging.clone());
            }
            if checksum {
                request =
                    request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
            }
            let created = request.send().await;
            let created = created.map_err(|e| self.failure(e, Operation::CreateMultipartUpload, Some(key)))?;
            created.upload_id.ok_or_else(|| {
                self.broken(Kind::NoAnswer, Operation::CreateMultipartUpload, Some(key), "the upload id is missing")
            })
        })
        .await
    }

    /// Sends a part.
    pub async fn upload_part(
        &self,
        key: &str,
        upload: &str,
        number: u16,
        body: &Bytes,
        crc: Option<u64>,
    ) -> Result<Part, Failure> {
        let time = ATTEMPT + Duration::from_secs(body.len() as u64 / SLOWEST);
        self.ask(Operation::UploadPart, Some(key), time, async || {
            let request = self.client.upload_part().bucket(&*self.bucket).key(key).upload_id(upload);
            let request = request.part_number(number.into()).set_checksum_crc64_nvme(crc.map(crc_header));
            self.traffic.counts.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
            let sent = request.body(body.clone().into()).send().await;
            let sent = sent.map_err(|e| self.failure(e, Operation::UploadPart, Some(key)))?;
            self.part(key, number, sent.e_tag, sent.checksum_crc64_nvme.or(crc.map(crc_header)))
        })
        .await
    }

    /// Copies bytes `first..first + length` of an object onto a part of an upload of the same key, if it still has this
    /// tag; all of it where `range` is `None`.
    pub async fn copy_part(
        &self,
        key: &str,
        upload: &str,
        number: u16,
        etag: &ETag,
        range: Option<(u64, u64)>,
    ) -> Result<Part, Failure> {
        self.ask(Operation::UploadPartCopy, Some(key), LONG_ATTEMPT, async || {
            let from = format!("{}/{}", self.bucket, utf8_percent_encode(key, COPY_SOURCE));
            let range = range.map(|(first, length)| format!("bytes={first}-{}", first + length - 1));
            let request = self.client.upload_part_copy().bucket(&*self.bucket).key(key).upload_id(upload);
            let request = request.part_number(number.into()).copy_source(from).copy_source_if_match(etag.quoted());
            let copied = request.set_copy_source_range(range).send().await;
            let copied = copied.map_err(|e| self.failure(e, Operation::UploadPartCopy, Some(key)))?;
            let copied = copied.copy_part_result;
            let (etag, crc) = copied.map_or((None, None), |part| (part.e_tag, part.checksum_crc64_nvme));
            self.part(key, number, etag, crc)
        })
        .await
    }

    fn part(&self, key: &str, number: u16, etag: Option<String>, crc: Option<String>) -> Result<Part, Failure> {
        let etag = etag.ok_or_else(|| {
            self.broken(Kind::NoAnswer, Operation::UploadPart, Some(key), "the part's ETag is missing")
        })?;
        Ok(Part { number, etag, crc })
    }

    /// Makes the object of its parts, which must be in order, and returns its tag. `crc` is what the whole must have.
    pub async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: &Condition,
        crc: Option<u64>,
    ) -> Result<ETag, Failure> {
        self.ask(Operation::CompleteMultipartUpload, Some(key), LONG_ATTEMPT, async || {
            let (if_none_match, if_match) = condition.headers();
            let parts = parts.iter().map(|part| {
                CompletedPart::builder()
                    .part_number(part.number.into())
                    .e_tag(&part.etag)
                    .set_checksum_crc64_nvme(part.crc.clone())
                    .build()
            });
            let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
            let request = self.client.complete_multipart_upload().bucket(&*self.bucket).key(key).upload_id(upload);
            let request = request.multipart_upload(parts).set_if_none_match(if_none_match).set_if_match(if_match);
            let request = request
                .set_checksum_crc64_nvme(crc.map(crc_header))
                .set_checksum_type(crc.map(|_| ChecksumType::FullObject));
            let done = request.send().await;
            let done = done.map_err(|e| self.failure(e, Operation::CompleteMultipartUpload, Some(key)))?;
            done.e_tag.as_deref().map(ETag::new).ok_or_else(|| {
                self.broken(Kind::NoAnswer, Operation::CompleteMultipartUpload, Some(key), "the ETag is missing")
            })
        })
        .await
    }

    /// Gives an upload up; one that is gone already is as good.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<(), Failure> {
        let aborted = self
            .ask(Operation::AbortMultipartUpload, Some(key), ATTEMPT, async || {
                let request = self.client.abort_multipart_upload().bucket(&*self.bucket).key(key).upload_id(upload);
                let aborted = request.send().await;
                aborted.map_err(|e| self.failure(e, Operation::AbortMultipartUpload, Some(key)))
            })
            .await;
        match aborted {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == Kind::Missing => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes an object, with a tag only if it still has it; one that is gone already is as good.
    pub async fn delete(&self, key: &str, etag: Option<&ETag>) -> Result<(), Failure> {
        let deleted = self
            .ask(Operation::DeleteObject, Some(key), ATTEMPT, async || {
                let request = self.client.delete_object().bucket(&*self.bucket).key(key);
                let deleted = request.set_if_match(etag.map(ETag::quoted)).send().await;
                deleted.map_err(|e| self.failure(e, Operation::DeleteObject, Some(key)))
            })
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == Kind::Missing => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes up to [`DELETE_KEYS`] objects, each only if it still has its tag, and returns those that S3 did not
    /// confirm as gone. Keys that S3 throttled or failed on are asked for again.
    pub async fn delete_all(&self, sources: &[&Source]) -> Result<Vec<NotDeleted>, Failure> {
        let mut asked: Vec<usize> = (0..sources.len()).collect();
        let mut refused = Vec::new();
        for attempt in 1.. {
            let batch: Vec<&Source> = asked.iter().map(|at| sources[*at]).collect();
            let answers = self.delete_once(&batch).await?;
            let (again, last): (Vec<_>, Vec<_>) =
                answers.into_iter().map(|n| NotDeleted { at: asked[n.at], ..n }).partition(|n| n.failure.transient());
            refused.extend(last);
            if again.is_empty() || attempt == ATTEMPTS {
                refused.extend(again);
                break;
            }
            asked = again.iter().map(|n| n.at).collect();
            pause(attempt).await;
        }
        Ok(refused)
    }

    async fn delete_once(&self, sources: &[&Source]) -> Result<Vec<NotDeleted>, Failure> {
        let operation = Operation::DeleteObjects;
        let answer = self
            .ask(operation, None, ATTEMPT, async || {
                let objects = sources.iter().map(|source| {
                    let object = ObjectIdentifier::builder().key(&*source.key).e_tag(source.etag.quoted());
                    object.build().expect("it has a key")
                });
                let objects = Delete::builder().set_objects(Some(objects.collect())).build().expect("it has objects");
                let request = self.client.delete_objects().bucket(&*self.bucket).delete(objects);
                request.send().await.map_err(|e| self.failure(e, operation, None))
            })
            .await?;
        let gone: std::collections::HashSet<&str> = answer.deleted().iter().filter_map(|gone| gone.key()).collect();
        let errors: BTreeMap<&str, _> =
            answer.errors().iter().filter_map(|error| Some((error.key()?, error))).collect();
        let not_deleted = sources.iter().enumerate().filter_map(|(at, source)| {
            let key = Some(&*source.key);
            let failure = match errors.get(&*source.key) {
                None if gone.contains(&*source.key) => return None,
                None => self.broken(Kind::NoAnswer, operation, key, "the answer does not name the key"),
                Some(error) => match error.code().unwrap_or_default() {
                    "NoSuchKey" => return None,
                    code => {
                        let what = format!("{code}: {}", error.message().unwrap_or_default());
                        self.broken(per_key_kind(code), operation, key, &what)
                    }
                },
            };
            Some(NotDeleted { at, failure })
        });
        Ok(not_deleted.collect())
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
        let limit = if operation.writes() { &self.traffic.writes } else { &self.traffic.reads };
        let mut ambiguous = false;
        for number in 1.. {
            let permit = limit.acquire().await;
            self.traffic.counts.count(operation);
            let answer = tokio::time::timeout(time, attempt()).await.unwrap_or_else(|_| {
                let what = format!("no answer within {} s", time.as_secs());
                Err(self.broken(Kind::NoAnswer, operation, key, &what).ambiguous_if(true))
            });
            let failure = match answer {
                Ok(answer) => {
                    permit.answered();
                    return Ok(answer);
                }
                Err(failure) => failure.ambiguous_if(ambiguous),
            };
            if failure.kind == Kind::Throttled {
                self.traffic.counts.throttled.fetch_add(1, Ordering::Relaxed);
                permit.throttled();
            } else {
                permit.answered();
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

fn per_key_kind(code: &str) -> Kind {
    match code {
        "AccessDenied" => Kind::Denied,
        "PreconditionFailed" => Kind::Condition,
        "SlowDown" => Kind::Throttled,
        "InternalError" => Kind::Server,
        _ => Kind::Refused,
    }
}

fn listed(object: aws_sdk_s3::types::Object, encoded: bool) -> Option<Object> {
    let key = object.key?;
    let key = if encoded { percent_decode_str(&key.replace('+', " ")).decode_utf8().ok()?.into_owned() } else { key };
    // A listing does not show what Intelligent-Tiering has archived; the GET will.
    let class = object.storage_class.as_ref().map(ObjectStorageClass::as_str);
    Some(Object {
        key,
        etag: ETag::new(object.e_tag.as_deref()?),
        size: u64::try_from(object.size?).ok()?,
        storage: Storage::of_class(class, false),
    })
}

fn parse_head(head: HeadObjectOutput) -> Option<Head> {
    let full = head.checksum_type == Some(ChecksumType::FullObject);
    let mut metadata: BTreeMap<String, String> = head.metadata.unwrap_or_default().into_iter().collect();
    let deep = matches!(head.storage_class, Some(StorageClass::Glacier | StorageClass::DeepArchive));
    let tiered = matches!(head.archive_status, Some(ArchiveStatus::ArchiveAccess | ArchiveStatus::DeepArchiveAccess));
    Some(Head {
        etag: ETag::new(head.e_tag.as_deref()?),
        size: u64::try_from(head.content_length?).ok()?,
        batch: metadata.remove(BATCH),
        crc: head.checksum_crc64_nvme.as_deref().filter(|_| full).and_then(parse_crc),
        archived: deep || tiered,
        versioned: head.version_id.is_some_and(|version| version != "null"),
        tags: head.tag_count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        attributes: Attributes {
            metadata,
            content_type: head.content_type,
            storage_class: head.storage_class.map(|class| class.as_str().to_owned()),
            tagging: None,
        },
    })
}

fn metadata(attributes: &Attributes, batch: &str) -> std::collections::HashMap<String, String> {
    let mut metadata: std::collections::HashMap<_, _> =
        attributes.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    metadata.insert(BATCH.to_owned(), batch.to_owned());
    metadata
}
