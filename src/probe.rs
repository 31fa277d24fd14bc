//! Does the store enforce conditional writes, on which everything rests?
//!
//! Asked once a pass, before anything is written, with two keys under the manifests' folder that are gone afterwards.
//! The same requests show whether parts may be copied into an upload with a CRC64NVME of the whole.

use std::cell::RefCell;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;

use crate::error::Error;
use crate::manifest::{BatchId, FOLDER, PROBE};
use crate::source::ETag;
use crate::store::{Condition, Failure, Kind, Object, Part, Store};

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Copied parts in an upload with a CRC64NVME of the whole.
    pub checksummed_copies: bool,
}

/// Probes the destination. With `assume_no_overlap` a store that ignores conditions is accepted.
///
/// # Errors
/// For a store that ignores a condition, and for any request that fails otherwise.
pub async fn probe(
    store: &Store,
    destination_prefix: &str,
    id: BatchId,
    assume_no_overlap: bool,
) -> Result<Capabilities, Error> {
    let present = format!("{destination_prefix}{FOLDER}{PROBE}-{id}");
    let probe = Probe { store, present, stale: ETag::none(), uploads: RefCell::default() };
    let outcome = probe.run().await;
    let cleaned = probe.clean_up().await;
    let (capabilities, ignored) = outcome?;
    cleaned?;
    match ignored {
        None => Ok(capabilities),
        Some(what) if assume_no_overlap => {
            tracing::warn!("the store accepts {what} although its condition fails; ROLLUP_ASSUME_NO_OVERLAP is set");
            Ok(capabilities)
        }
        Some(what) => Err(Error::ConditionsIgnored { bucket: store.bucket().to_owned(), what: what.to_owned() }),
    }
}

/// How old a probe is that nobody is at any more. A live one whose object went would take the store for one that
/// ignores conditions, so it gets far longer than its few requests take, also on a machine that was asleep; this
/// machine's clock and the store's are minutes apart at most, or no signature would be accepted.
const ABANDONED: TimeDelta = TimeDelta::days(1);

/// Is this an object that a probe of a killed pass left?
#[must_use]
pub fn is_abandoned(destination_prefix: &str, object: &Object, now: DateTime<Utc>) -> bool {
    is_probe(destination_prefix, &object.key) && is_old(object.modified, now)
}

fn is_probe(destination_prefix: &str, key: &str) -> bool {
    let name = key.strip_prefix(destination_prefix).and_then(|name| name.strip_prefix(FOLDER));
    let id = name.and_then(|name| name.strip_prefix(PROBE)?.strip_prefix('-'));
    id.is_some_and(|id| BatchId::parse(id.strip_suffix("-absent").unwrap_or(id)).is_some())
}

fn is_old(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    time.is_some_and(|time| now - time > ABANDONED)
}

/// Removes what probes of killed passes left: their uploads, and then the objects. What cannot be removed stays.
pub async fn remove_abandoned(store: &Store, destination_prefix: &str, objects: &[Object], now: DateTime<Utc>) {
    match store.uploads(&format!("{destination_prefix}{FOLDER}{PROBE}-")).await {
        Ok(uploads) => {
            for upload in uploads {
                if is_probe(destination_prefix, &upload.key)
                    && is_old(upload.at, now)
                    && let Err(failure) = store.abort(&upload.key, &upload.id).await
                {
                    tracing::debug!("an upload of an old probe stays behind: {failure}");
                }
            }
        }
        Err(failure) => tracing::debug!("uploads of old probes are not looked for: {failure}"),
    }
    for object in objects {
        if let Err(failure) = store.delete(&object.key, Some(&object.etag)).await {
            tracing::warn!("an old probe stays behind: {failure}");
        }
    }
}

struct Probe<'s> {
    store: &'s Store,
    present: String,
    stale: ETag,
    /// Uploads that were begun and not aborted.
    uploads: RefCell<Vec<(String, String)>>,
}

