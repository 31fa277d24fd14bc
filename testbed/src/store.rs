//! Buckets and their objects: what a read sees, what a write or a delete changes, and under which condition.
//!
//! Everything here is synchronous and happens under one lock, which makes every request atomic.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Utc};
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3Result, s3_error};

use crate::multipart::Upload;
use crate::object::Object;
use crate::settings::{BucketOptions, Quirks};

/// An older version of an object, or the marker of a delete.
#[derive(Clone, Debug)]
pub(crate) enum Version {
    Object(Arc<Object>),
    DeleteMarker(String),
}

impl Version {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Object(object) => object.version.as_deref(),
            Self::DeleteMarker(id) => Some(id),
        }
    }
}

/// A bucket. The keys of a `BTreeMap<String, _>` are in bytewise order, which is the order of S3's listings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) options: BucketOptions,
    pub(crate) objects: BTreeMap<String, Arc<Object>>,
    /// Older versions and delete markers, oldest first.
    pub(crate) noncurrent: BTreeMap<String, Vec<Version>>,
    pub(crate) uploads: BTreeMap<(String, String), Upload>,
}

/// What a delete did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) delete_marker: bool,
    pub(crate) version: Option<String>,
}

/// The conditions of a write or a delete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
}

impl Conditions<'_> {
    /// Whether `If-Match`, if there is one, names this object.
    fn matches(self, object: &Object) -> bool {
        self.if_match.is_none_or(|condition| condition_names(condition, object))
    }
}

/// Whether a condition is `*` or names the object's `ETag`.
pub(crate) fn condition_names(condition: &ETagCondition, object: &Object) -> bool {
    condition.as_etag().is_none_or(|etag| etag.value() == object.etag)
}

/// All buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    buckets: BTreeMap<String, Bucket>,
    last_id: u64,
}

impl Store {
    pub(crate) fn create_bucket(&mut self, name: &str, options: BucketOptions) {
        self.buckets.entry(name.to_owned()).or_default().options = options;
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.buckets.keys().map(String::as_str)
    }

    pub(crate) fn find(&self, bucket: &str) -> Option<&Bucket> {
        self.buckets.get(bucket)
    }

    pub(crate) fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(|| no_such_bucket(name))
    }

    pub(crate) fn bucket_mut(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets.get_mut(name).ok_or_else(|| no_such_bucket(name))
    }

    /// An id that no version and no upload had before; ids sort by age.
    pub(crate) fn fresh_id(&mut self) -> String {
        self.last_id += 1;
        // Mixed so that ids do not look alike, as S3's do not.
        let mixed = self.last_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:012x}.{mixed:016x}", self.last_id)
    }

    /// The current version of an object.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    pub(crate) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.bucket(bucket)?.objects.get(key).cloned().ok_or_else(|| no_such_key(key))
    }

    /// Any version of an object; none means the current one.
    pub(crate) fn version(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Arc<Object>> {
        let Some(id) = version else { return self.object(bucket, key) };
        let bucket = self.bucket(bucket)?;
        let current = bucket.objects.get(key).filter(|object| object.version.as_deref() == Some(id));
        let older = || {
            bucket.noncurrent.get(key)?.iter().find_map(|version| match version {
                Version::Object(object) if object.version.as_deref() == Some(id) => Some(object),
                _ => None,
            })
        };
        current.or_else(older).cloned().ok_or_else(|| s3_error!(NoSuchVersion, "The specified version does not exist."))
    }

    /// Writes an object and returns its version id, if the bucket has versions.
    pub(crate) fn put(&mut self, bucket: &str, key: &str, mut object: Object) -> S3Result<Option<String>> {
        let fresh = self.fresh_id();
        let bucket = self.bucket_mut(bucket)?;
        object.version = bucket.options.versioned.then_some(fresh);
        let version = object.version.clone();
        if let Some(old) = bucket.objects.insert(key.to_owned(), Arc::new(object))
            && bucket.options.versioned
        {
            bucket.noncurrent.entry(key.to_owned()).or_default().push(Version::Object(old));
        }
        Ok(version)
    }

    /// Deletes a key, or one version of it.
    ///
    /// # Errors
    /// `PreconditionFailed` where `If-Match` names another `ETag`, `NoSuchKey` where there is none to compare with.
    pub(crate) fn delete(
        &mut self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        conditions: Conditions<'_>,
        quirks: &Quirks,
    ) -> S3Result<Deleted> {
        let marker = self.fresh_id();
        let bucket = self.bucket_mut(bucket)?;
        if conditions.if_match.is_some() && !quirks.ignore_delete_conditions {
            let object = bucket.objects.get(key).ok_or_else(|| no_such_key(key))?;
            if !conditions.matches(object) {
                return Err(precondition_failed("If-Match"));
            }
        }
        if let Some(id) = version {
            return Ok(bucket.delete_version(key, id));
        }
        let old = bucket.objects.remove(key);
        if !bucket.options.versioned {
            return Ok(Deleted::default());
        }
        let versions = bucket.noncurrent.entry(key.to_owned()).or_default();
        versions.extend(old.map(Version::Object));
        versions.push(Version::DeleteMarker(marker.clone()));
        Ok(Deleted { delete_marker: true, version: Some(marker) })
    }
}

