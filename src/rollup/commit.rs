//! A body becomes the rollup, or is given up.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};
use futures::stream::{self, StreamExt};

use super::gather::{Gatherer, Ready};
use super::{Rollup, S3, SIDE_REQUESTS};
use crate::fetch::{Body, Upload};
use crate::manifest::{self, BatchId};
use crate::protocol::{self, Answer, Base};
use crate::report::Count;
use crate::shown::shown;
use crate::source::ETag;
use crate::store::{Condition, Failure, Head, Kind, Part};

/// What a commit did to R.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Created,
    Appended,
    Replaced,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "rollup created",
            Self::Appended => "rollup appended to",
            Self::Replaced => "rollup replaced",
        })
    }
}

/// The old bytes of a new R.
struct Before {
    size: u64,
    /// CRC64NVME, where it is known.
    crc: Option<u64>,
}

impl Rollup<'_> {
    /// A commit whose answer was lost counts when R names it.
    pub(super) fn settle_doubt(&self, batch: Option<BatchId>) {
        let mut doubtful = self.doubtful.borrow_mut();
        if let Some((added, change)) = batch.and_then(|batch| doubtful.remove(&batch)) {
            self.count_commit(added, change);
        }
    }

    fn count_commit(&self, added: Count, change: Change) {
        tracing::info!(rollup = %shown(&self.key), objects = added.objects, bytes = added.bytes, "{change}");
        if matches!(change, Change::Appended | Change::Replaced) && self.versioned.get() {
            self.shared.warn_of_versions();
        }
        let mut report = self.shared.report.borrow_mut();
        report.rolled_up.join(added);
        if self.shared.policy.keep {
            report.kept += added.objects;
        }
        let rollups = &mut report.rollups;
        match change {
            Change::Created => rollups.created += 1,
            Change::Appended => rollups.appended += 1,
            Change::Replaced => rollups.replaced += 1,
        }
    }

    pub(super) async fn put_manifest(&self, batch: BatchId, written: &protocol::Manifest<S3>) -> Answer<S3> {
        let protocol::Manifest { base, merged, foreign } = written;
        let uploads = self.uploads.borrow().clone();
        let body: Bytes =
            manifest::encode(self.name.as_str(), base.as_ref(), self.shared.scope(), merged, foreign, &uploads).into();
        self.doomed.replace(uploads);
        let crc = checksum(CrcAlgorithm::Crc64Nvme, &body);
        let key = self.manifest_key(batch);
        match self.shared.destination.put(&key, &body, crc, &Condition::Absent, None).await {
            Ok(etag) => {
                self.manifests.borrow_mut().insert(batch, etag);
                Answer::Done
            }
            // The id is fresh, so what stands there is what an unanswered attempt of this very request wrote.
            Err(failure) if failure.kind == Kind::Condition && failure.ambiguous => Answer::Done,
            Err(failure) if matches!(failure.kind, Kind::Condition | Kind::Conflict) => Answer::NoAnswer,
            Err(failure) if failure.transient() => self.unanswered(failure),
            Err(failure) => self.failed(failure),
        }
    }

    pub(super) async fn commit(&self, batch: BatchId, base: Base<S3>) -> Answer<S3> {
        let ready = {
            let mut bodies = self.bodies.borrow_mut();
            bodies.get_mut(&batch).and_then(|g| Some((Arc::clone(&g.upload), g.read, g.ready.take()?)))
        };
        let Some((upload, read, Ready { gathered, count, memory })) = ready else {
            return self.failed_because(String::from("a batch was to be committed that was not gathered"));
        };
        let Some(before) = self.before(&upload, read, base.as_ref()) else {
            return self.failed_because(format!(
                "the bytes read of s3://{}/{} are not those of its checksum",
                self.shared.destination.bucket(),
                shown(&self.key)
            ));
        };
        let crc = before.crc.map(|old| match before.size {
            0 => gathered.crc,
            _ => checksum_combine(CrcAlgorithm::Crc64Nvme, old, gathered.crc, gathered.added),
        });
        let change = match (&base, before.size) {
            (None, _) => Change::Created,
            (Some(_), 0) => Change::Replaced,
            (Some(_), _) => Change::Appended,
        };
        self.doubtful.borrow_mut().insert(batch, (count, change));
        let condition = base.clone().map_or(Condition::Absent, Condition::Unchanged);
        let written = match &gathered.body {
            Body::Whole(whole) => {
                let crc = crc.unwrap_or_else(|| checksum(CrcAlgorithm::Crc64Nvme, whole));
                let named = Some((&upload.attributes, upload.batch.as_str()));
                self.shared.destination.put(&self.key, whole, crc, &condition, named).await
            }
            Body::Sent(sent) => self.complete(sent, crc, base.as_ref(), &condition, &upload).await,
        };
        match written {
            Ok(etag) => {
                self.settle_doubt(Some(batch));
                drop(memory);
                self.bodies.borrow_mut().remove(&batch);
                self.open_line.set(false);
                let size = before.size + gathered.added;
                self.head.replace(Some(Head::written(etag.clone(), size, crc, upload.attributes.clone())));
                self.moved(base.as_ref(), &etag).await;
                Answer::Committed(etag)
            }
            Err(failure) => match failure.kind {
                Kind::Condition | Kind::Conflict | Kind::Missing => Answer::Changed,
                _ if failure.transient() => self.unanswered(failure),
                _ => self.failed(failure),
            },
        }
    }

    /// What stands before the added bytes; `None` where bytes were read that are not those of R's checksum.
    fn before(&self, upload: &Upload, read: Option<(u64, u64)>, base: Option<&ETag>) -> Option<Before> {
        let head = self.head.borrow();
        let known = head.as_ref().filter(|head| Some(&head.etag) == base);
        match read {
            Some((size, crc)) => {
                let same = known.and_then(|head| head.crc).is_none_or(|known| known == crc);
                same.then_some(Before { size, crc: Some(crc) })
            }
            None if upload.copies => {
                let size = upload.layout.copied.iter().map(|(_, length)| length).sum();
                Some(Before { size, crc: known.and_then(|head| head.crc) })
            }
            None => Some(Before { size: 0, crc: Some(0) }),
        }
    }

    async fn complete(
        &self,
        sent: &[Part],
        crc: Option<u64>,
        base: Option<&ETag>,
        condition: &Condition,
        upload: &Upload,
    ) -> Result<ETag, Failure> {
        let id = upload.begin().await?;
        let mut parts = Vec::with_capacity(upload.layout.copied.len() + sent.len());
        if let Some(base) = base.filter(|_| upload.copies) {
            let ranges = &upload.layout.copied;
            let copies = (1_u16..).zip(ranges).map(|(number, range)| {
                let range = (ranges.len() > 1).then_some(*range);
                self.shared.destination.copy_part(&self.key, &id, number, base, range)
            });
            let mut copies = stream::iter(copies).buffered(SIDE_REQUESTS);
            while let Some(part) = copies.next().await {
                parts.push(part?);
            }
        }
        parts.extend_from_slice(sent);
        let crc = crc.filter(|_| upload.checksum);
        self.shared.destination.complete(&self.key, &id, &parts, condition, crc).await
    }

    /// Stops reading and aborts the upload, if there is one.
    pub(super) async fn discard(&self, batch: BatchId) -> Answer<S3> {
        let Some(Gatherer { upload, cancel, done, .. }) = self.bodies.borrow_mut().remove(&batch) else {
            return Answer::Done;
        };
        // Nobody listens where the reading has ended.
        let _ = cancel.send(true);
        let _ = done.await;
        upload.abort().await;
        Answer::Done
    }
}
