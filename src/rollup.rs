//! Runs the [protocol] of one rollup against S3: performs its requests and feeds back their answers.
//!
//! Every decision is the machine's. What stands here is only how a request of the machine becomes requests to S3, and
//! how S3's answers are called in the machine's words.

mod commit;
mod gather;
mod leftovers;
mod look;
mod mailbox;
mod remove;
mod shared;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

pub use mailbox::Mailbox;
pub use shared::Shared;

use self::commit::Change;
use self::gather::Gatherer;
use crate::layout::RollupName;
use crate::manifest::{BatchId, Block};
use crate::plan::{Batch, KeyRange};
use crate::protocol::{self, Answer, Machine, Offer, Request, Slot, Sources, World};
use crate::report::Count;
use crate::shown::shown;
use crate::source::{ETag, Source};
use crate::store::{Failure, Head, Kind};

/// HEADs of sources and copies of parts in flight, of one rollup.
const SIDE_REQUESTS: usize = 16;

/// Writes of a rollup whose retries were all in vain: the first is planned anew, as one whose fate is open, the next
/// ends the rollup's work in this pass. Each has taken long enough.
const MOST_UNANSWERED: u8 = 2;

/// Bytes of old rollups smaller than a part that may be in memory while they wait for the buffer.
pub const OLD_BYTES: u32 = 10 << 20;

/// The protocol's world on S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct S3;

impl World for S3 {
    type Source = Source;
    type ETag = ETag;
    type Batch = BatchId;
    type Foreign = Arc<[Block]>;
    type Scope = Option<KeyRange>;

    fn none(foreign: &Self::Foreign) -> bool {
        foreign.is_empty()
    }

    fn unlisted(offer: &Offer<Self>, carried: &[Sources<Self>]) -> Vec<Source> {
        let Some(KeyRange { after, until }) = &offer.scope else { return Vec::new() };
        let within = |key: &str| after.as_deref().is_none_or(|after| key > after) && key <= &**until;
        let carried = carried.iter().flat_map(|list| list.iter());
        let mut carried = carried.filter(|source| within(&source.key)).peekable();
        // Without KEEP nothing is, and a batch is large.
        if carried.peek().is_none() {
            return Vec::new();
        }
        let listed: HashSet<&str> = offer.sources.iter().map(|source| &*source.key).collect();
        carried.filter(|source| !listed.contains(&*source.key)).cloned().collect()
    }
}

/// How the work on a rollup ended.
#[derive(Debug)]
pub struct Outcome {
    /// The rollup.
    pub name: RollupName,
    /// Its mailbox.
    pub mailbox: Rc<Mailbox>,
    /// Why it was given up, if it was.
    pub trouble: Option<Trouble>,
    /// Sources that are in it and could not be deleted.
    pub undeleted: Vec<Source>,
}

/// Why a rollup was given up.
#[derive(Debug)]
pub enum Trouble {
    /// A request failed.
    Store(Failure),
    /// Anything else, as a sentence.
    Other(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(failure) => failure.fmt(f),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// One rollup in one pass.
pub struct Rollup<'p> {
    shared: &'p Shared,
    name: RollupName,
    key: String,
    mailbox: Rc<Mailbox>,
    /// R as it was last seen, or as an own commit made it.
    head: RefCell<Option<Head>>,
    old: RefCell<Bytes>,
    old_memory: RefCell<Option<OwnedSemaphorePermit>>,
    open_line: Cell<bool>,
    bodies: RefCell<HashMap<BatchId, Gatherer>>,
    /// Manifests whose tag is known; in the order in which they are asked for, the same in every run.
    manifests: RefCell<BTreeMap<BatchId, ETag>>,
    /// Commits whose fate is open: what they would have added.
    doubtful: RefCell<HashMap<BatchId, (Count, Change)>>,
    trouble: RefCell<Option<Trouble>>,
    /// Writes that were not answered.
    unanswered: Cell<u8>,
    /// R stands in a versioned bucket.
    versioned: Cell<bool>,
    /// The uploads under R's key were looked for.
    uploads_listed: Cell<bool>,
    /// Those that were found, by their ids.
    uploads: RefCell<Vec<String>>,
    /// Those that the manifest of the batch being committed names.
    doomed: RefCell<Vec<String>>,
}

type Performed<'r> = LocalBoxFuture<'r, (Slot<S3>, Option<Answer<S3>>)>;

impl<'p> Rollup<'p> {
    /// A rollup of which these manifests were listed.
    #[must_use]
    pub fn new(shared: &'p Shared, name: RollupName, listed: &[(BatchId, ETag)], mailbox: Rc<Mailbox>) -> Self {
        let key = name.key(&shared.destination_prefix);
        Self {
            shared,
            key,
            name,
            mailbox,
            head: RefCell::default(),
            old: RefCell::default(),
            old_memory: RefCell::default(),
            open_line: Cell::new(false),
            bodies: RefCell::default(),
            manifests: RefCell::new(listed.iter().cloned().collect()),
            doubtful: RefCell::default(),
            trouble: RefCell::default(),
            unanswered: Cell::new(0),
            versioned: Cell::new(false),
            uploads_listed: Cell::new(false),
            uploads: RefCell::default(),
            doomed: RefCell::default(),
        }
    }

    /// Works until the listing has passed the rollup and all is done.
    pub async fn run(self) -> Outcome {
        let listed: Vec<_> = self.manifests.borrow().keys().copied().collect();
        let mut policy = self.shared.policy;
        // Once a pass: another group of the same name appends to what this pass has rebuilt.
        policy.overwrite &= !self.shared.replaced.borrow().contains(&self.name);
        let mut machine = Machine::<S3>::new(policy, listed);
        self.drive(&mut machine).await;
        self.mailbox.ended.set(true);
        if policy.overwrite && !machine.replaces() {
            self.shared.replaced.borrow_mut().insert(self.name.clone());
        }
        let undeleted = self.report_undeleted(&machine);
        let trouble = machine.failure().map(|failure| self.trouble_of(failure));
        Outcome { name: self.name, mailbox: self.mailbox, trouble, undeleted }
    }

