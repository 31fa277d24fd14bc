//! The S3 operations: what `s3s` parsed, applied to the store, and the answer as S3 gives it.

mod listings;
mod uploads;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::Stream;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, ChecksumMode, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, Error, GetObjectInput, GetObjectOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output,
    Metadata, PutObjectInput, PutObjectOutput, StorageClass, StreamingBlob, Tag, Timestamp, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{Body, S3Error, S3Request, S3Response, S3Result, s3_error};

use crate::checksums::{Given, read};
use crate::fault::When;
use crate::object::{Checksum, Object, crc32, crc32_text, crc64_text, etag_of};
use crate::request::Operation;
use crate::rope::Rope;
use crate::settings::BucketOptions;
use crate::store::{Conditions, condition_names, precondition_failed, strong, whole_seconds};
use crate::world::World;

/// The S3 service over the state of a testbed.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) world: Arc<World>,
}

/// Rides on a request for `DeleteObjects`: the keys that shall fail, with which code (`None`: without a word), and
/// whether they are deleted.
#[derive(Clone, Debug)]
pub(crate) struct KeyErrors {
    pub(crate) when: When,
    pub(crate) code: Option<&'static str>,
    pub(crate) applied: bool,
}

/// The most keys of one `DeleteObjects`.
const MAX_DELETES: usize = 1_000;

/// The checksum headers of an object.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) crc64nvme: Option<String>,
    pub(crate) crc32: Option<String>,
    pub(crate) checksum_type: Option<ChecksumType>,
}

impl Shown {
    pub(crate) fn of(object: &Object) -> Self {
        let whole = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        match &object.checksum {
            Checksum::Crc64Nvme => {
                Self { crc64nvme: Some(crc64_text(object.crc64nvme())), checksum_type: whole, ..Self::default() }
            }
            Checksum::Crc32 => {
                Self { crc32: Some(crc32_text(crc32(&object.body))), checksum_type: whole, ..Self::default() }
            }
            Checksum::Crc32Composite(text) => Self {
                crc32: Some(text.clone()),
                checksum_type: Some(ChecksumType::from_static(ChecksumType::COMPOSITE)),
                ..Self::default()
            },
            Checksum::None => Self::default(),
        }
    }

    /// Only where the whole object is asked for in checksum mode: S3 keeps no checksum of a range.
    fn asked(object: &Object, mode: Option<&ChecksumMode>, ranged: bool) -> Self {
        match mode {
            Some(mode) if mode.as_str() == ChecksumMode::ENABLED && !ranged => Self::of(object),
            _ => Self::default(),
        }
    }
}

pub(crate) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    SystemTime::from(time).into()
}

/// A body that knows its length, sent chunk by chunk.
struct Pieces {
    left: VecDeque<Bytes>,
    length: u64,
}

impl Stream for Pieces {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.left.pop_front();
        self.length -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(Ok))
    }
}

impl ByteStream for Pieces {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.length).expect("a length of 64 bits"))
    }
}

fn body_of(rope: &Rope) -> StreamingBlob {
    let mut left: VecDeque<Bytes> = rope.pieces().collect();
    match left.len() {
        0 | 1 => Body::from(left.pop_front().unwrap_or_default()).into(),
        _ => StreamingBlob::new(Pieces { left, length: rope.len() }),
    }
}

pub(crate) fn signed(length: u64) -> i64 {
    i64::try_from(length).expect("an object is shorter than 2^63 bytes")
}

fn metadata_of(object: &Object) -> Option<Metadata> {
    (!object.metadata.is_empty()).then(|| object.metadata.clone().into_iter().collect())
}

fn tag_count(object: &Object) -> Option<i32> {
    i32::try_from(object.tags.len()).ok().filter(|count| *count > 0)
}

fn class_of(object: &Object) -> Option<StorageClass> {
    // S3 sends no header for STANDARD.
    object.storage_class.clone().filter(|class| class != StorageClass::STANDARD).map(StorageClass::from)
}

