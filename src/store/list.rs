//! Listings: which objects are there.

use aws_sdk_s3::primitives;
use aws_sdk_s3::types::{EncodingType, ObjectStorageClass};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use super::{ATTEMPT, Failure, Kind, Operation, Store};
use crate::plan::{Listed, Storage};
use crate::source::ETag;

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
    /// When it was written, by the store's clock.
    pub modified: Option<DateTime<Utc>>,
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
    /// With [`Store::list_folder`]: prefixes that end in the next `/`, and stand for all objects below them. In order.
    pub folders: Vec<String>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
}

impl Store {
    /// A page of objects under `prefix`. The prefix is sent even where it is empty, since policies look at it.
    pub async fn list(&self, prefix: &str, start: &Start) -> Result<Page, Failure> {
        self.ask_list(prefix, start, None, None).await
    }

    /// The first page of what lies directly under `prefix`: 1,000 objects and folders at most, together.
    pub async fn list_folder(&self, prefix: &str) -> Result<Page, Failure> {
        self.ask_list(prefix, &Start::First, None, Some("/")).await
    }

    /// Is there an object of that very key? Answers also who may list but not read.
    pub async fn find(&self, key: &str) -> Result<bool, Failure> {
        let page = self.ask_list(key, &Start::First, Some(1), None).await?;
        Ok(page.objects.first().is_some_and(|object| object.key == key))
    }

    /// The failure of a listing that names the same continuation again and would never end.
    #[must_use]
    pub fn does_not_advance(&self, prefix: &str) -> Failure {
        let what = "the listing repeats itself: the store names the same continuation again";
        self.broken(Kind::NoAnswer, Operation::ListObjectsV2, Some(prefix), what)
    }

    async fn ask_list(
        &self,
        prefix: &str,
        start: &Start,
        most: Option<i32>,
        delimiter: Option<&str>,
    ) -> Result<Page, Failure> {
        self.ask(Operation::ListObjectsV2, None, ATTEMPT, async || {
            let request = self.client.list_objects_v2().bucket(&*self.bucket).prefix(prefix);
            let request = request.encoding_type(EncodingType::Url).set_max_keys(most);
            let request = request.set_delimiter(delimiter.map(str::to_owned));
            let request = match start {
                Start::First => request,
                Start::After(key) => request.start_after(key),
                Start::Token(token) => request.continuation_token(token),
            };
            let page = request.send().await.map_err(|e| self.failure(e, Operation::ListObjectsV2, None))?;
            let encoded = page.encoding_type == Some(EncodingType::Url);
            let objects = page.contents.unwrap_or_default().into_iter().filter_map(|object| listed(object, encoded));
            let objects = objects.collect();
            let folders = page.common_prefixes.unwrap_or_default().into_iter();
            let folders = folders.filter_map(|folder| decoded(folder.prefix?, encoded)).collect();
            let next = page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
            if page.is_truncated == Some(true) && next.is_none() {
                let what = "the page says that more follow but names no token";
                return Err(self.broken(Kind::NoAnswer, Operation::ListObjectsV2, None, what));
            }
            Ok(Page { objects, folders, next })
        })
        .await
    }
}

fn listed(object: aws_sdk_s3::types::Object, encoded: bool) -> Option<Object> {
    let key = decoded(object.key?, encoded)?;
    // A listing does not show what Intelligent-Tiering has archived; the GET will.
    let class = object.storage_class.as_ref().map(ObjectStorageClass::as_str);
    Some(Object {
        key,
        etag: ETag::new(object.e_tag.as_deref()?),
        size: u64::try_from(object.size?).ok()?,
        storage: Storage::of_class(class, false),
        modified: object.last_modified.as_ref().and_then(time),
    })
}

/// A key of a listing; `None` where it is not UTF-8.
pub(super) fn decoded(key: String, encoded: bool) -> Option<String> {
    if encoded { Some(percent_decode_str(&key.replace('+', " ")).decode_utf8().ok()?.into_owned()) } else { Some(key) }
}

pub(super) fn time(time: &primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}
