//! The operations of a multipart upload.

use bytes::Bytes;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyPartResult, CopySource,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, Range, UploadPartCopyInput, UploadPartCopyOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::{Backend, Shown, tags_of, timestamp};
use crate::checksums::{Given, read};
use crate::multipart::{Asserted, MAX_PART_NUMBER, MAX_PART_SIZE, Part, Upload};
use crate::object::{Object, crc32, crc32_text, crc64_text, etag_of, etag_of_copy};
use crate::request::Operation;
use crate::rope::Rope;
use crate::store::{Conditions, access_denied, condition_names, precondition_failed, strong, whole_seconds};

/// S3 copies a range only of a source that is at least as long, in bytes.
const MIN_RANGED_SOURCE: u64 = 5 << 20;

impl Backend {
    pub(super) fn create_upload(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let now = whole_seconds(self.world.now());
        let mut template = Object::new(Rope::default(), String::new(), now);
        template.metadata = input.metadata.unwrap_or_default().into_iter().collect();
        template.content_type = input.content_type;
        template.content_encoding = input.content_encoding;
        template.tags = tags_of(input.tagging.as_deref())?;
        template.storage_class = input.storage_class.map(|class| class.as_str().to_owned());
        let algorithm = input.checksum_algorithm;
        // CRC64NVME is a checksum of whole objects only; the others default to one of their parts.
        let checksum_type = algorithm.as_ref().map(|algorithm| match (&input.checksum_type, algorithm.as_str()) {
            (Some(named), _) => named.clone(),
            (None, ChecksumAlgorithm::CRC64NVME) => ChecksumType::from_static(ChecksumType::FULL_OBJECT),
            (None, _) => ChecksumType::from_static(ChecksumType::COMPOSITE),
        });
        let upload = Upload {
            initiated: now,
            template,
            algorithm: algorithm.clone(),
            checksum_type: checksum_type.clone(),
            parts: std::collections::BTreeMap::new(),
        };
        if upload.uses(ChecksumAlgorithm::CRC64NVME)
            && checksum_type.as_ref().is_some_and(|named| named.as_str() == ChecksumType::COMPOSITE)
        {
            return Err(s3_error!(InvalidRequest, "The COMPOSITE checksum type cannot be used with crc64nvme"));
        }
        let mut store = self.world.store();
        let id = store.fresh_id();
        store.bucket_mut(&input.bucket)?.uploads.insert((input.key.clone(), id.clone()), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: algorithm,
            checksum_type,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn receive_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        check_number(input.part_number)?;
        let body = read(input.body).await?;
        let mut given = Given {
            crc64nvme: input.checksum_crc64nvme,
            crc32: input.checksum_crc32,
            md5: input.content_md5,
            other: input.checksum_crc32c.is_some() || input.checksum_sha1.is_some() || input.checksum_sha256.is_some(),
        };
        given.add_trailers(req.trailing_headers.as_ref());
        given.verify(&body)?;
        if body.len() > MAX_PART_SIZE {
            return Err(s3_error!(EntityTooLarge, "A part is at most 5 GiB"));
        }
        let part = Part { etag: etag_of(&body), body };
        let etag = strong(&part.etag);

        let mut store = self.world.store();
        let upload = store.upload(&input.bucket, &input.key, &input.upload_id)?;
        for (algorithm, sent) in
            [(ChecksumAlgorithm::CRC64NVME, &given.crc64nvme), (ChecksumAlgorithm::CRC32, &given.crc32)]
        {
            if sent.is_some() && upload.algorithm.is_some() && !upload.uses(algorithm) {
                let expected = upload.algorithm.as_ref().map(ChecksumAlgorithm::as_str).unwrap_or_default();
                return Err(s3_error!(
                    InvalidRequest,
                    "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual: {algorithm}"
                ));
            }
        }
        store.add_part(&input.bucket, &input.key, &input.upload_id, input.part_number, part)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(etag),
            checksum_crc64nvme: given.crc64nvme,
            checksum_crc32: given.crc32,
            ..UploadPartOutput::default()
        }))
    }

    pub(super) fn copy_part(&self, input: &UploadPartCopyInput) -> S3Result<S3Response<UploadPartCopyOutput>> {
        check_number(input.part_number)?;
        let CopySource::Bucket { bucket, key, version_id } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "A copy source is /bucket/key"));
        };
        if self.world.denies(Operation::GetObject, bucket, Some(key), None) {
            return Err(access_denied());
        }
        let source = self.world.find(bucket, key, version_id.as_deref());
        let mut store = self.world.store();
        let upload = store.upload(&input.bucket, &input.key, &input.upload_id)?;
        let (with_crc64, with_crc32) =
            (upload.uses(ChecksumAlgorithm::CRC64NVME), upload.uses(ChecksumAlgorithm::CRC32));
        if with_crc64 && self.world.settings.quirks.refuse_checksum_with_copied_part {
            return Err(s3_error!(InvalidArgument, "checksum missing"));
        }
        let source = source?;
        if input.copy_source_if_match.as_ref().is_some_and(|condition| !condition_names(condition, &source)) {
            return Err(precondition_failed("x-amz-copy-source-If-Match"));
        }
        if source.is_archived() {
            return Err(s3_error!(InvalidObjectState, "The source of the copy is archived"));
        }
        let mut body = match &input.copy_source_range {
            None => source.body.clone(),
            Some(range) => range_of(&source, range)?,
        };
        if self.world.settings.quirks.damage_copied_parts {
            let mut bytes = body.bytes().to_vec();
            bytes.iter_mut().take(1).for_each(|first| *first ^= 1);
            body = Bytes::from(bytes).into();
        }
        if body.len() > MAX_PART_SIZE {
            return Err(s3_error!(InvalidRequest, "The copy source is larger than the maximum allowable size: 5 GiB"));
        }
        let etag = etag_of_copy(&body);
        let result = CopyPartResult {
            e_tag: Some(strong(&etag)),
            last_modified: Some(timestamp(whole_seconds(self.world.now()))),
            checksum_crc64nvme: with_crc64.then(|| crc64_text(body.crc64nvme())),
            checksum_crc32: with_crc32.then(|| crc32_text(crc32(&body))),
            ..CopyPartResult::default()
        };
        let part = Part { body, etag };
        store.add_part(&input.bucket, &input.key, &input.upload_id, input.part_number, part)?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: source.version.clone(),
            ..UploadPartCopyOutput::default()
        }))
    }

    pub(super) fn complete_upload(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let conditions = Conditions { if_match: input.if_match.as_ref(), if_none_match: input.if_none_match.as_ref() };
        let asserted =
            Asserted { crc64nvme: input.checksum_crc64nvme, crc32: input.checksum_crc32, size: input.mpu_object_size };
        let object = self.world.store().complete(
            &input.bucket,
            &input.key,
            &input.upload_id,
            &listed,
            conditions,
            &asserted,
            self.world.now(),
            &self.world.settings.quirks,
        )?;
        let shown = Shown::of(&object);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(strong(&object.etag)),
            checksum_crc64nvme: shown.crc64nvme,
            checksum_crc32: shown.crc32,
            checksum_type: shown.checksum_type,
            version_id: object.version,
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    pub(super) fn abort_upload(
        &self,
        input: &AbortMultipartUploadInput,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.world.store().abort(&input.bucket, &input.key, &input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn check_number(number: i32) -> S3Result<()> {
    if (1..=MAX_PART_NUMBER).contains(&number) {
        return Ok(());
    }
    Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
}

/// The bytes of `x-amz-copy-source-range`, which has a first and a last byte, both inside the source.
fn range_of(source: &Object, header: &str) -> S3Result<Rope> {
    let size = source.size();
    if size < MIN_RANGED_SOURCE {
        return Err(s3_error!(InvalidRequest, "A range can be copied only of a source of at least 5 MiB"));
    }
    match Range::parse(header) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok(source.body.slice(first..last + 1)),
        Ok(Range::Int { .. }) => {
            Err(s3_error!(InvalidArgument, "Range specified is not valid for source object of size: {size}"))
        }
        _ => Err(s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")),
    }
}
