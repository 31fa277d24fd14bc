//! What a pass hands to a rollup that is being worked on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::plan::Batch;

/// Where the pass puts batches for a rollup that is being worked on.
#[derive(Debug, Default)]
pub struct Mailbox {
    pub(super) batches: RefCell<VecDeque<Batch>>,
    /// The listing has passed the rollup.
    pub(super) passed: Cell<bool>,
    /// The work has ended: a further batch needs a new one.
    pub(super) ended: Cell<bool>,
    /// Batches that the machine has not begun, and sources that it holds in memory.
    pub(super) backlog: Cell<(usize, usize)>,
    pub(super) news: Notify,
}

impl Mailbox {
    /// Hands on a batch.
    pub fn put(&self, batch: Batch) {
        self.batches.borrow_mut().push_back(batch);
        self.news.notify_one();
    }

    /// Says that the listing has passed the rollup (or has come back to it).
    pub fn set_passed(&self, passed: bool) {
        if self.passed.replace(passed) != passed {
            self.news.notify_one();
        }
    }

    /// The work has ended: a further batch needs a new mailbox.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Takes back the batches that were not begun.
    pub fn take_back(&self) -> VecDeque<Batch> {
        self.batches.take()
    }

    /// Batches that were not begun.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.batches.borrow().len() + self.backlog.get().0
    }

    /// Sources in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        let batches = self.batches.borrow();
        batches.iter().map(|batch| batch.sources.len() + batch.empty.len()).sum::<usize>() + self.backlog.get().1
    }
}