    /// Sources that are in R and stay, against the settings.
    fn report_undeleted(&self, machine: &Machine<S3>) -> Vec<Source> {
        let undeleted: Vec<Source> = machine.undeleted().iter().flat_map(|list| list.iter()).cloned().collect();
        let mut report = self.shared.report.borrow_mut();
        for Source { key, size, .. } in &undeleted {
            report.troubled += 1;
            report.leave("rolled up but not deleted", key, *size);
        }
        undeleted
    }

    fn trouble_of(&self, failure: protocol::Failure) -> Trouble {
        match failure {
            protocol::Failure::Request => {
                self.trouble.take().unwrap_or_else(|| Trouble::Other("a request failed".into()))
            }
            protocol::Failure::Contended => Trouble::Other(format!(
                "s3://{}/{} was changed by somebody else at every attempt: run again when no other run works on it",
                self.shared.destination.bucket(),
                shown(&self.key)
            )),
            protocol::Failure::OnlyCopy => Trouble::Other(format!(
                "sources of s3://{}/{} were deleted, so it is the only copy of their lines, and ROLLUP_OVERWRITE would \
                 destroy them: move the rollup away first, or run without it",
                self.shared.destination.bucket(),
                shown(&self.key)
            )),
            protocol::Failure::TooManyKept => Trouble::Other(format!(
                "with ROLLUP_KEEP a rollup remembers at most {} sources, and this one has more: run once without it, or \
                 use a smaller ROLLUP_LEVEL",
                self.shared.policy.max_kept
            )),
        }
    }

    async fn drive(&self, machine: &mut Machine<S3>) {
        let mut stop = self.shared.stop.clone();
        let mut stopped = false;
        let mut outstanding: FuturesUnordered<Performed<'_>> = FuturesUnordered::new();
        loop {
            if machine.failure().is_some() && machine.idle() {
                return;
            }
            while machine.failure().is_none()
                && let Some(batch) = self.mailbox.batches.borrow_mut().pop_front()
            {
                machine.offer(offer(batch));
                self.shared.room.notify_one();
            }
            if self.mailbox.passed.get() {
                machine.close();
            }
            let requests = machine.poll(&mut || BatchId::fresh(&mut self.shared.random.borrow_mut()));
            for (slot, request) in requests {
                outstanding.push(self.start(slot, request));
            }
            let backlog = (machine.backlog(), machine.held());
            if self.mailbox.backlog.replace(backlog) != backlog {
                self.shared.room.notify_one();
            }
            if machine.finished() && (self.mailbox.passed.get() || stopped) {
                return;
            }
            tokio::select! {
                biased;
                Some((slot, answer)) = outstanding.next() => {
                    if let Some(answer) = answer {
                        machine.answer(slot, answer);
                    }
                }
                () = self.mailbox.news.notified() => {}
                _ = stop.wait_for(|stop| *stop), if !stopped => {
                    stopped = true;
                    machine.stop();
                }
            }
        }
    }

    fn start(&self, slot: Slot<S3>, request: Request<S3>) -> Performed<'_> {
        if let Request::Gather { batch, sources, old } = request {
            return self.start_gather(slot, batch, sources, &old);
        }
        Box::pin(async move { (slot, Some(self.perform(request).await)) })
    }

    async fn perform(&self, request: Request<S3>) -> Answer<S3> {
        match request {
            Request::Head { again } => self.head(again).await,
            Request::Find(object) => self.find(object).await,
            Request::GetManifest(batch) => self.get_manifest(batch).await,
            Request::ReadOld { etag, size } => self.read_old(&etag, size).await,
            Request::CheckKept(sources) => self.check_kept(&sources).await,
            Request::PutManifest { batch, manifest } => self.put_manifest(batch, &manifest).await,
            Request::Commit { batch, base } => self.commit(batch, base).await,
            Request::Discard(batch) => self.discard(batch).await,
            Request::DeleteSources(sources) => self.delete_sources(&sources).await,
            Request::HeadSources(sources) => Answer::Heads(self.heads(&sources).await),
            Request::DeleteManifest(batch) => self.delete_manifest(batch).await,
            Request::Gather { .. } => unreachable!("it is started apart, since it may be cancelled"),
        }
    }

    /// A 403 that hid a 404, or a refusal that was not met again.
    fn forget_denial(&self) {
        self.trouble.borrow_mut().take_if(|trouble| {
            matches!(trouble, Trouble::Store(failure)
                if matches!(failure.kind, Kind::Denied | Kind::Missing) && failure.operation.reads_an_object())
        });
    }

    fn failed(&self, failure: Failure) -> Answer<S3> {
        self.trouble.borrow_mut().get_or_insert(Trouble::Store(failure));
        Answer::Failed
    }

    /// A write may or may not have been applied.
    fn unanswered(&self, failure: Failure) -> Answer<S3> {
        self.unanswered.update(|count| count + 1);
        if self.unanswered.get() < MOST_UNANSWERED { Answer::NoAnswer } else { self.failed(failure) }
    }

    fn failed_because(&self, why: String) -> Answer<S3> {
        self.trouble.borrow_mut().get_or_insert(Trouble::Other(why));
        Answer::Failed
    }
}

fn offer(batch: Batch) -> Offer<S3> {
    Offer { sources: batch.sources.into(), empty: batch.empty.into(), scope: batch.covers }
}
