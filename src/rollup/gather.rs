//! Sources become a body: kept in memory or sent in parts.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use tokio::sync::{Mutex, OwnedSemaphorePermit, oneshot, watch};

use super::{Performed, Rollup, S3};
use crate::fetch::{self, Body, Ended, Gathered, Job, Turn, Upload};
use crate::manifest::BatchId;
use crate::parts;
use crate::protocol::{Answer, Old, Slot};
use crate::report::Count;
use crate::shown::shown;
use crate::source::Source;
use crate::store::{Kind, Operation};

/// A body on its way from `Gather` to `Commit`.
pub(super) struct Gatherer {
    pub(super) upload: Arc<Upload>,
    pub(super) cancel: watch::Sender<bool>,
    /// Ends with the reading.
    pub(super) done: oneshot::Receiver<()>,
    /// Size and CRC64NVME of the old bytes that were read.
    pub(super) read: Option<(u64, u64)>,
    pub(super) ready: Option<Ready>,
}

pub(super) struct Ready {
    pub(super) gathered: Gathered,
    pub(super) count: Count,
    /// The memory of a body that is kept whole, given back with it.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl Rollup<'_> {
    pub(super) fn start_gather(
        &self,
        slot: Slot<S3>,
        batch: BatchId,
        sources: Arc<[Source]>,
        old: &Old,
    ) -> Performed<'_> {
        let copied = if let Old::Copied(size) = old { *size } else { 0 };
        let old = if *old == Old::Read { self.old.take() } else { Bytes::new() };
        let expected: u64 = sources.iter().map(|source| source.size + 1).sum::<u64>() + old.len() as u64 + 1;
        let Some(layout) = parts::Layout::new(copied, expected) else {
            let why = format!(
                "s3://{}/{} would be larger than S3 allows an object to be (48.8 TiB in 10,000 parts): use a smaller \
                 ROLLUP_LEVEL",
                self.shared.destination.bucket(),
                shown(&self.key)
            );
            return Box::pin(async move { (slot, Some(self.failed_because(why))) });
        };
        let upload = Arc::new(Upload {
            to: self.shared.destination.clone(),
            key: self.key.clone(),
            batch: batch.to_string(),
            attributes: self.head.borrow().as_ref().map(|head| head.attributes.clone()).unwrap_or_default(),
            checksum: copied == 0 || self.shared.checksummed_copies.get(),
            copies: copied > 0,
            layout,
            id: Mutex::default(),
        });
        let (cancel, cancelled) = watch::channel(false);
        let (ended, done) = oneshot::channel();
        let read = (!old.is_empty()).then(|| (old.len() as u64, checksum(CrcAlgorithm::Crc64Nvme, &old)));
        let gatherer = Gatherer { upload: Arc::clone(&upload), cancel, done, read, ready: None };
        self.bodies.borrow_mut().insert(batch, gatherer);
        let open_line = self.open_line.replace(false);
        let from = self.shared.source.clone();
        let job =
            Job { from, sources, old, open_line, upload, budget: self.shared.window.into(), turn: Turn::default() };
        Box::pin(async move {
            let answer = self.gather(batch, job, expected, cancelled).await;
            // Nobody listens unless the batch is being discarded.
            let _ = ended.send(());
            (slot, answer)
        })
    }

    async fn gather(
        &self,
        batch: BatchId,
        job: Job,
        expected: u64,
        mut cancelled: watch::Receiver<bool>,
    ) -> Option<Answer<S3>> {
        if job.upload.copies || expected >= job.upload.layout.part {
            tokio::select! {
                biased;
                _ = cancelled.wait_for(|cancelled| *cancelled) => return None,
                () = self.list_uploads() => {}
            }
        }
        let turn = tokio::select! {
            biased;
            _ = cancelled.wait_for(|cancelled| *cancelled) => return None,
            turn = Arc::clone(&self.shared.turn).acquire_owned() => turn.ok(),
        };
        let wanted = u32::try_from(expected).unwrap_or(u32::MAX).min(self.shared.window);
        let permit = tokio::select! {
            biased;
            _ = cancelled.wait_for(|cancelled| *cancelled) => return None,
            permit = Arc::clone(&self.shared.buffer).acquire_many_owned(wanted) => permit.ok(),
        };
        // From here on the old bytes are paid for by the gathering.
        self.old_memory.take();
        let sources = Arc::clone(&job.sources);
        job.turn.replace(turn);
        match fetch::gather(job, cancelled).await {
            Ok(gathered) => {
                self.report_left(&sources, &gathered);
                let left = gathered.left.iter().map(|(at, _)| *at).collect();
                let added = gathered.added;
                let memory = matches!(gathered.body, Body::Whole(_)).then_some(permit).flatten();
                let mut count = Count::default();
                sources.iter().for_each(|source| count.add(source.size));
                for (at, _) in &gathered.left {
                    count.objects -= 1;
                    count.bytes -= sources[*at].size;
                }
                if let Some(gatherer) = self.bodies.borrow_mut().get_mut(&batch) {
                    gatherer.ready = Some(Ready { gathered, count, memory });
                }
                Some(Answer::Gathered { left, added })
            }
            // Somebody has aborted the upload, knowing that it could not be completed.
            Err(Ended::Failed(failure))
                if failure.kind == Kind::Missing && failure.operation == Operation::UploadPart =>
            {
                tracing::debug!("planning anew: {failure}");
                Some(Answer::Changed)
            }
            Err(Ended::Failed(failure)) => Some(self.failed(failure)),
            Err(Ended::Cancelled) => None,
        }
    }

    fn report_left(&self, sources: &[Source], gathered: &Gathered) {
        let mut report = self.shared.report.borrow_mut();
        for (at, failure) in &gathered.left {
            let Source { key, size, .. } = &sources[*at];
            let reason = match failure.kind {
                Kind::Missing => "gone since they were listed",
                Kind::Condition => "replaced since they were listed",
                Kind::Archived => "archived, to be restored first",
                _ => {
                    tracing::warn!(key = %shown(key), "a source cannot be read and is left: {failure}");
                    report.troubled += 1;
                    "unreadable"
                }
            };
            report.leave(reason, key, *size);
        }
    }
}