impl Probe<'_> {
    /// The second part names the first condition that was ignored.
    async fn run(&self) -> Result<(Capabilities, Option<&'static str>), Failure> {
        let etag = match self.put(&self.present, &Condition::Absent).await {
            // The key is fresh: an attempt whose answer was lost has written it.
            Err(failure) if failure.kind == Kind::Condition && failure.ambiguous => {
                self.store.head_etag(&self.present).await?
            }
            put => put?,
        };
        let stale = Condition::Unchanged(self.stale.clone());
        let absent = format!("{}-absent", self.present);
        let (upload, part, checksummed_copies) = self.begin(&self.present, Some(&etag)).await?;
        let (absent_upload, absent_part, _) = self.begin(&absent, None).await?;
        let mut ignored = None;
        let puts = [
            (&self.present, &Condition::Absent, "PutObject with If-None-Match: * of a key that exists"),
            (&self.present, &stale, "PutObject with a stale If-Match"),
            (&absent, &stale, "PutObject with If-Match of a key that does not exist"),
        ];
        for (key, condition, what) in puts {
            if !refused(self.put(key, condition).await, *key == absent)? {
                ignored.get_or_insert(what);
            }
        }
        let completes = [
            (&self.present, &upload, &part, &Condition::Absent, "CompleteMultipartUpload with If-None-Match: *"),
            (&self.present, &upload, &part, &stale, "CompleteMultipartUpload with a stale If-Match"),
            (&absent, &absent_upload, &absent_part, &stale, "CompleteMultipartUpload with If-Match of a missing key"),
        ];
        for (key, upload, part, condition, what) in completes {
            let answer = self.store.complete(key, upload, std::slice::from_ref(part), condition, None).await;
            if !refused(answer, *key == absent)? {
                ignored.get_or_insert(what);
            }
        }
        self.abort_all().await?;
        Ok((Capabilities { checksummed_copies }, ignored))
    }

    async fn put(&self, key: &str, condition: &Condition) -> Result<ETag, Failure> {
        let body = Bytes::from_static(b"s3-log-rollup probes conditional writes\n");
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body);
        self.store.put(key, &body, crc, condition, None).await
    }

    /// An upload with one part: a copy of `from` where there is one and the store bears it, else a few bytes.
    async fn begin(&self, key: &str, from: Option<&ETag>) -> Result<(String, Part, bool), Failure> {
        if let Some(from) = from {
            let upload = self.create(key, true).await?;
            match self.store.copy_part(key, &upload, 1, from, None).await {
                Ok(part) => return Ok((upload, part, true)),
                Err(failure) if matches!(failure.kind, Kind::Refused | Kind::Checksum) => {
                    tracing::debug!("appends go without a checksum of the whole: {failure}");
                    self.abort_all().await?;
                }
                Err(failure) => return Err(failure),
            }
        }
        let upload = self.create(key, false).await?;
        let part = self.store.upload_part(key, &upload, 1, &Bytes::from_static(b"probe\n"), None).await?;
        Ok((upload, part, false))
    }

    async fn create(&self, key: &str, checksum: bool) -> Result<String, Failure> {
        let upload = self.store.create_upload(key, None, checksum).await?;
        self.uploads.borrow_mut().push((key.to_owned(), upload.clone()));
        Ok(upload)
    }

    async fn abort_all(&self) -> Result<(), Failure> {
        let uploads = self.uploads.take();
        let aborted = uploads.iter().map(|(key, upload)| self.store.abort(key, upload));
        join_all(aborted).await.into_iter().collect()
    }

    /// Leaves nothing behind, however the probing ended; the uploads go first, since the object is what shows a later pass
    /// that there may be some. What stays is harmless, but a refusal concerns the pass: it could delete no manifest either.
    async fn clean_up(&self) -> Result<(), Failure> {
        let mut refused = Ok(());
        let aborted = self.abort_all().await;
        let mut outcomes = vec![aborted];
        for key in [&self.present, &format!("{}-absent", self.present)] {
            outcomes.push(self.store.delete(key, None).await);
        }
        for failure in outcomes.into_iter().filter_map(Result::err) {
            tracing::warn!("a probe stays behind: {failure}");
            if failure.hopeless() {
                refused = Err(failure);
            }
        }
        refused
    }
}

/// Was a write whose condition fails refused? 404 is S3's answer to If-Match on a missing key; an upload that is gone
/// after its first refused completion (some stores) was refused before. Where only some prefixes may be listed, a 404 may
/// look like a denial, but the same write of the key beside it was allowed.
fn refused(written: Result<ETag, Failure>, absent: bool) -> Result<bool, Failure> {
    match written {
        Ok(_) => Ok(false),
        Err(failure) if matches!(failure.kind, Kind::Condition | Kind::Conflict | Kind::Missing) => Ok(true),
        Err(failure) if absent && failure.kind == Kind::Denied => Ok(true),
        Err(failure) => Err(failure),
    }
}
