//! Multipart uploads: parts sent and copied, and the rules under which they become an object.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use s3s::dto::{ChecksumAlgorithm, ChecksumType, CompletedPart};
use s3s::{S3Error, S3Result, s3_error};

use crate::object::{Checksum, Object, composite_crc32, crc32_text, etag_of_parts};
use crate::rope::Rope;
use crate::settings::Quirks;
use crate::store::{Conditions, Store, whole_seconds};

/// The smallest part in bytes that is not the last of its upload.
const MIN_PART_SIZE: u64 = 5 << 20;
/// The largest part in bytes.
pub(crate) const MAX_PART_SIZE: u64 = 5 << 30;
/// The highest number of a part.
pub(crate) const MAX_PART_NUMBER: i32 = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) body: Rope,
    pub(crate) etag: String,
}

/// An upload in progress. Its template carries the headers and tags of the object to be.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) initiated: DateTime<Utc>,
    pub(crate) template: Object,
    pub(crate) algorithm: Option<ChecksumAlgorithm>,
    pub(crate) checksum_type: Option<ChecksumType>,
    pub(crate) parts: BTreeMap<i32, Part>,
}

impl Upload {
    pub(crate) fn uses(&self, algorithm: &'static str) -> bool {
        self.algorithm.as_ref().is_some_and(|named| named.as_str() == algorithm)
    }

    /// The parts that a Complete request lists.
    ///
    /// # Errors
    /// `MalformedXML` (no part), `InvalidPartOrder`, `InvalidPart` (never sent, or another `ETag`), `EntityTooSmall`.
    fn listed(&self, listed: &[CompletedPart]) -> S3Result<Vec<Part>> {
        if listed.is_empty() {
            return Err(s3_error!(MalformedXML, "You must specify at least one part"));
        }
        let mut parts: Vec<Part> = Vec::with_capacity(listed.len());
        let mut last = 0;
        for named in listed {
            let number = named.part_number.unwrap_or_default();
            if number <= last {
                return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
            }
            last = number;
            let part = self.parts.get(&number);
            let same = |part: &&Part| named.e_tag.as_ref().is_some_and(|etag| etag.value() == part.etag);
            let invalid = || s3_error!(InvalidPart, "Part {number} was not sent, or has another ETag.");
            parts.push(part.filter(same).ok_or_else(invalid)?.clone());
        }
        let (_, all_but_last) = parts.split_last().expect("an empty list was refused above");
        if let Some(small) = all_but_last.iter().find(|part| part.body.len() < MIN_PART_SIZE) {
            let size = small.body.len();
            return Err(s3_error!(EntityTooSmall, "A part of {size} bytes is smaller than the minimum allowed size"));
        }
        Ok(parts)
    }

    /// The checksum that the object will have.
    fn checksum(&self, parts: &[Part]) -> Checksum {
        let whole = self.checksum_type.as_ref().is_some_and(|named| named.as_str() == ChecksumType::FULL_OBJECT);
        match self.algorithm.as_ref().map(ChecksumAlgorithm::as_str) {
            None | Some(ChecksumAlgorithm::CRC64NVME) => Checksum::Crc64Nvme,
            Some(ChecksumAlgorithm::CRC32) if whole => Checksum::Crc32,
            Some(ChecksumAlgorithm::CRC32) => {
                let bodies: Vec<Rope> = parts.iter().map(|part| part.body.clone()).collect();
                Checksum::Crc32Composite(composite_crc32(&bodies))
            }
            Some(_) => Checksum::None,
        }
    }
}

/// The checksum that Complete asserts of the whole object, if any.
#[derive(Debug, Default)]
pub(crate) struct Asserted {
    pub(crate) crc64nvme: Option<String>,
    pub(crate) crc32: Option<String>,
    pub(crate) size: Option<i64>,
}

impl Store {
    pub(crate) fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<&Upload> {
        let upload = self.bucket(bucket)?.uploads.get(&(key.to_owned(), id.to_owned()));
        upload.ok_or_else(no_such_upload)
    }

    pub(crate) fn add_part(&mut self, bucket: &str, key: &str, id: &str, number: i32, part: Part) -> S3Result<()> {
        let upload = self.bucket_mut(bucket)?.uploads.get_mut(&(key.to_owned(), id.to_owned()));
        upload.ok_or_else(no_such_upload)?.parts.insert(number, part);
        Ok(())
    }

    pub(crate) fn abort(&mut self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        let upload = self.bucket_mut(bucket)?.uploads.remove(&(key.to_owned(), id.to_owned()));
        upload.map(drop).ok_or_else(no_such_upload)
    }

    /// Makes the upload an object. Whatever fails leaves the upload as it was.
    #[expect(clippy::too_many_arguments, reason = "they are the parameters of one S3 request")]
    pub(crate) fn complete(
        &mut self,
        bucket: &str,
        key: &str,
        id: &str,
        listed: &[CompletedPart],
        conditions: Conditions<'_>,
        asserted: &Asserted,
        now: DateTime<Utc>,
        quirks: &Quirks,
    ) -> S3Result<Object> {
        let upload = self.upload(bucket, key, id)?;
        let parts = upload.listed(listed)?;
        self.bucket(bucket)?.check_write(key, conditions, quirks)?;
        let mut object = upload.template.clone();
        for part in &parts {
            object.body.append(&part.body);
        }
        asserted.check(&object.body)?;
        object.etag = etag_of_parts(parts.iter().map(|part| part.etag.as_str()));
        object.checksum = upload.checksum(&parts);
        object.last_modified = whole_seconds(now);
        self.abort(bucket, key, id)?;
        object.version = self.put(bucket, key, object.clone())?;
        Ok(object)
    }
}

impl Asserted {
    fn check(&self, body: &Rope) -> S3Result<()> {
        let wrong =
            |name: &str| s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum.");
        if self.crc64nvme.as_ref().is_some_and(|crc| *crc != crate::object::crc64_text(body.crc64nvme())) {
            return Err(wrong("CRC64NVME"));
        }
        // A composite value is made of the parts' checksums; it says nothing that they did not.
        let whole = self.crc32.as_ref().filter(|crc| !crc.contains('-'));
        if whole.is_some_and(|crc| *crc != crc32_text(crate::object::crc32(body))) {
            return Err(wrong("CRC32"));
        }
        match self.size {
            Some(size) if u64::try_from(size) != Ok(body.len()) => {
                Err(s3_error!(InvalidRequest, "The object is {} bytes long, not {size}", body.len()))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn no_such_upload() -> S3Error {
    s3_error!(NoSuchUpload, "The specified multipart upload does not exist.")
}
