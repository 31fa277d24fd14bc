//! The dry run: the same listing and plan as the real one, a HEAD of each rollup, and not one write.

use std::collections::{BTreeMap, HashSet};

use futures::stream::{FuturesUnordered, StreamExt};

use super::{Lister, Pass};
use crate::error::Error;
use crate::layout::RollupName;
use crate::manifest::{self, BatchId};
use crate::parts;
use crate::plan::Batch;
use crate::report::{Count, Estimate};
use crate::shown::shown;
use crate::source::Source;
use crate::store::{DELETE_KEYS, Failure, Kind, Operation};

/// HEADs in flight.
const HEADS: usize = 16;
/// List prices of us-east-1 (aws.amazon.com/s3/pricing, "Requests & data retrievals", S3 Standard), in dollars a
/// request.
const WRITE_PRICE: f64 = 5.0 / 1e6;
const READ_PRICE: f64 = 0.4 / 1e6;

/// What a rollup's batches of this pass come to.
struct Planned {
    rollup: RollupName,
    batches: Vec<Count>,
    empty: u64,
    /// The sources of each batch, where a manifest may say that some of them are in the rollup already.
    sources: Vec<Vec<Source>>,
    /// Of these, such as are.
    merged: u64,
}

impl Planned {
    /// Takes out what the rollup holds already.
    fn leave_out(&mut self, merged: &[Source]) {
        let merged: HashSet<&Source> = merged.iter().collect();
        for (count, sources) in self.batches.iter_mut().zip(&self.sources) {
            for Source { size, .. } in sources.iter().filter(|source| merged.contains(source)) {
                count.objects -= 1;
                count.bytes -= size;
                self.merged += 1;
            }
        }
        self.batches.retain(|count| count.objects > 0);
    }
}

