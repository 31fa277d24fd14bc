//! Runs the [protocol] of one rollup against S3: performs its requests and feeds back their answers.
//!
//! Every decision is the machine's. What stands here is only how a request of the machine becomes requests to S3, and
//! how S3's answers are called in the machine's words.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};
use futures::future::LocalBoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::fetch::{self, Body, Ended, Gathered, Job, Upload};
use crate::layout::RollupName;
use crate::manifest::{self, BatchId, Block, Scope};
use crate::parts;
use crate::plan::{Batch, KeyRange};
use crate::protocol::{
    self, Answer, Base, Machine, Now, Object, Offer, Old, Policy, Request, Slot, Sources, Undeleted, World,
};
use crate::report::{Count, Report};
use crate::source::{ETag, Source};
use crate::store::{self, Condition, Failure, Head, Kind, Part, Store};

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
        let listed: std::collections::HashSet<&str> = offer.sources.iter().map(|source| &*source.key).collect();
        let within = |key: &str| after.as_deref().is_none_or(|after| key > after) && key <= &**until;
        let carried = carried.iter().flat_map(|list| list.iter());
        carried.filter(|source| within(&source.key) && !listed.contains(&*source.key)).cloned().collect()
    }
}

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
    /// Bytes of small old rollups that wait for room in the buffer, [`OLD_BYTES`] at most.
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
    /// Told whenever a rollup may take another batch.
    pub room: Notify,
}

