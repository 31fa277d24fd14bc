//! Uploads that killed passes left under the rollup's key: they are invisible, and they cost until they are aborted.
//!
//! A listing shows neither an upload's batch nor whether its pass is alive, and age proves nothing. So an upload is
//! aborted only when it is certain that it can never be completed: it was listed *before* a commit of this pass, and
//! that commit has moved R from `e` to another tag. Every upload that was listed was begun for a batch whose base is
//! either a state that R had before the listing, or, in a chain, the tag that the batch before it will be given by a
//! commit which itself is conditional on such a state. In the first case the base is `e` or older. In the second that
//! earlier commit was applied before ours, and its tag is `e` or older, or it comes after ours and is refused. R never
//! comes back to an earlier tag, so in each case the condition of the upload's completion fails from now on. No clock
//! takes part in this: neither does the time at which an upload was begun, which a chain would make misleading.
//!
//! The uploads are listed before the own one is begun, so that none of them is this pass's. They are named in the
//! manifest, which outlives a kill between commit and abort: whoever finds R naming that batch knows the same.
//!
//! Even an abort that should not have been loses no line: whoever finds its upload gone plans anew.

use std::time::Duration;

use super::Rollup;
use crate::manifest::{self, BatchId};
use crate::source::ETag;
use crate::store::Kind;

/// How long a pass waits for requests that are only about leftovers.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rollup<'_> {
    /// Lists the uploads under R's key, once. Whatever fails is no reason to roll up nothing.
    pub(super) async fn list_uploads(&self) {
        if self.uploads_listed.replace(true) || self.shared.uploads_unlisted.get() {
            return;
        }
        let Ok(listed) = tokio::time::timeout(PATIENCE, self.shared.destination.uploads(&self.key)).await else {
            return;
        };
        match listed {
            Ok(uploads) => {
                let here = uploads.into_iter().filter(|upload| upload.key == self.key);
                self.uploads.replace(here.map(|upload| upload.id).collect());
            }
            Err(failure) => {
                self.shared.uploads_unlisted.set(true);
                if failure.kind == Kind::Denied {
                    tracing::warn!(
                        "uploads that killed runs left are not looked for, a lifecycle rule has to end them: {failure}"
                    );
                } else {
                    tracing::debug!("uploads that killed runs left are not looked for in this pass: {failure}");
                }
            }
        }
    }

    /// The own commit has moved R: what was listed before it can never be completed.
    pub(super) async fn moved(&self, base: Option<&ETag>, now: &ETag) {
        let doomed = self.doomed.take();
        if base != Some(now) {
            self.abort_uploads(&doomed).await;
            self.uploads.borrow_mut().retain(|id| !doomed.contains(id));
        }
    }

    /// The same of a commit of another pass, or of one that was not answered, when R names its batch.
    pub(super) async fn moved_by(&self, batch: BatchId, manifest: &manifest::Manifest) {
        let moved = self.head.borrow().as_ref().is_some_and(|head| {
            head.batch.as_deref() == Some(batch.to_string().as_str()) && manifest.base.as_ref() != Some(&head.etag)
        });
        if moved {
            self.abort_uploads(&manifest.uploads).await;
        }
    }

    async fn abort_uploads(&self, ids: &[String]) {
        let all = async {
            for id in ids {
                if let Err(failure) = self.shared.destination.abort(&self.key, id).await {
                    tracing::warn!("an upload that a killed run left stays behind: {failure}");
                }
            }
        };
        if !ids.is_empty() && tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::debug!("not all uploads that killed runs left were aborted within {} s", PATIENCE.as_secs());
        }
    }
}