impl Pass<'_> {
    /// Lists and plans, and says what a run with the same settings would do.
    pub(super) async fn dry_run(&self, lister: &mut Lister<'_>) -> Result<(), Error> {
        let (pending, _) = self.list_manifests().await?;
        let mut heads = FuturesUnordered::new();
        let mut estimate = Estimated::default();
        let mut current: Option<Planned> = None;
        loop {
            while let Some(batch) = lister.ready.pop_front() {
                let pending = pending.contains_key(&batch.rollup);
                if let Some(planned) = add(&mut current, batch, pending) {
                    heads.push(self.head(planned));
                }
                if heads.len() >= HEADS
                    && let Some(head) = heads.next().await
                {
                    self.count(&mut estimate, head?);
                }
            }
            match lister.page.take() {
                Some(page) => lister.plan(&page)?,
                None if lister.wants_page() => lister.page = Some(lister.page().await?),
                None => break,
            }
        }
        heads.extend(current.take().map(|planned| self.head(planned)));
        while let Some(head) = heads.next().await {
            self.count(&mut estimate, head?);
        }
        estimate.add(Operation::GetObject, pending.values().map(|manifests| manifests.len() as u64).sum());
        let asked = self.shared.source.traffic().counts.requests();
        estimate.add(Operation::ListObjectsV2, asked.get(&Operation::ListObjectsV2).copied().unwrap_or(0));
        self.shared.report.borrow_mut().estimate = Some(estimate.priced());
        Ok(())
    }

    /// The size of the rollup as it is, `None` where there is none.
    async fn head(&self, mut planned: Planned) -> Result<(Planned, Option<u64>), Failure> {
        let key = planned.rollup.key(&self.shared.destination_prefix);
        match self.shared.destination.head(&key).await {
            Ok(head) => {
                let batch = head.batch.as_deref().and_then(BatchId::parse);
                if let Some(batch) = batch.filter(|_| !planned.sources.is_empty() && !self.shared.policy.overwrite) {
                    self.read_manifest(&mut planned, batch).await?;
                }
                Ok((planned, Some(head.size)))
            }
            Err(failure) if failure.kind == Kind::Missing => Ok((planned, None)),
            Err(failure) if failure.kind == Kind::Denied => {
                if self.shared.destination.find(&key).await? {
                    Err(failure)
                } else {
                    Ok((planned, None))
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// What the manifest that the rollup names says is in it.
    async fn read_manifest(&self, planned: &mut Planned, batch: BatchId) -> Result<(), Failure> {
        let rollup = planned.rollup.as_str();
        let key = manifest::key(&self.shared.destination_prefix, rollup, batch);
        let bytes = match self.shared.destination.get_small(&key).await {
            Ok(bytes) => bytes,
            Err(failure) if failure.kind == Kind::Missing => return Ok(()),
            Err(failure) => return Err(failure),
        };
        match manifest::decode(&bytes, rollup, self.shared.scope()) {
            Ok(read) => planned.leave_out(&read.merged),
            Err(unreadable) => {
                let rollup = planned.rollup.key(&self.shared.destination_prefix);
                self.shared
                    .report
                    .borrow_mut()
                    .fail(&rollup, &format!("its manifest {key} cannot be used: {unreadable}"));
                planned.batches.clear();
            }
        }
        Ok(())
    }

    fn count(&self, estimate: &mut Estimated, (planned, size): (Planned, Option<u64>)) {
        let mut report = self.shared.report.borrow_mut();
        let keep = self.shared.policy.keep;
        let overwrite = self.shared.policy.overwrite;
        let mut old = if overwrite { 0 } else { size.unwrap_or(0) };
        estimate.add(Operation::HeadObject, 1);
        for (at, batch) in planned.batches.iter().enumerate() {
            match (at, size) {
                (0, None) => report.rollups.created += 1,
                (0, Some(_)) if overwrite => report.rollups.replaced += 1,
                _ => report.rollups.appended += 1,
            }
            report.rolled_up.join(*batch);
            estimate.commit(old, *batch, keep);
            old += batch.bytes;
        }
        let objects: u64 = planned.batches.iter().map(|batch| batch.objects).sum();
        let rollup = planned.rollup.key(&self.shared.destination_prefix);
        let bytes: u64 = planned.batches.iter().map(|batch| batch.bytes).sum();
        let what = match size {
            None => "would be created",
            Some(_) if overwrite => "would be replaced",
            Some(_) => "would be appended to",
        };
        if !planned.batches.is_empty() {
            tracing::info!(rollup = %shown(&rollup), objects, bytes, "{what}");
        }
        if keep {
            report.kept += objects;
        } else {
            report.deleted += objects + planned.merged + planned.empty;
        }
    }
}

/// Joins a batch to the rollup it is of; gives back the one before when the listing has passed it.
fn add(current: &mut Option<Planned>, batch: Batch, pending: bool) -> Option<Planned> {
    let empty = batch.empty.len() as u64;
    let count = Count { objects: batch.sources.len() as u64, bytes: batch.bytes };
    let batches = if count.objects > 0 { vec![count] } else { Vec::new() };
    let sources = if pending && count.objects > 0 { vec![batch.sources] } else { Vec::new() };
    match current {
        Some(planned) if planned.rollup == batch.rollup => {
            planned.batches.extend(batches);
            planned.sources.extend(sources);
            planned.empty += empty;
            None
        }
        _ => current.replace(Planned { rollup: batch.rollup, batches, empty, sources, merged: 0 }),
    }
}

#[derive(Default)]
struct Estimated {
    requests: BTreeMap<Operation, u64>,
}

impl Estimated {
    fn add(&mut self, operation: Operation, count: u64) {
        *self.requests.entry(operation).or_default() += count;
    }

    /// What a batch asks after its HEAD: the sources, the manifest, the commit, the deletes.
    fn commit(&mut self, old: u64, batch: Count, keep: bool) {
        self.add(Operation::GetObject, batch.objects + u64::from(old > 0 && old < parts::SMALLEST));
        self.add(Operation::PutObject, 1);
        let whole = old + batch.bytes;
        if whole < parts::SMALLEST {
            self.add(Operation::PutObject, 1);
        } else {
            let copied = if old < parts::SMALLEST { 0 } else { old };
            let sent = whole - copied;
            let part = parts::Layout::new(copied, sent.max(1)).map_or(parts::SMALLEST, |layout| layout.part);
            self.add(Operation::CreateMultipartUpload, 1);
            self.add(Operation::UploadPartCopy, copied.div_ceil(parts::LARGEST));
            self.add(Operation::UploadPart, sent.div_ceil(part));
            self.add(Operation::CompleteMultipartUpload, 1);
        }
        if !keep {
            self.add(Operation::DeleteObjects, batch.objects.div_ceil(DELETE_KEYS as u64));
            self.add(Operation::DeleteObject, 1);
        }
    }

    fn priced(self) -> Estimate {
        let price = |operation: Operation| match operation {
            Operation::DeleteObject | Operation::DeleteObjects | Operation::AbortMultipartUpload => 0.0,
            operation if operation.reads_an_object() => READ_PRICE,
            _ => WRITE_PRICE,
        };
        #[allow(clippy::cast_precision_loss, reason = "a price need not be exact beyond 2⁵² requests")]
        let dollars = self.requests.iter().map(|(operation, count)| price(*operation) * *count as f64).sum();
        let requests = self.requests.iter().filter(|(_, count)| **count > 0);
        Estimate { requests: requests.map(|(operation, count)| (operation.to_string(), *count)).collect(), dollars }
    }
}