impl Shared {
    /// Says once a pass what appends cost in a versioned bucket.
    fn warn_of_versions(&self) {
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

/// Where the pass puts batches for a rollup that is being worked on.
#[derive(Debug, Default)]
pub struct Mailbox {
    batches: RefCell<VecDeque<Batch>>,
    /// The listing has passed the rollup.
    passed: Cell<bool>,
    /// The work has ended: a further batch needs a new one.
    ended: Cell<bool>,
    /// Batches that the machine has not begun, and sources that it holds in memory.
    backlog: Cell<(usize, usize)>,
    news: Notify,
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

/// A body on its way from `Gather` to `Commit`.
struct Gatherer {
    upload: Arc<Upload>,
    cancel: watch::Sender<bool>,
    /// Ends with the reading.
    done: oneshot::Receiver<()>,
    /// Size and CRC64NVME of the old bytes that were read.
    read: Option<(u64, u64)>,
    ready: Option<Ready>,
}

struct Ready {
    gathered: Gathered,
    count: Count,
    /// The memory of a body that is kept whole, given back with it.
    memory: Option<OwnedSemaphorePermit>,
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
    /// Manifests whose tag is known.
    manifests: RefCell<HashMap<BatchId, ETag>>,
    /// Commits whose fate is open: what they would have added.
    doubtful: RefCell<HashMap<BatchId, (Count, Change)>>,
    trouble: RefCell<Option<Trouble>>,
    /// Writes that were not answered.
    unanswered: Cell<u8>,
    /// R stands in a versioned bucket.
    versioned: Cell<bool>,
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
                self.key
            )),
            protocol::Failure::OnlyCopy => Trouble::Other(format!(
                "the sources of s3://{}/{} were deleted, so it is the only copy of their lines, and ROLLUP_OVERWRITE would \
                 destroy them: move the rollup away first, or run without it",
                self.shared.destination.bucket(),
                self.key
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

    /// A 403 that hid a 404, or that was not met again.
    fn forget_denial(&self) {
        self.trouble.borrow_mut().take_if(|trouble| {
            matches!(trouble, Trouble::Store(failure)
                if failure.kind == Kind::Denied && failure.operation.reads_an_object())
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

    async fn head(&self, again: u8) -> Answer<S3> {
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
                self.key
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
                    self.key,
                    text.escape_debug()
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

    /// A commit whose answer was lost counts when R names it.
    fn settle_doubt(&self, batch: Option<BatchId>) {
        let mut doubtful = self.doubtful.borrow_mut();
        if let Some((added, change)) = batch.and_then(|batch| doubtful.remove(&batch)) {
            self.count_commit(added, change);
        }
    }

    fn count_commit(&self, added: Count, change: Change) {
        tracing::info!(rollup = %self.key.escape_debug(), objects = added.objects, bytes = added.bytes, "{change}");
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

    fn key_of(&self, object: Object<S3>) -> String {
        match object {
            Object::Rollup => self.key.clone(),
            Object::Manifest(batch) => self.manifest_key(batch),
        }
    }

    fn manifest_key(&self, batch: BatchId) -> String {
        manifest::key(&self.shared.destination_prefix, self.name.as_str(), batch)
    }

    async fn find(&self, object: Object<S3>) -> Answer<S3> {
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
            Ok(true) => self.failed(Failure { detail: format!("{}, but it is listed", failure.detail), ..failure }),
            Err(failure) => self.failed(failure),
        }
    }

    async fn get_manifest(&self, batch: BatchId) -> Answer<S3> {
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
                Answer::Manifest(protocol::Manifest {
                    base: read.base,
                    merged: vec![read.merged],
                    foreign: read.foreign,
                })
            }
            Err(unreadable) => self.failed_because(format!(
                "the manifest s3://{}/{key} cannot be used: {unreadable}. It says which sources are in the rollup \
                 already, so nothing of this rollup was touched",
                self.shared.destination.bucket()
            )),
        }
    }

    async fn read_old(&self, etag: &ETag, size: u64) -> Answer<S3> {
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

    fn start_gather(&self, slot: Slot<S3>, batch: BatchId, sources: Arc<[Source]>, old: &Old) -> Performed<'_> {
        let copied = if let Old::Copied(size) = old { *size } else { 0 };
        let old = if *old == Old::Read { self.old.take() } else { Bytes::new() };
        let expected: u64 = sources.iter().map(|source| source.size + 1).sum::<u64>() + old.len() as u64 + 1;
        let Some(layout) = parts::Layout::new(copied, expected) else {
            let why = format!(
                "s3://{}/{} would be larger than S3 allows an object to be (48.8 TiB in 10,000 parts): use a smaller \
                 ROLLUP_LEVEL",
                self.shared.destination.bucket(),
                self.key
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
        let job = Job { from, sources, old, open_line, upload, budget: self.shared.window.into() };
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
        let wanted = u32::try_from(expected).unwrap_or(u32::MAX).min(self.shared.window);
        let permit = tokio::select! {
            biased;
            _ = cancelled.wait_for(|cancelled| *cancelled) => return None,
            permit = Arc::clone(&self.shared.buffer).acquire_many_owned(wanted) => permit.ok(),
        };
        // From here on the old bytes are paid for by the gathering.
        self.old_memory.take();
        let sources = Arc::clone(&job.sources);
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
                    tracing::warn!(%key, "a source cannot be read and is left: {failure}");
                    report.troubled += 1;
                    "unreadable"
                }
            };
            report.leave(reason, key, *size);
        }
    }

    async fn check_kept(&self, sources: &[Source]) -> Answer<S3> {
        let now = self.heads(sources).await;
        let gone = sources.iter().zip(now).filter(|(_, now)| matches!(now, Now::Gone | Now::Replaced));
        Answer::Gone(gone.map(|(source, _)| source.clone()).collect())
    }

    async fn heads(&self, sources: &[Source]) -> Vec<Now> {
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

    async fn put_manifest(&self, batch: BatchId, written: &protocol::Manifest<S3>) -> Answer<S3> {
        let protocol::Manifest { base, merged, foreign } = written;
        let body: Bytes =
            manifest::encode(self.name.as_str(), base.as_ref(), self.shared.scope(), merged, foreign).into();
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

    async fn commit(&self, batch: BatchId, base: Base<S3>) -> Answer<S3> {
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
                self.key
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
    async fn discard(&self, batch: BatchId) -> Answer<S3> {
        let Some(Gatherer { upload, cancel, done, .. }) = self.bodies.borrow_mut().remove(&batch) else {
            return Answer::Done;
        };
        // Nobody listens where the reading has ended.
        let _ = cancel.send(true);
        let _ = done.await;
        upload.abort().await;
        Answer::Done
    }

    async fn delete_sources(&self, lists: &[Sources<S3>]) -> Answer<S3> {
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

    async fn delete_manifest(&self, batch: BatchId) -> Answer<S3> {
        let etag = self.manifests.borrow_mut().remove(&batch);
        match self.shared.destination.delete(&self.manifest_key(batch), etag.as_ref()).await {
            Ok(()) => Answer::Done,
            // Somebody else's by now: leave it.
            Err(failure) if matches!(failure.kind, Kind::Condition | Kind::Conflict) => Answer::Done,
            Err(failure) => self.failed(failure),
        }
    }
}

/// What a commit did to R.
#[derive(Clone, Copy)]
enum Change {
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

fn offer(batch: Batch) -> Offer<S3> {
    Offer { sources: batch.sources.into(), empty: batch.empty.into(), scope: batch.covers }
}
