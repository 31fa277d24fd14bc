//! What is stored under a key: body, headers, tags, and the checksum and `ETag` as S3 makes them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use md5::{Digest as _, Md5};

use crate::rope::Rope;

/// The checksum that S3 keeps beside an object and shows on HEAD and GET with `x-amz-checksum-mode: ENABLED`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-64/NVME of the whole object, which S3 computes where a writer names no other algorithm.
    #[default]
    Crc64Nvme,
    /// CRC-32 of the whole object.
    Crc32,
    /// CRC-32 over the CRC-32s of the parts, as S3 shows it: the base64 text with `-` and the count of parts.
    Crc32Composite(String),
    /// None, as with objects older than S3's default checksums, or an algorithm that the testbed does not keep.
    None,
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct Object {
    /// The bytes.
    pub body: Rope,
    /// The `ETag` without its quotes.
    pub etag: String,
    /// The user metadata, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    /// The storage class; none is STANDARD.
    pub storage_class: Option<String>,
    /// When it was written, in whole seconds as S3 tells it.
    pub last_modified: DateTime<Utc>,
    /// Which checksum is kept.
    pub checksum: Checksum,
    /// The version id, in a versioned bucket.
    pub version: Option<String>,
}

impl Object {
    pub(crate) fn new(body: Rope, etag: String, last_modified: DateTime<Utc>) -> Self {
        Self {
            body,
            etag,
            metadata: BTreeMap::new(),
            content_type: None,
            content_encoding: None,
            tags: BTreeMap::new(),
            storage_class: None,
            last_modified,
            checksum: Checksum::default(),
            version: None,
        }
    }

    /// All bytes in one piece.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.body.bytes()
    }

    /// The length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.body.len()
    }

    /// CRC-64/NVME of the bytes, whether or not S3 would show it.
    #[must_use]
    pub fn crc64nvme(&self) -> u64 {
        self.body.crc64nvme()
    }

    /// Whether S3 refuses to read it before it is restored.
    pub(crate) fn is_archived(&self) -> bool {
        matches!(self.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE"))
    }
}

/// MD5 of a rope.
pub(crate) fn md5(body: &Rope) -> [u8; 16] {
    let mut digest = Md5::new();
    body.pieces().for_each(|piece| digest.update(&piece));
    digest.finalize().into()
}

/// Lower-case hexadecimal, as in an `ETag`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// The bytes of a hexadecimal `ETag`; an `ETag` of another kind counts as its own bytes.
fn unhex(etag: &str) -> Vec<u8> {
    let digits = |at: usize| etag.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..etag.len()).step_by(2).map(digits).collect::<Option<_>>().unwrap_or_else(|| etag.as_bytes().to_vec())
}

/// The `ETag` of an object that was put in one piece.
pub(crate) fn etag_of(body: &Rope) -> String {
    hex(&md5(body))
}

/// The `ETag` of a completed multipart upload: MD5 of the parts' MD5s, a dash, and their count.
pub(crate) fn etag_of_parts<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut digest = Md5::new();
    let mut count = 0;
    for part in parts {
        digest.update(unhex(part));
        count += 1;
    }
    format!("{}-{count}", hex(&digest.finalize()))
}

/// Above this length a copied part's `ETag` is made from its CRC64NVME and length instead of its MD5: the copy of
/// a large object must not cost the time to read it.
const COPIED_MD5_LIMIT: u64 = 1 << 20;

/// The `ETag` of a copied part.
pub(crate) fn etag_of_copy(body: &Rope) -> String {
    if body.len() <= COPIED_MD5_LIMIT {
        return etag_of(body);
    }
    let mut digest = Md5::new();
    digest.update(body.crc64nvme().to_be_bytes());
    digest.update(body.len().to_be_bytes());
    hex(&digest.finalize())
}

/// CRC-64/NVME as headers carry it: base64 of the big-endian bytes.
pub(crate) fn crc64_text(crc: u64) -> String {
    BASE64_STANDARD.encode(crc.to_be_bytes())
}

/// CRC-32 of a rope.
pub(crate) fn crc32(body: &Rope) -> u32 {
    let mut digest = crc_fast::Digest::new(Crc32IsoHdlc);
    body.pieces().for_each(|piece| digest.update(&piece));
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

/// CRC-32 as headers carry it: base64 of the big-endian bytes.
pub(crate) fn crc32_text(crc: u32) -> String {
    BASE64_STANDARD.encode(crc.to_be_bytes())
}

/// The composite CRC-32 of a multipart object: CRC-32 over the parts' CRC-32s, a dash, and their count.
pub(crate) fn composite_crc32(parts: &[Rope]) -> String {
    let joined: Vec<u8> = parts.iter().flat_map(|part| crc32(part).to_be_bytes()).collect();
    format!("{}-{}", crc32_text(crc32(&Bytes::from(joined).into())), parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_and_checksums_are_as_s3_makes_them() {
        let body = Rope::from(Bytes::from_static(b"hello world"));
        assert_eq!(etag_of(&body), "5eb63bbbe01eeed093cb22bb8f5acdc3");
        // The MD5 of the raw MD5, as `aws s3api` shows it for an upload of one part.
        assert_eq!(
            etag_of_parts(["5eb63bbbe01eeed093cb22bb8f5acdc3"].into_iter()),
            "241d8a27c836427bd7f04461b60e7359-1"
        );
        assert_eq!(crc32_text(crc32(&body)), "DUoRhQ==");
        assert_eq!(crc64_text(body.crc64nvme()), "jSnVw/bqjr4=");
    }
}
