//! The listing of the sources, from where a pass begins it, and what is planned of it.

use std::collections::{HashSet, VecDeque};

use futures::future::LocalBoxFuture;

use crate::error::Error;
use crate::layout::RollupName;
use crate::plan::{Batch, Planner, Reason, Shard};
use crate::report::{Count, Report};
use crate::store::{Failure, Page, Start, Store};

/// Folders that may lie around those that tell the groups apart: S3's partitioned prefixes have an account's and a
/// region's, and a bucket of logs may have some of its own above them.
const DEEPEST: usize = 4;

/// What is being listed.
enum Stretch {
    Whole,
    /// Behind a key; what lies before it comes next, as a listing of its own.
    Behind(String),
    /// Up to that key, itself included.
    UpTo(String),
}

/// The listing of the sources, and what is planned of it.
pub(super) struct Lister<'l> {
    store: &'l Store,
    prefix: String,
    pub(super) planner: Planner,
    /// Where the listing goes on; `None` when it has ended.
    next: Option<Start>,
    stretch: Stretch,
    /// A page that is not planned yet.
    pub(super) page: Option<Page>,
    asked: Option<LocalBoxFuture<'l, Result<Page, Failure>>>,
    pub(super) ready: VecDeque<Batch>,
    /// Rollups whose batches are left in this pass.
    pub(super) given_up: HashSet<RollupName>,
    finished: bool,
}

impl<'l> Lister<'l> {
    pub(super) fn new(store: &'l Store, prefix: &str, planner: Planner) -> Self {
        Self {
            store,
            prefix: prefix.to_owned(),
            planner,
            next: Some(Start::First),
            stretch: Stretch::Whole,
            page: None,
            asked: None,
            ready: VecDeque::new(),
            given_up: HashSet::new(),
            finished: false,
        }
    }

    /// Begins at a folder of the shard's own, as far as there are enough, and not where every other shard begins: they
    /// would all be in one partition at a time, and share its limits.
    pub(super) async fn begin_apart(&mut self, shard: Shard) -> Result<(), Failure> {
        if let Some(folder) = self.folder_of(shard).await? {
            self.planner.begin_behind(&folder);
            self.next = Some(Start::After(folder.clone()));
            self.stretch = Stretch::Behind(folder);
        }
        Ok(())
    }

    /// `None`: the first folder, or there are none.
    async fn folder_of(&self, shard: Shard) -> Result<Option<String>, Failure> {
        if shard == Shard::WHOLE {
            return Ok(None);
        }
        let mut prefix = self.prefix.clone();
        for _ in 0..DEEPEST {
            let mut found = self.store.list_folder(&prefix).await?;
            match found.folders.len() {
                1 if found.objects.is_empty() => prefix = found.folders.remove(0),
                many => {
                    let own = shard.share_of(many);
                    return Ok((own > 0).then(|| found.folders.swap_remove(own)));
                }
            }
        }
        Ok(None)
    }

    /// Everything was listed and handed on.
    pub(super) fn is_done(&self) -> bool {
        self.finished && self.ready.is_empty()
    }

    pub(super) fn wants_page(&self) -> bool {
        self.page.is_none() && self.next.is_some()
    }

    /// The next page. What was asked stays asked when this is dropped.
    pub(super) async fn page(&mut self) -> Result<Page, Failure> {
        let (store, prefix) = (self.store, self.prefix.clone());
        let start = self.next.clone().unwrap_or(Start::First);
        let asked = self.asked.get_or_insert_with(|| Box::pin(async move { store.list(&prefix, &start).await }));
        let page = asked.await;
        self.asked = None;
        let mut page = page?;
        self.cut(&mut page);
        let last = page.objects.last().map(|object| object.key.as_str());
        let next = match (page.next.clone(), last) {
            (None, _) => self.turn(),
            // Where the window leaves the rest of a year out, the listing jumps over it.
            (Some(token), last) => {
                Some(last.and_then(|l| self.planner.skip_to(l)).map_or(Start::Token(token), Start::After))
            }
        };
        if next.is_some() && next == self.next {
            return Err(self.store.does_not_advance(&self.prefix));
        }
        self.next = next;
        Ok(page)
    }

    /// Ends the listing where it began.
    fn cut(&self, page: &mut Page) {
        let Stretch::UpTo(until) = &self.stretch else { return };
        if page.objects.last().is_some_and(|last| last.key > *until) {
            page.objects.retain(|object| object.key <= *until);
            page.next = None;
        }
    }

    /// From the last key to the first, where the listing has begun in the middle.
    fn turn(&mut self) -> Option<Start> {
        let Stretch::Behind(begun) = &self.stretch else { return None };
        self.stretch = Stretch::UpTo(begun.clone());
        Some(Start::First)
    }

    pub(super) fn plan(&mut self, page: &Page) -> Result<(), Error> {
        for object in &page.objects {
            let batch = self.planner.push(object.listed())?;
            self.take(batch);
        }
        if page.next.is_none() {
            let batch = self.planner.finish()?;
            self.take(batch);
            self.finished = self.next.is_none();
        }
        Ok(())
    }

    fn take(&mut self, batch: Option<Batch>) {
        self.ready.extend(batch);
    }

    pub(super) fn report(&self, report: &mut Report) {
        let tally = self.planner.tally();
        report.found = Count { objects: tally.listed.objects, bytes: tally.listed.bytes };
        for reason in Reason::ALL {
            let left = tally.left(reason);
            if left.count.objects > 0 {
                let count = Count { objects: left.count.objects, bytes: left.count.bytes };
                report.leave_all(&reason.to_string(), count, &left.examples);
            }
        }
    }
}
