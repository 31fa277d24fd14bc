//! Reads: the bytes of objects, and what S3 knows of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::Config;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ArchiveStatus, ChecksumMode, ChecksumType, StorageClass};
use base64::Engine;
use bytes::{Bytes, BytesMut};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::sample::Sent;
use super::{ATTEMPT, BASE64, BATCH, Failure, Kind, LONG_ATTEMPT, Operation, SLOWEST, Store};
use crate::source::ETag;

/// The most bytes of a manifest that are read: a million entries of the longest keys stay below.
const LARGEST_MANIFEST: u64 = 2 << 30;
/// Room that a body in several pieces gets at once.
const ROOM: u64 = 1 << 20;

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

impl Store {
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
            let (found, body) = self.object(key, etag, range, size).await?;
            let found = self.tag(key, found.as_deref())?;
            if etag.is_some_and(|listed| found != *listed) {
                return Err(self.broken(Kind::Condition, Operation::GetObject, Some(key), "it is another object now"));
            }
            let body = self.body(key, body, expected).await?;
            if (body.len() as u64) < expected {
                let what = format!("{} bytes came instead of {expected}", body.len());
                return Err(self.broken(Kind::Damaged, Operation::GetObject, Some(key), &what));
            }
            Ok(body)
        })
        .await
    }

    /// The tag and the body of an object, or of a range of it.
    async fn object(
        &self,
        key: &str,
        etag: Option<&ETag>,
        range: Option<(u64, u64)>,
        size: u64,
    ) -> Result<(Option<String>, ByteStream), Failure> {
        let request = || self.client.get_object().bucket(&*self.bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        let sent = if range.is_none() { self.sample.get(request, key, etag, size).await } else { Sent::No };
        let answered = match sent {
            Sent::Object(etag, body) => return Ok((Some(etag), body)),
            Sent::Unsigned(why) => return Err(self.failure(*why, Operation::GetObject, Some(key))),
            Sent::Other(answered) => Some(Config::builder().http_client(answered)),
            Sent::No => None,
        };
        let range = range.map(|(first, length)| format!("bytes={first}-{}", first + length - 1));
        let request = request().set_if_match(etag.map(ETag::quoted)).set_range(range).customize();
        let request = match answered {
            Some(answered) => request.config_override(answered),
            None => request,
        };
        // In a place of its own: it is large, and seldom there.
        let object = Box::pin(request.send()).await;
        let object = object.map_err(|e| self.failure(e, Operation::GetObject, Some(key)))?;
        Ok((object.e_tag, object.body))
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
                    // What is expected is known, and bounded here, since of a manifest it is the store that says it.
                    joined.reserve(usize::try_from(most.min(ROOM)).unwrap_or(0));
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
            let broken = |kind, what: &str| self.broken(kind, Operation::GetObject, Some(key), what);
            let length = object.content_length.and_then(|length| u64::try_from(length).ok());
            let length = length.ok_or_else(|| broken(Kind::NoAnswer, "the answer does not say how long it is"))?;
            if length > LARGEST_MANIFEST {
                let what = format!("it is {length} bytes long, and {LARGEST_MANIFEST} are the most that is read");
                return Err(broken(Kind::Refused, &what));
            }
            let body = self.body(key, object.body, length).await?;
            if length != body.len() as u64 {
                return Err(broken(Kind::Damaged, "the body broke off"));
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
}

fn parse_crc(text: &str) -> Option<u64> {
    BASE64.decode(text).ok()?.try_into().ok().map(u64::from_be_bytes)
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
