//! Checksums that come with a body: in headers, in trailers, as `Content-MD5`.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::TryStreamExt as _;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};

use crate::object::{Checksum, crc32, crc32_text, crc64_text, md5};
use crate::rope::Rope;

/// Reads a request's body to its end.
///
/// # Errors
/// `IncompleteBody` where the connection breaks or the signed hash of the body is another.
pub(crate) async fn read(body: Option<StreamingBlob>) -> S3Result<Rope> {
    let Some(body) = body else { return Ok(Rope::default()) };
    let pieces: VecDeque<_> = body
        .try_collect()
        .await
        .map_err(|error| S3Error::with_message(s3s::S3ErrorCode::IncompleteBody, error.to_string()))?;
    Ok(pieces.into())
}

/// The checksums that a request gives for its body.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) crc64nvme: Option<String>,
    pub(crate) crc32: Option<String>,
    pub(crate) md5: Option<String>,
    /// One of another algorithm, which is neither verified nor kept.
    pub(crate) other: bool,
}

impl Given {
    /// Adds the checksums that came after an aws-chunked body.
    pub(crate) fn add_trailers(&mut self, trailers: Option<&TrailingHeaders>) {
        let Some(trailers) = trailers else { return };
        let find = |name: &str| trailers.read(|headers| Some(headers.get(name)?.to_str().ok()?.to_owned())).flatten();
        self.crc64nvme = self.crc64nvme.take().or_else(|| find("x-amz-checksum-crc64nvme"));
        self.crc32 = self.crc32.take().or_else(|| find("x-amz-checksum-crc32"));
    }

    /// # Errors
    /// `BadDigest`, or `InvalidDigest` for a `Content-MD5` that is none.
    pub(crate) fn verify(&self, body: &Rope) -> S3Result<()> {
        if let Some(given) = &self.md5 {
            let Ok(given) = BASE64_STANDARD.decode(given) else {
                return Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."));
            };
            if given != md5(body) {
                return Err(bad_digest("Content-MD5"));
            }
        }
        if self.crc64nvme.as_ref().is_some_and(|given| *given != crc64_text(body.crc64nvme())) {
            return Err(bad_digest("CRC64NVME"));
        }
        if self.crc32.as_ref().is_some_and(|given| *given != crc32_text(crc32(body))) {
            return Err(bad_digest("CRC32"));
        }
        Ok(())
    }

    /// The checksum that S3 keeps of an object put with these.
    pub(crate) fn kept(&self) -> Checksum {
        match (&self.crc64nvme, &self.crc32, self.other) {
            (None, Some(_), _) => Checksum::Crc32,
            (None, None, true) => Checksum::None,
            _ => Checksum::Crc64Nvme,
        }
    }
}

fn bad_digest(name: &str) -> S3Error {
    s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum.")
}
