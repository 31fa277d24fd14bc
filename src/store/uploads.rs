//! Multipart uploads: begun, filled with parts, completed or aborted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, EncodingType, StorageClass,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::list::{decoded, time};
use super::write::metadata;
use super::{ATTEMPT, Attributes, Condition, Failure, Kind, LONG_ATTEMPT, Operation, SLOWEST, Store, crc_header};
use crate::source::ETag;

/// An upload in progress, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The key of the object to be.
    pub key: String,
    /// The upload's id.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub at: Option<DateTime<Utc>>,
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

/// What stands for itself in the value of `x-amz-copy-source` (RFC 3986, section 2.3, and the slash).
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Store {
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

    /// The uploads in progress under a prefix, in the order of their keys; the first 1,000 where there are more.
    pub async fn uploads(&self, prefix: &str) -> Result<Vec<Begun>, Failure> {
        let operation = Operation::ListMultipartUploads;
        self.ask(operation, None, ATTEMPT, async || {
            let request = self.client.list_multipart_uploads().bucket(&*self.bucket).prefix(prefix);
            let page = request.encoding_type(EncodingType::Url).send().await;
            let page = page.map_err(|e| self.failure(e, operation, None))?;
            let encoded = page.encoding_type == Some(EncodingType::Url);
            let uploads = page.uploads.unwrap_or_default().into_iter().filter_map(|upload| {
                let at = upload.initiated.as_ref().and_then(time);
                Some(Begun { key: decoded(upload.key?, encoded)?, id: upload.upload_id?, at })
            });
            Ok(uploads.collect())
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
}