impl Bucket {
    /// Whether a write to `key` may go ahead.
    ///
    /// # Errors
    /// `PreconditionFailed`, or `NoSuchKey` for `If-Match` on a key that is not there.
    pub(crate) fn check_write(&self, key: &str, conditions: Conditions<'_>, quirks: &Quirks) -> S3Result<()> {
        if quirks.ignore_write_conditions {
            return Ok(());
        }
        let object = self.objects.get(key);
        match conditions.if_none_match {
            Some(ETagCondition::Any) if object.is_some() => return Err(precondition_failed("If-None-Match")),
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(NotImplemented, "If-None-Match of a write takes no ETag, only *"));
            }
            _ => {}
        }
        match (conditions.if_match, object) {
            (Some(_), None) if quirks.if_match_on_missing_is_412 => Err(precondition_failed("If-Match")),
            (Some(_), None) => Err(no_such_key(key)),
            (Some(_), Some(object)) if !conditions.matches(object) => Err(precondition_failed("If-Match")),
            _ => Ok(()),
        }
    }

    /// How many versions of a key hold data: the current one and those that S3 charges for beside it.
    pub(crate) fn versions(&self, key: &str) -> usize {
        let older = self.noncurrent.get(key).map_or(&[][..], Vec::as_slice);
        usize::from(self.objects.contains_key(key))
            + older.iter().filter(|version| matches!(version, Version::Object(_))).count()
    }

    /// Removes one version for good; when it was the newest, the one before it is current again.
    fn delete_version(&mut self, key: &str, id: &str) -> Deleted {
        let is_current = self.objects.get(key).is_some_and(|object| object.version.as_deref() == Some(id));
        let mut delete_marker = false;
        if is_current {
            self.objects.remove(key);
        }
        let mut versions = self.noncurrent.remove(key).unwrap_or_default();
        if let Some(at) = versions.iter().position(|version| version.id() == Some(id)) {
            delete_marker = matches!(versions.remove(at), Version::DeleteMarker(_));
        }
        if !self.objects.contains_key(key)
            && let Some(newest) = versions.pop()
        {
            match newest {
                Version::Object(object) => {
                    self.objects.insert(key.to_owned(), object);
                }
                marker @ Version::DeleteMarker(_) => versions.push(marker),
            }
        }
        if !versions.is_empty() {
            self.noncurrent.insert(key.to_owned(), versions);
        }
        Deleted { delete_marker, version: Some(id.to_owned()) }
    }
}

/// S3 tells times in whole seconds.
pub(crate) fn whole_seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(0)
}

/// The `ETag` of an answer.
pub(crate) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

fn no_such_bucket(name: &str) -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist: {name}")
}

fn no_such_key(key: &str) -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist: {key}")
}

pub(crate) fn access_denied() -> S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

pub(crate) fn precondition_failed(condition: &str) -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold: {condition}")
}
