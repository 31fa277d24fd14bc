//! Writes of whole objects, and what every write of an object has: a condition, metadata, a checksum.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::types::StorageClass;
use base64::Engine;
use bytes::Bytes;

use super::{ATTEMPT, Attributes, BASE64, BATCH, Failure, Kind, Operation, SLOWEST, Store};
use crate::source::ETag;

/// The condition of a write.
#[derive(Clone, Debug)]
pub enum Condition {
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`
    Unchanged(ETag),
}

impl Condition {
    pub(super) fn headers(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Absent => (Some(String::from("*")), None),
            Self::Unchanged(etag) => (None, Some(etag.quoted())),
        }
    }
}

/// The 64 bits as S3 writes them: big-endian, base64.
#[must_use]
pub fn crc_header(crc: u64) -> String {
    BASE64.encode(crc.to_be_bytes())
}

impl Store {
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
}

pub(super) fn metadata(attributes: &Attributes, batch: &str) -> HashMap<String, String> {
    let mut metadata: HashMap<_, _> =
        attributes.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    metadata.insert(BATCH.to_owned(), batch.to_owned());
    metadata
}
