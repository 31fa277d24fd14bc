//! What is safe in the rollup goes: sources, and manifests that are of no more use.

use futures::stream::{self, StreamExt};

use super::{Rollup, S3, SIDE_REQUESTS};
use crate::manifest::BatchId;
use crate::protocol::{Answer, Now, Sources, Undeleted};
use crate::source::Source;
use crate::store::{self, Kind};

impl Rollup<'_> {
    pub(super) async fn check_kept(&self, sources: &[Source]) -> Answer<S3> {
        let now = self.heads(sources).await;
        let gone = sources.iter().zip(now).filter(|(_, now)| matches!(now, Now::Gone | Now::Replaced));
        Answer::Gone(gone.map(|(source, _)| source.clone()).collect())
    }

    pub(super) async fn heads(&self, sources: &[Source]) -> Vec<Now> {
        let asked = sources.iter().map(|source| async move {
            match self.shared.source.head_etag(&source.key).await {
                Ok(etag) if etag == source.etag => Now::Same,
                Ok(_) => Now::Replaced,
                // A HEAD's 404 has no body to say whose it is; the listing knows.
                Err(failure) if failure.kind == Kind::Missing => match self.shared.source.find(&source.key).await {
                    Ok(false) => Now::Gone,
                    _ => Now::Unknown,
                },
                Err(_) => Now::Unknown,
            }
        });
        stream::iter(asked).buffered(SIDE_REQUESTS).collect().await
    }

    pub(super) async fn delete_sources(&self, lists: &[Sources<S3>]) -> Answer<S3> {
        let sources: Vec<&Source> = lists.iter().flat_map(|list| list.iter()).collect();
        let chunks = sources.chunks(store::DELETE_KEYS).enumerate().map(|(chunk, sources)| async move {
            let first = chunk * store::DELETE_KEYS;
            (first, sources.len(), self.shared.source.delete_all(sources).await)
        });
        let mut answers = stream::iter(chunks).buffered(SIDE_REQUESTS);
        let mut exceptions = Vec::new();
        while let Some((first, count, answer)) = answers.next().await {
            let not_deleted = match answer {
                Ok(not_deleted) => not_deleted,
                Err(failure) => {
                    let failure = |_| failure.clone();
                    (0..count).map(|at| store::NotDeleted { at, failure: failure(at) }).collect()
                }
            };
            self.shared.report.borrow_mut().deleted += (count - not_deleted.len()) as u64;
            for store::NotDeleted { at, failure } in not_deleted {
                let why = match failure.kind {
                    Kind::Condition => Undeleted::Condition,
                    _ if failure.hopeless() => Undeleted::Refused,
                    _ => Undeleted::Failed,
                };
                tracing::debug!("{failure}");
                if why == Undeleted::Refused {
                    self.failed(failure);
                }
                exceptions.push((first + at, why));
            }
        }
        Answer::Deleted(exceptions)
    }

    pub(super) async fn delete_manifest(&self, batch: BatchId) -> Answer<S3> {
        let etag = self.manifests.borrow_mut().remove(&batch);
        match self.shared.destination.delete(&self.manifest_key(batch), etag.as_ref()).await {
            Ok(()) => Answer::Done,
            // Somebody else's by now: leave it.
            Err(failure) if matches!(failure.kind, Kind::Condition | Kind::Conflict) => Answer::Done,
            Err(failure) => self.failed(failure),
        }
    }
}