/// `If-Match` and `If-None-Match` of a read.
fn check_read(object: &Object, conditions: Conditions<'_>) -> S3Result<()> {
    if conditions.if_match.is_some_and(|condition| !condition_names(condition, object)) {
        return Err(precondition_failed("If-Match"));
    }
    if conditions.if_none_match.is_some_and(|condition| condition_names(condition, object)) {
        return Err(s3_error!(NotModified, "Not Modified"));
    }
    Ok(())
}

/// The pairs of `x-amz-tagging`.
pub(crate) fn tags_of(header: Option<&str>) -> S3Result<BTreeMap<String, String>> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().map(std::borrow::Cow::into_owned)
    };
    let pairs = header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(key)?, decoded(value)?))
    });
    let tags = pairs.collect::<Result<_, std::str::Utf8Error>>();
    tags.map_err(|error| s3_error!(error, InvalidTag, "The tagging header is not URL-encoded UTF-8"))
}

#[async_trait::async_trait]
impl s3s::S3 for Backend {
    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let object = self.world.find(&input.bucket, &input.key, input.version_id.as_deref())?;
        check_read(
            &object,
            Conditions { if_match: input.if_match.as_ref(), if_none_match: input.if_none_match.as_ref() },
        )?;
        if object.is_archived() {
            return Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class"));
        }
        let ranged = input.range.is_some();
        let (body, content_range) = match input.range {
            None => (object.body.clone(), None),
            Some(range) => {
                let size = object.size();
                let range = range.check(size).map_err(|error| s3_error!(error, InvalidRange))?;
                let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (object.body.slice(range), Some(shown))
            }
        };
        let shown = Shown::asked(&object, input.checksum_mode.as_ref(), ranged);
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(body.len())),
            body: Some(body_of(&body)),
            content_range,
            content_type: object.content_type.clone(),
            content_encoding: object.content_encoding.clone(),
            checksum_crc64nvme: shown.crc64nvme,
            checksum_crc32: shown.crc32,
            checksum_type: shown.checksum_type,
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(timestamp(object.last_modified)),
            metadata: metadata_of(&object),
            storage_class: class_of(&object),
            tag_count: tag_count(&object),
            version_id: object.version.clone(),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let object = self.world.find(&input.bucket, &input.key, input.version_id.as_deref())?;
        check_read(
            &object,
            Conditions { if_match: input.if_match.as_ref(), if_none_match: input.if_none_match.as_ref() },
        )?;
        let shown = Shown::asked(&object, input.checksum_mode.as_ref(), false);
        let mut response = S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(object.size())),
            content_type: object.content_type.clone(),
            content_encoding: object.content_encoding.clone(),
            checksum_crc64nvme: shown.crc64nvme,
            checksum_crc32: shown.crc32,
            checksum_type: shown.checksum_type,
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(timestamp(object.last_modified)),
            metadata: metadata_of(&object),
            storage_class: class_of(&object),
            version_id: object.version.clone(),
            ..HeadObjectOutput::default()
        });
        if let Some(count) = tag_count(&object) {
            // S3 documents the header for HeadObject too; s3s has it only for GetObject.
            response.headers.insert("x-amz-tagging-count", count.into());
        }
        Ok(response)
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let body = read(input.body).await?;
        let mut given = Given {
            crc64nvme: input.checksum_crc64nvme,
            crc32: input.checksum_crc32,
            md5: input.content_md5,
            other: input.checksum_crc32c.is_some() || input.checksum_sha1.is_some() || input.checksum_sha256.is_some(),
        };
        given.add_trailers(req.trailing_headers.as_ref());
        given.verify(&body)?;

        let mut object = Object::new(body.clone(), etag_of(&body), whole_seconds(self.world.now()));
        object.checksum = given.kept();
        object.metadata = input.metadata.unwrap_or_default().into_iter().collect();
        object.content_type = input.content_type;
        object.content_encoding = input.content_encoding;
        object.tags = tags_of(input.tagging.as_deref())?;
        object.storage_class = input.storage_class.map(|class| class.as_str().to_owned());
        let shown = Shown::of(&object);
        let etag = strong(&object.etag);

        let conditions = Conditions { if_match: input.if_match.as_ref(), if_none_match: input.if_none_match.as_ref() };
        let mut store = self.world.store();
        store.bucket(&input.bucket)?.check_write(&input.key, conditions, &self.world.settings.quirks)?;
        let version_id = store.put(&input.bucket, &input.key, object)?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(etag),
            checksum_crc64nvme: shown.crc64nvme,
            checksum_crc32: shown.crc32,
            checksum_type: shown.checksum_type,
            version_id,
            ..PutObjectOutput::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let conditions = Conditions { if_match: input.if_match.as_ref(), if_none_match: None };
        let quirks = &self.world.settings.quirks;
        let version = input.version_id.as_deref();
        let deleted = self.world.store().delete(&input.bucket, &input.key, version, conditions, quirks)?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.delete_marker.then_some(true),
            version_id: deleted.version,
            ..DeleteObjectOutput::default()
        }))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let faults = req.extensions.get::<KeyErrors>().cloned();
        let input = req.input;
        if input.delete.objects.len() > MAX_DELETES {
            return Err(s3_error!(MalformedXML, "At most 1000 keys can be deleted at once"));
        }
        let mut store = self.world.store();
        store.bucket(&input.bucket)?;
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for named in input.delete.objects {
            let fault = faults.as_ref().filter(|fault| fault.when.fits_key(&named.key));
            if fault.is_some_and(|fault| fault.code.is_none()) {
                continue;
            }
            let refused = if self.world.denies(Operation::DeleteObjects, &input.bucket, Some(&named.key), None) {
                Some(crate::store::access_denied())
            } else {
                fault.filter(|fault| !fault.applied).map(injected)
            };
            let condition = named.e_tag.map(s3s::dto::ETagCondition::ETag);
            let conditions = Conditions { if_match: condition.as_ref(), if_none_match: None };
            let done = match refused {
                Some(error) => Err(error),
                None => store.delete(
                    &input.bucket,
                    &named.key,
                    named.version_id.as_deref(),
                    conditions,
                    &self.world.settings.quirks,
                ),
            };
            match (done, fault) {
                (Ok(done), None) => deleted.push(DeletedObject {
                    delete_marker: done.delete_marker.then_some(true),
                    delete_marker_version_id: done.version.clone().filter(|_| done.delete_marker),
                    version_id: named.version_id,
                    key: Some(named.key),
                }),
                (Ok(_), Some(fault)) => errors.push(key_error(named.key, &injected(fault))),
                (Err(error), _) => errors.push(key_error(named.key, &error)),
            }
        }
        if input.delete.quiet == Some(true) {
            deleted.clear();
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = req.input;
        let object = self.world.find(&input.bucket, &input.key, input.version_id.as_deref())?;
        let tags = object.tags.iter();
        let tag_set = tags.map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: object.version.clone() }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.world.store().bucket(&req.input.bucket)?;
        let bucket_region = self.world.region_of(&req.input.bucket);
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let name = req.input.bucket;
        let mut store = self.world.store();
        if store.find(&name).is_some() {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        store.create_bucket(&name, BucketOptions::default());
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{name}")) }))
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let store = self.world.store();
        let named = |name: &str| Bucket { name: Some(name.to_owned()), ..Bucket::default() };
        let buckets = Some(store.names().map(named).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..ListBucketsOutput::default() }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.list_page(&req.input)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.list_uploads(&req.input)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.create_upload(req.input)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.receive_part(req).await
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.copy_part(&req.input)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete_upload(req.input)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.abort_upload(&req.input)
    }
}

fn injected(fault: &KeyErrors) -> S3Error {
    S3Error::with_message(fault.code.unwrap_or_default().parse().expect("any text is a code"), "a fault of the testbed")
}

fn key_error(key: String, error: &S3Error) -> Error {
    Error {
        key: Some(key),
        code: Some(error.code().as_str().to_owned()),
        message: error.message().map(str::to_owned),
        ..Error::default()
    }
}
