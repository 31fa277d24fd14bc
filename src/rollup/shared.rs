//! What all rollups of a pass share.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};

use crate::layout::RollupName;
use crate::manifest::Scope;
use crate::protocol::Policy;
use crate::report::Report;
use crate::store::Store;

/// What all rollups of a pass share.
#[derive(Debug)]
pub struct Shared {
    /// The bucket of the sources.
    pub source: Store,
    /// Keys that this run may delete.
    pub source_prefix: String,
    /// The bucket of the rollups.
    pub destination: Store,
    /// Empty, or ends in `/`.
    pub destination_prefix: String,
    /// How the machine treats what it finds.
    pub policy: Policy,
    /// The store copies parts into uploads with a CRC64NVME of the whole.
    pub checksummed_copies: Cell<bool>,
    /// Bytes of log data in memory.
    pub buffer: Arc<Semaphore>,
    /// The batch that may ask for its sources first.
    pub turn: Arc<Semaphore>,
    /// Bytes of small old rollups that wait for room in the buffer, [`OLD_BYTES`](super::OLD_BYTES) at most.
    pub old: Arc<Semaphore>,
    /// Rollups that OVERWRITE has rebuilt in this pass.
    pub replaced: RefCell<HashSet<RollupName>>,
    /// Bytes of one large batch in memory.
    pub window: u32,
    /// Random batch ids.
    pub random: RefCell<fastrand::Rng>,
    /// What was done.
    pub report: RefCell<Report>,
    /// Turns true when nothing new is to be begun.
    pub stop: watch::Receiver<bool>,
    /// The warning about versions was given.
    pub warned_of_versions: Cell<bool>,
    /// The store does not list uploads, or not for us.
    pub uploads_unlisted: Cell<bool>,
    /// Told whenever a rollup may take another batch.
    pub room: Notify,
}

impl Shared {
    /// Says once a pass what appends cost in a versioned bucket.
    pub(super) fn warn_of_versions(&self) {
        if !self.warned_of_versions.replace(true) {
            tracing::warn!(
                "s3://{} is versioned: each append keeps the rollup as it was before as a noncurrent version. Add a \
                 lifecycle rule with NoncurrentVersionExpiration, or set ROLLUP_SETTLE so that appends are rare",
                self.destination.bucket()
            );
        }
    }

    /// What this run may delete.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope { bucket: self.source.bucket(), prefix: &self.source_prefix }
    }
}
