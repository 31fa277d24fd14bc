//! The two listings: objects and uploads.

use s3s::dto::{
    CommonPrefix, EncodingType, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input,
    ListObjectsV2Output, MultipartUpload, ObjectStorageClass, Owner, StorageClass,
};
use s3s::{S3Response, S3Result, s3_error};

use super::{Backend, signed, timestamp};
use crate::listing::{MAX_KEYS, Position, Query, page, url_encoded};
use crate::store::strong;

/// How many entries a page may have.
fn page_size(asked: Option<i32>) -> S3Result<usize> {
    match asked.map(usize::try_from) {
        None => Ok(MAX_KEYS),
        Some(Ok(size)) => Ok(size.min(MAX_KEYS)),
        Some(Err(error)) => Err(s3_error!(error, InvalidArgument, "max-keys must not be negative")),
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).expect("a page has at most 1,000 entries")
}

/// Shows a key as the request asked for it.
fn shower(encoding: Option<&EncodingType>) -> impl Fn(&str) -> String {
    let encodes = encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    move |text| if encodes { url_encoded(text) } else { text.to_owned() }
}

impl Backend {
    pub(super) fn list_page(&self, input: &ListObjectsV2Input) -> S3Result<S3Response<ListObjectsV2Output>> {
        let show = shower(input.encoding_type.as_ref());
        let from = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Position::from_token(token)
                .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?,
            (None, Some(key)) => Position::AfterKey(key.clone()),
            (None, None) => Position::Start,
        };
        let max = page_size(input.max_keys)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let query = Query { prefix, delimiter: input.delimiter.clone(), from, max };
        let page = page(&self.world.store().bucket(&input.bucket)?.objects, &query);

        let owner = (input.fetch_owner == Some(true))
            .then(|| Owner { id: Some(self.world.settings.owner.clone()), ..Owner::default() });
        let key_count = count(page.objects.len() + page.prefixes.len());
        let contents = page.objects.iter().map(|(key, object)| s3s::dto::Object {
            key: Some(show(key)),
            size: Some(signed(object.size())),
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(timestamp(object.last_modified)),
            storage_class: Some(ObjectStorageClass::from(
                object.storage_class.clone().unwrap_or_else(|| StorageClass::STANDARD.to_owned()),
            )),
            owner: owner.clone(),
            ..s3s::dto::Object::default()
        });
        let prefixes = page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(show(prefix)) });
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: Some(show(&query.prefix)),
            delimiter: input.delimiter.as_deref().map(&show),
            start_after: input.start_after.as_deref().map(&show),
            encoding_type: input.encoding_type.clone(),
            max_keys: Some(count(max)),
            key_count: Some(key_count),
            contents: Some(contents.collect()),
            common_prefixes: Some(prefixes.collect()),
            is_truncated: Some(page.next.is_some()),
            continuation_token: input.continuation_token.clone(),
            next_continuation_token: page.next.map(|next| next.token()),
            ..ListObjectsV2Output::default()
        }))
    }

    pub(super) fn list_uploads(
        &self,
        input: &ListMultipartUploadsInput,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let show = shower(input.encoding_type.as_ref());
        let max = page_size(input.max_uploads)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let id_marker = input.upload_id_marker.clone().unwrap_or_default();

        let store = self.world.store();
        // Without an upload id the marker stands behind all uploads of its key.
        let after = |key: &String, id: &String| match id_marker.as_str() {
            "" => *key > key_marker,
            marker => (key, id.as_str()) > (&key_marker, marker),
        };
        let mut listed = store
            .bucket(&input.bucket)?
            .uploads
            .iter()
            .filter(|((key, id), _)| key.starts_with(&prefix) && (input.key_marker.is_none() || after(key, id)));
        let uploads: Vec<_> = listed.by_ref().take(max).collect();
        let last = uploads.last().map(|((key, id), _)| (key.clone(), id.clone()));
        let next = last.filter(|_| listed.next().is_some());
        let uploads = uploads.into_iter().map(|((key, id), upload)| MultipartUpload {
            key: Some(show(key)),
            upload_id: Some(id.clone()),
            initiated: Some(timestamp(upload.initiated)),
            checksum_algorithm: upload.algorithm.clone(),
            checksum_type: upload.checksum_type.clone(),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket.clone()),
            prefix: Some(show(&prefix)),
            key_marker: input.key_marker.as_deref().map(&show),
            upload_id_marker: input.upload_id_marker.clone(),
            encoding_type: input.encoding_type.clone(),
            max_uploads: Some(count(max)),
            is_truncated: Some(next.is_some()),
            uploads: Some(uploads.collect()),
            next_upload_id_marker: next.as_ref().map(|(_, id)| id.clone()),
            next_key_marker: next.map(|(key, _)| show(&key)),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
