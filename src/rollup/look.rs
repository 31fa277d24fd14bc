//! What stands in the bucket: the rollup, its manifests, its old bytes.

use std::sync::Arc;

use super::{OLD_BYTES, Rollup, S3, Trouble};
use crate::manifest::{self, BatchId};
use crate::protocol::{self, Answer, Object};
use crate::shown::shown;
use crate::source::ETag;
use crate::store::{self, Failure, Kind};

impl Rollup<'_> {
    pub(super) async fn head(&self, again: u8) -> Answer<S3> {
        if again > 0 {
            store::pause(again.into()).await;
        }
        let mut head = match self.shared.destination.head(&self.key).await {
            Ok(head) => head,
            Err(failure) => {
                self.head.take();
                return match failure.kind {
                    Kind::Missing => self.missing(failure).await,
                    Kind::Denied => {
                        self.trouble.replace(Some(Trouble::Store(failure)));
                        Answer::Denied
                    }
                    _ => self.failed(failure),
                };
            }
        };
        if head.archived {
            return self.failed_because(format!(
                "s3://{}/{} is archived, and nothing can be appended to it: restore it and copy it back to a class that \
                 can be read, or move it away",
                self.shared.destination.bucket(),
                shown(&self.key)
            ));
        }
        if head.tags > 0 {
            match self.shared.destination.tagging(&self.key).await {
                Ok(tagging) => head.attributes.tagging = Some(tagging),
                Err(failure) => return self.failed(failure),
            }
        }
        self.versioned.set(head.versioned);
        let batch = match head.batch.as_deref().map(|text| (text, BatchId::parse(text))) {
            None => None,
            Some((_, Some(batch))) => Some(batch),
            Some((text, None)) => {
                return self.failed_because(format!(
                    "the metadata of s3://{}/{} names a batch that no version of this program has written ({})",
                    self.shared.destination.bucket(),
                    shown(&self.key),
                    shown(text)
                ));
            }
        };
        let (etag, size) = (head.etag.clone(), head.size);
        self.head.replace(Some(head));
        self.open_line.set(false);
        self.settle_doubt(batch);
        self.forget_denial();
        Answer::Found { etag, size, batch }
    }

    fn key_of(&self, object: Object<S3>) -> String {
        match object {
            Object::Rollup => self.key.clone(),
            Object::Manifest(batch) => self.manifest_key(batch),
        }
    }

    pub(super) fn manifest_key(&self, batch: BatchId) -> String {
        manifest::key(&self.shared.destination_prefix, self.name.as_str(), batch)
    }

    pub(super) async fn find(&self, object: Object<S3>) -> Answer<S3> {
        match self.shared.destination.find(&self.key_of(object)).await {
            Ok(there) => {
                if !there {
                    self.forget_denial();
                }
                Answer::There(there)
            }
            Err(failure) => {
                // This, not the 403 before it, is what the user has to do something about.
                self.forget_denial();
                self.failed(failure)
            }
        }
    }

    /// R or a manifest is answered with 404. Whoever believes that wrongly, with a manifest there that says what R holds,
    /// removes the manifest or reads its sources once more. A HEAD's 404 has no body to say whose it is, so where there
    /// are manifests the listing must agree.
    async fn missing(&self, failure: Failure) -> Answer<S3> {
        let known = !self.manifests.borrow().is_empty() || !self.doubtful.borrow().is_empty();
        let Some(key) = failure.key.as_deref().filter(|_| known) else { return Answer::Missing };
        match self.shared.destination.find(key).await {
            Ok(false) => Answer::Missing,
            Ok(true) => {
                // Somebody may have written it meanwhile: the protocol asks once more, as for a 403 that hides nothing.
                let detail = format!("{}, but it is listed", failure.detail);
                self.trouble.replace(Some(Trouble::Store(Failure { detail, ..failure })));
                Answer::Denied
            }
            Err(failure) => self.failed(failure),
        }
    }

    pub(super) async fn get_manifest(&self, batch: BatchId) -> Answer<S3> {
        let key = self.manifest_key(batch);
        let bytes = match self.shared.destination.get_small(&key).await {
            Ok(bytes) => bytes,
            Err(failure) if failure.kind == Kind::Missing => return self.missing(failure).await,
            Err(failure) if failure.kind == Kind::Denied => {
                self.trouble.replace(Some(Trouble::Store(failure)));
                return Answer::Denied;
            }
            Err(failure) => return self.failed(failure),
        };
        match manifest::decode(&bytes, self.name.as_str(), self.shared.scope()) {
            Ok(read) => {
                self.forget_denial();
                self.moved_by(batch, &read).await;
                Answer::Manifest(protocol::Manifest {
                    base: read.base,
                    merged: vec![read.merged],
                    foreign: read.foreign,
                })
            }
            Err(unreadable) => self.failed_because(format!(
                "the manifest s3://{}/{} cannot be used: {unreadable}. It says which sources are in the rollup \
                 already, so nothing of this rollup was touched",
                self.shared.destination.bucket(),
                shown(&key)
            )),
        }
    }

    pub(super) async fn read_old(&self, etag: &ETag, size: u64) -> Answer<S3> {
        let small = size < self.shared.policy.min_part;
        let wanted = u32::try_from(size).unwrap_or(u32::MAX).min(OLD_BYTES);
        let memory = if small { Arc::clone(&self.shared.old).acquire_many_owned(wanted).await.ok() } else { None };
        let range = (!small).then_some((size - 1, 1));
        match self.shared.destination.get(&self.key, Some(etag), range, size).await {
            Ok(bytes) => {
                self.open_line.set(bytes.last().is_some_and(|byte| *byte != b'\n'));
                if small {
                    self.old.replace(bytes);
                    self.old_memory.replace(memory);
                }
                Answer::Read
            }
            Err(failure) if matches!(failure.kind, Kind::Missing | Kind::Condition) => Answer::Changed,
            Err(failure) if failure.kind == Kind::Denied => {
                self.trouble.replace(Some(Trouble::Store(failure)));
                Answer::Denied
            }
            Err(failure) => self.failed(failure),
        }
    }
}
