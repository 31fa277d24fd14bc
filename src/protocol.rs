//! The commit protocol of one rollup as a state machine without I/O.
//!
//! [`Machine`] holds every decision: it names the next requests and takes their answers, among them "no answer: it may
//! or may not have been applied". It owns no bytes, no clock, no names of buckets; the executor that performs the
//! requests owns those, and the tests put a model of S3 in its place. Several requests may be outstanding, each in a
//! [`Slot`] of its own: a chain reads ahead while it commits and while the sources of earlier batches are deleted.
//!
//! In the words used here a rollup `R` has an `ETag` `e` (its *base*, `None` where R is absent) and names the batch
//! `p` that last changed it. A batch is *merged* when its commit is known to have been applied.
//!
//! Why it is safe, in five sentences; the search beside this file checks each of them in every reachable state.
//! A manifest that lists every source of a batch exists before its commit. The commit is conditional on the base,
//! so whoever planned on another state of R is refused. Whoever finds `p` on R excludes or deletes the sources of
//! its manifest before reading any other. A source is deleted only when the batch that holds it is known to be
//! committed. A manifest is deleted only when it can never commit any more, or when nothing depends on it.

use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;

#[cfg(test)]
mod model;
#[cfg(test)]
mod search;

/// The vocabulary of a world in which the protocol runs: Amazon S3, or a model of it.
pub trait World: Clone + Debug + Eq + Hash {
    /// A source log object; equal only to the very same object.
    type Source: Clone + Debug + Eq + Hash;
    /// The entity tag of a rollup.
    type ETag: Clone + Debug + Eq + Hash;
    /// A batch's id, which is also the name of its manifest.
    type Batch: Copy + Debug + Eq + Hash;
    /// Manifest entries of other sources that write to the same rollup: carried, never deleted.
    type Foreign: Clone + Debug + Default + Eq + Hash;
    /// What the listing knew when it handed on a batch.
    type Scope: Clone + Debug + Eq + Hash;

    /// Are there no entries of other sources?
    fn none(foreign: &Self::Foreign) -> bool;

    /// The entries of `carried` that the listing behind `offer` should have shown and did not. Only a hint where to
    /// look: an entry is dropped when S3 confirms that the source is gone.
    fn unlisted(offer: &Offer<Self>, carried: &[Sources<Self>]) -> Vec<Self::Source>;
}

/// A shared list of sources.
pub type Sources<W> = Arc<[<W as World>::Source]>;

/// The state of R that a batch is planned on: its `ETag`, or `None` where R is absent.
pub type Base<W> = Option<<W as World>::ETag>;

/// Candidates of one batch, as the plan hands them on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer<W: World> {
    /// Listed sources with bytes, in key order.
    pub sources: Sources<W>,
    /// Listed sources of zero bytes: they add nothing to R and are deleted without a commit.
    pub empty: Sources<W>,
    /// What the listing covered.
    pub scope: W::Scope,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manifest<W: World> {
    /// R when the batch was planned.
    pub base: Base<W>,
    /// Every source under the own bucket and prefix whose bytes are in R once the batch commits, and which may exist.
    pub merged: Vec<Sources<W>>,
    /// The same of other sources.
    pub foreign: W::Foreign,
}

/// How this run treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Delete no source.
    pub keep: bool,
    /// The first commit replaces R instead of appending to it; needs `keep`.
    pub overwrite: bool,
    /// The smallest part of a multipart upload, in bytes: a smaller R is read into the first part.
    pub min_part: u64,
    /// The most sources that a manifest may remember with `keep`.
    pub max_kept: usize,
    /// How often a batch is planned anew before the rollup fails.
    pub max_replans: u8,
}

/// What the first bytes of the new R are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Old {
    /// Nothing: R is absent, empty, or replaced.
    Nothing,
    /// The bytes that [`Request::ReadOld`] has read, fewer than a part.
    Read,
    /// So many bytes, copied on the server.
    Copied(u64),
}

/// A request that the executor performs and answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request<W: World> {
    /// HEAD R.
    Head {
        /// How often the batch was planned anew; wait a little where it is not zero.
        again: u8,
    },
    /// LIST with prefix = the key and at most one key: is it there? (S3 answers 403 for a missing key to who may not
    /// list.)
    Find(Object<W>),
    /// GET a manifest of R.
    GetManifest(W::Batch),
    /// GET R if it still has this tag: all of it where it is smaller than a part, else its last byte (does R end in a
    /// newline?).
    ReadOld {
        /// The tag that HEAD showed.
        etag: W::ETag,
        /// Bytes.
        size: u64,
    },
    /// Read the sources in this order and build the body of the batch, sending parts on the way.
    Gather {
        /// The batch.
        batch: W::Batch,
        /// Its candidates.
        sources: Sources<W>,
        /// What comes before them.
        old: Old,
    },
    /// Which of these sources are gone (404, or another object under the key)?
    CheckKept(Sources<W>),
    /// PUT the manifest, `If-None-Match: *`.
    PutManifest {
        /// The batch, which names the object.
        batch: W::Batch,
        /// Its content.
        manifest: Manifest<W>,
    },
    /// Commit what was gathered, on the condition that R is still `base`, and name the batch in R's metadata.
    Commit {
        /// The batch.
        batch: W::Batch,
        /// What R must still be.
        base: Base<W>,
    },
    /// Throw away what was gathered: stop reading, abort the upload.
    Discard(W::Batch),
    /// Delete sources, each only if it is still the object that was read.
    DeleteSources(Vec<Sources<W>>),
    /// HEAD sources whose condition failed.
    HeadSources(Sources<W>),
    /// Delete a manifest.
    DeleteManifest(W::Batch),
}

/// An object of the rollup that may be asked for with [`Request::Find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object<W: World> {
    /// R itself.
    Rollup,
    /// A manifest of R.
    Manifest(W::Batch),
}

/// An answer to a [`Request`]; `Failed` stands for whatever outlasted the executor's retries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer<W: World> {
    /// To `Head`: R exists.
    Found {
        /// Its tag.
        etag: W::ETag,
        /// Bytes.
        size: u64,
        /// `rollup-batch` of its metadata.
        batch: Option<W::Batch>,
    },
    /// To `Head`, `GetManifest`: 404.
    Missing,
    /// To `Head`, `GetManifest`: 403, which may hide a 404.
    Denied,
    /// To `Find`: is there an object of that very key?
    There(bool),
    /// To `GetManifest`.
    Manifest(Manifest<W>),
    /// To `ReadOld`: it was read.
    Read,
    /// To `ReadOld`, `Commit`: R is not what it was (404, 409, 412), surely not applied by this request. To `Gather`:
    /// somebody has ended the upload, most likely because R has moved on.
    Changed,
    /// To `Gather`: the body is ready.
    Gathered {
        /// Positions of the sources that were left out: gone, changed or unreadable. In rising order.
        left: Vec<usize>,
        /// Bytes that the others add to R.
        added: u64,
    },
    /// To `CheckKept`: these are gone.
    Gone(Vec<W::Source>),
    /// To `PutManifest`, `Discard`, `DeleteManifest`: done.
    Done,
    /// To `Commit`: a clean 2xx, and the tag of R.
    Committed(W::ETag),
    /// To `Commit`, `PutManifest`: it may or may not have been applied, or may be later.
    NoAnswer,
    /// To `DeleteSources`: all are gone but these, by their position in the flattened list.
    Deleted(Vec<(usize, Undeleted)>),
    /// To `HeadSources`: what stands under each key now.
    Heads(Vec<Now>),
    /// To any: refused for good, or still failing after the retries.
    Failed,
}

/// Why S3 did not confirm that a source is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undeleted {
    /// Its condition failed: somebody else's object, perhaps.
    Condition,
    /// Refused for good, as every further delete would be.
    Refused,
    /// Anything else.
    Failed,
}

/// What stands under a source's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Now {
    /// Nothing.
    Gone,
    /// Another object: the next pass's candidate.
    Replaced,
    /// The object that was read.
    Same,
    /// It could not be told.
    Unknown,
}

/// Where a request is outstanding. Each slot holds one request at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot<W: World> {
    /// The steps of the batch, one after the other.
    Main,
    /// Reading sources, possibly ahead of the commit before.
    Gather(W::Batch),
    /// Deleting sources.
    Sweep,
    /// Deleting a manifest.
    Manifest(W::Batch),
    /// Throwing away what was gathered.
    Discard(W::Batch),
}

/// Why a rollup was given up in this pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// A request failed; the executor knows how.
    Request,
    /// R changed under every attempt.
    Contended,
    /// More sources than a manifest may remember with KEEP.
    TooManyKept,
    /// OVERWRITE of a rollup whose sources were deleted.
    OnlyCopy,
}

/// One batch on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt<W: World> {
    batch: W::Batch,
    /// What was handed on: what is planned anew if it comes to that.
    offer: Offer<W>,
    /// Candidates; once gathered, those whose bytes are in the body.
    sources: Sources<W>,
    added: u64,
}

/// What is known of R and may be built on: true since the HEAD of a settled R, or since an own clean commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Chain<W: World> {
    base: Base<W>,
    size: u64,
    /// R carries a batch id, so this program wrote it, and its last line is whole.
    own: bool,
    /// Sources in R that may exist and that no sweep is after.
    carried: Vec<Sources<W>>,
    foreign: W::Foreign,
    /// The manifest that R names, while it may exist.
    pending: Option<W::Batch>,
}

/// Sources to be deleted, because the batch that holds them is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sweep<W: World> {
    /// The batch; `None` for sources of zero bytes, which no manifest needs to name.
    batch: Option<W::Batch>,
    sources: Vec<Sources<W>>,
    stage: SweepStage<W>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SweepStage<W: World> {
    Waiting,
    Deleting,
    /// Asking what stands under the keys of `doubtful`; `remaining` were not deleted.
    Heading {
        doubtful: Sources<W>,
        remaining: Vec<W::Source>,
    },
}

/// A manifest of R that existed before the next HEAD.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen<W: World> {
    batch: W::Batch,
    /// Unknown until it is read.
    base: Option<Base<W>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step<W: World> {
    /// Nothing is known of R, or nothing is left to do for it.
    Idle,
    /// The chain is broken: wait until its deletes and discards have ended, then start from the HEAD.
    Breaking,
    Head {
        again: bool,
    },
    FindRollup,
    /// Steps 2 and 3: R was found as `base`, naming `batch`; `reading` is asked for.
    Settle {
        found: Chain<W>,
        reading: W::Batch,
        again: bool,
        finding: bool,
    },
    /// Step 3: the sources of R's pending manifest are being deleted.
    Settling,
    ReadOld(Attempt<W>),
    Gather(Attempt<W>),
    Check(Attempt<W>),
    PutManifest(Attempt<W>),
    Commit(Attempt<W>),
}

/// A batch that is read while the one before commits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ahead<W: World> {
    Nothing,
    Gathering(Attempt<W>),
    Gathered(Attempt<W>),
    /// Its upload is gone: to be read again.
    Lost(Offer<W>),
    Failed,
}

/// The life of one rollup during one pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing about the whole pass; the steps are an enum")]
pub struct Machine<W: World> {
    policy: Policy,
    /// The next commit replaces R.
    replace: bool,
    seen: Vec<Seen<W>>,
    unsettled: bool,
    offers: VecDeque<Offer<W>>,
    closed: bool,
    stopped: bool,
    step: Step<W>,
    chain: Option<Chain<W>>,
    ahead: Ahead<W>,
    sweeps: VecDeque<Sweep<W>>,
    removing: Vec<W::Batch>,
    discarding: Vec<W::Batch>,
    replans: u8,
    /// A commit that was refused for good: HEAD has the last word.
    condemned: Option<W::Batch>,
    failure: Option<Failure>,
    requests: Vec<(Slot<W>, Request<W>)>,
}

impl<W: World> Machine<W> {
    /// A machine for a rollup of which these manifests were listed. The LIST must have ended before the machine is
    /// first polled, since its HEAD follows: a manifest seen after the HEAD may belong to a newer state of R.
    #[must_use]
    pub fn new(policy: Policy, listed: impl IntoIterator<Item = W::Batch>) -> Self {
        let seen: Vec<_> = listed.into_iter().map(|batch| Seen { batch, base: None }).collect();
        Self {
            policy,
            replace: policy.overwrite,
            unsettled: !seen.is_empty(),
            seen,
            offers: VecDeque::new(),
            closed: false,
            stopped: false,
            step: Step::Idle,
            chain: None,
            ahead: Ahead::Nothing,
            sweeps: VecDeque::new(),
            removing: Vec::new(),
            discarding: Vec::new(),
            replans: 0,
            condemned: None,
            failure: None,
            requests: Vec::new(),
        }
    }

    /// Hands on one more batch.
    pub fn offer(&mut self, offer: Offer<W>) {
        if !self.stopped {
            self.offers.push_back(offer);
        }
    }

    /// No more batches will come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Begins nothing new: a commit under way and the deletes that follow it are finished, all else is thrown away.
    pub fn stop(&mut self) {
        self.closed = true;
        self.stopped = true;
        self.unsettled = false;
        self.drop_ahead();
        self.offers.clear();
        match mem::replace(&mut self.step, Step::Idle) {
            Step::Gather(attempt) => self.discard(attempt.batch),
            step => self.step = step,
        }
    }

    /// How many batches wait to be begun: hand on more when it is small.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.offers.len()
    }

    /// How many sources of this pass are held in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        let offered = self.offers.iter().map(|offer| offer.sources.len()).sum::<usize>();
        let attempted = match &self.step {
            Step::ReadOld(a) | Step::Gather(a) | Step::Check(a) | Step::PutManifest(a) | Step::Commit(a) => {
                a.sources.len()
            }
            _ => 0,
        };
        let ahead = match &self.ahead {
            Ahead::Gathering(a) | Ahead::Gathered(a) => a.sources.len(),
            Ahead::Lost(offer) => offer.sources.len(),
            Ahead::Nothing | Ahead::Failed => 0,
        };
        let swept = self.sweeps.iter().flat_map(|sweep| &sweep.sources).map(|list| list.len()).sum::<usize>();
        offered + attempted + ahead + swept
    }

    /// Sources of this run that are in R and may still be there, although they were to be deleted.
    #[must_use]
    pub fn undeleted(&self) -> Vec<Sources<W>> {
        if self.policy.keep {
            Vec::new()
        } else {
            self.chain.iter().flat_map(|chain| &chain.carried).cloned().collect()
        }
    }

    /// With `overwrite`: R was not replaced yet.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.replace
    }

    /// Why the rollup was given up, if it was.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Everything is done and no answer is awaited.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.closed && self.idle()
    }

    /// Nothing is outstanding and nothing can be begun before another batch is handed on.
    #[must_use]
    pub fn idle(&self) -> bool {
        matches!(self.step, Step::Idle)
            && matches!(self.ahead, Ahead::Nothing)
            && self.offers.is_empty()
            && !(self.unsettled && self.closed)
            && self.sweeps.is_empty()
            && self.removing.is_empty()
            && self.discarding.is_empty()
            && self.requests.is_empty()
    }

    /// The requests to start now. `fresh` gives batch ids that were never used before.
    pub fn poll(&mut self, fresh: &mut impl FnMut() -> W::Batch) -> Vec<(Slot<W>, Request<W>)> {
        while self.advance(fresh) {}
        mem::take(&mut self.requests)
    }

    /// Takes the answer to the request outstanding in `slot`.
    ///
    /// # Panics
    /// When nothing of that kind was asked there: a defect of the executor.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is used up by its answer")]
    pub fn answer(&mut self, slot: Slot<W>, answer: Answer<W>) {
        match slot {
            Slot::Main => self.main(answer),
            Slot::Gather(batch) => self.gathered(batch, answer),
            Slot::Sweep => self.swept(answer),
            Slot::Manifest(batch) => {
                self.removing.retain(|removing| *removing != batch);
                if answer == Answer::Failed {
                    self.fail(Failure::Request);
                }
            }
            Slot::Discard(batch) => self.discarding.retain(|discarding| *discarding != batch),
        }
    }

    fn ask(&mut self, slot: Slot<W>, request: Request<W>) {
        self.requests.push((slot, request));
    }

    fn advance(&mut self, fresh: &mut impl FnMut() -> W::Batch) -> bool {
        if let Some(sweep) = self.sweeps.front_mut()
            && sweep.stage == SweepStage::Waiting
        {
            sweep.stage = SweepStage::Deleting;
            let sources = sweep.sources.clone();
            self.ask(Slot::Sweep, Request::DeleteSources(sources));
            return true;
        }
        match &self.step {
            Step::Idle => self.begin(fresh),
            Step::Breaking if self.sweeps.is_empty() && self.discarding.is_empty() => {
                self.head();
                true
            }
            Step::Settling if self.sweeps.is_empty() => {
                self.step = Step::Idle;
                true
            }
            Step::Check(_) | Step::PutManifest(_) | Step::Commit(_) => self.read_ahead(fresh),
            _ => false,
        }
    }

    /// Takes up the next batch, or settles what was listed.
    fn begin(&mut self, fresh: &mut impl FnMut() -> W::Batch) -> bool {
        if self.stopped {
            self.offers.clear();
            return false;
        }
        let Some(offer) = self.offers.pop_front() else {
            if self.unsettled && self.closed {
                self.head();
                return true;
            }
            return false;
        };
        let offer = self.sweep_empty(offer);
        if offer.sources.is_empty() {
            return true;
        }
        let Some(chain) = &self.chain else {
            self.offers.push_front(offer);
            self.head();
            return true;
        };
        let base = chain.base.clone();
        let size = chain.size;
        let own = chain.own;
        let Some(attempt) = self.attempt(offer, None, fresh) else { return true };
        match base {
            Some(etag) if !self.replace && size > 0 && (size < self.policy.min_part || !own) => {
                self.ask(Slot::Main, Request::ReadOld { etag, size });
                self.step = Step::ReadOld(attempt);
            }
            _ => {
                let old = self.old(size);
                self.gather(&attempt, old);
                self.step = Step::Gather(attempt);
            }
        }
        true
    }

    fn old(&self, size: u64) -> Old {
        match size {
            _ if self.replace => Old::Nothing,
            0 => Old::Nothing,
            size if size < self.policy.min_part => Old::Read,
            size => Old::Copied(size),
        }
    }

    /// Sources without bytes are deleted at once: R holds all that they ever held.
    fn sweep_empty(&mut self, mut offer: Offer<W>) -> Offer<W> {
        let empty = mem::replace(&mut offer.empty, Arc::new([]));
        if !self.policy.keep && !empty.is_empty() {
            self.sweeps.push_back(Sweep { batch: None, sources: vec![empty], stage: SweepStage::Waiting });
        }
        offer
    }

    /// The candidates less those that R holds already, or `None` where nothing is left.
    fn attempt(
        &self,
        offer: Offer<W>,
        committing: Option<&Attempt<W>>,
        fresh: &mut impl FnMut() -> W::Batch,
    ) -> Option<Attempt<W>> {
        // What R holds that is about to be replaced does not count.
        let merged = if self.replace { Vec::new() } else { self.unconfirmed() };
        let merged: HashSet<&W::Source> = merged
            .iter()
            .flat_map(|list| list.iter())
            .chain(committing.iter().flat_map(|a| a.sources.iter()))
            .collect();
        let sources = if merged.is_empty() {
            Arc::clone(&offer.sources)
        } else {
            offer.sources.iter().filter(|source| !merged.contains(source)).cloned().collect()
        };
        (!sources.is_empty()).then(|| Attempt { batch: fresh(), offer, sources, added: 0 })
    }

    /// Every source in R that may still exist.
    fn unconfirmed(&self) -> Vec<Sources<W>> {
        let swept = self.sweeps.iter().filter(|sweep| sweep.batch.is_some()).flat_map(|sweep| &sweep.sources);
        self.chain.iter().flat_map(|chain| &chain.carried).chain(swept).cloned().collect()
    }

    fn gather(&mut self, attempt: &Attempt<W>, old: Old) {
        let Attempt { batch, sources, .. } = attempt;
        self.ask(Slot::Gather(*batch), Request::Gather { batch: *batch, sources: Arc::clone(sources), old });
    }

    /// Reads the next batch while this one commits: only where R will be copied on the server, since a smaller R must
    /// be read first, and with at most one batch being deleted, so that the memory stays bounded.
    fn read_ahead(&mut self, fresh: &mut impl FnMut() -> W::Batch) -> bool {
        let (Step::Check(committing) | Step::PutManifest(committing) | Step::Commit(committing)) = &self.step else {
            return false;
        };
        let Some(chain) = &self.chain else { return false };
        let size = committing.added + if self.replace { 0 } else { chain.size };
        let deleting = self.sweeps.iter().filter(|sweep| sweep.batch.is_some()).count();
        if self.ahead != Ahead::Nothing || self.stopped || size < self.policy.min_part || deleting > 1 {
            return false;
        }
        let committing = committing.clone();
        let Some(offer) = self.offers.pop_front() else { return false };
        let offer = self.sweep_empty(offer);
        if let Some(attempt) = self.attempt(offer, Some(&committing), fresh) {
            self.gather(&attempt, Old::Copied(size));
            self.ahead = Ahead::Gathering(attempt);
        }
        true
    }

    fn head(&mut self) {
        self.unsettled = false;
        self.chain = None;
        let again = self.replans;
        self.ask(Slot::Main, Request::Head { again });
        self.step = Step::Head { again: false };
    }

    fn main(&mut self, answer: Answer<W>) {
        match mem::replace(&mut self.step, Step::Idle) {
            Step::Head { again } => self.headed(again, answer),
            Step::FindRollup => self.found_rollup(&answer),
            Step::Settle { found, reading, again, finding } => self.settle(found, reading, again, finding, answer),
            Step::ReadOld(_) if self.stopped => {}
            Step::ReadOld(attempt) if answer == Answer::Read => {
                let size = self.chain.as_ref().map_or(0, |chain| chain.size);
                let old = self.old(size);
                self.gather(&attempt, old);
                self.step = Step::Gather(attempt);
            }
            Step::ReadOld(attempt) => {
                // HEAD was just allowed, so a 403 here hides a 404, once.
                let denied = answer == Answer::Denied && self.replans > 0;
                self.plan_anew(attempt, denied || answer == Answer::Failed);
            }
            Step::Check(attempt) => self.checked(attempt, answer),
            Step::PutManifest(attempt) => self.manifest_put(attempt, &answer),
            Step::Commit(attempt) => self.commit_answered(attempt, answer),
            step @ (Step::Idle | Step::Breaking | Step::Settling | Step::Gather(_)) => {
                unreachable!("{answer:?} answers nothing that was asked in {step:?}")
            }
        }
    }

    fn headed(&mut self, again: bool, answer: Answer<W>) {
        match answer {
            Answer::Found { etag, size, batch } => self.settle_found(Some(etag), size, batch),
            Answer::Missing => self.settle_found(None, 0, None),
            Answer::Denied if !again => {
                self.ask(Slot::Main, Request::Find(Object::Rollup));
                self.step = Step::FindRollup;
            }
            _ => self.fail(Failure::Request),
        }
    }

    fn found_rollup(&mut self, answer: &Answer<W>) {
        match answer {
            Answer::There(false) => self.settle_found(None, 0, None),
            Answer::There(true) => {
                self.ask(Slot::Main, Request::Head { again: 0 });
                self.step = Step::Head { again: true };
            }
            _ => self.fail(Failure::Request),
        }
    }

    /// Step 2 begins: R was seen as `base`.
    fn settle_found(&mut self, base: Base<W>, size: u64, pending: Option<W::Batch>) {
        if let Some(condemned) = self.condemned.take()
            && pending != Some(condemned)
        {
            return self.fail(Failure::Request);
        }
        if self.seen.iter().any(|seen| Some(seen.batch) == pending && seen.base.is_some()) {
            // A commit went through although its answer was lost; with OVERWRITE, which runs alone, it was our own.
            self.replace = false;
            self.replans = 0;
        }
        let own = pending.is_some();
        let found = Chain { base, size, own, carried: Vec::new(), foreign: W::Foreign::default(), pending };
        self.settle_next(found);
    }

    /// Reads the manifests of the LIST whose base is unknown, removes those that can never commit, then turns to the
    /// one that R names.
    fn settle_next(&mut self, found: Chain<W>) {
        if let Some(pending) = found.pending {
            self.seen.retain(|seen| seen.batch != pending);
        }
        let unread = self.seen.iter().find(|seen| seen.base.is_none()).map(|seen| seen.batch);
        if let Some(reading) = unread.or(found.pending) {
            self.ask(Slot::Main, Request::GetManifest(reading));
            self.step = Step::Settle { found, reading, again: false, finding: false };
            return;
        }
        self.collect_garbage(found.base.as_ref());
        self.chain = Some(found);
    }

    /// A manifest that R does not name and that was planned on another state of R can never commit.
    fn collect_garbage(&mut self, base: Option<&W::ETag>) {
        let (alive, garbage) = mem::take(&mut self.seen)
            .into_iter()
            .partition(|seen| seen.base.as_ref().is_some_and(|planned| planned.as_ref() == base));
        self.seen = alive;
        for Seen { batch, .. } in garbage {
            self.remove(batch);
        }
    }

    fn settle(&mut self, found: Chain<W>, reading: W::Batch, again: bool, finding: bool, answer: Answer<W>) {
        match answer {
            Answer::Manifest(manifest) => self.settle_read(found, reading, manifest),
            Answer::Missing => self.settle_missing(found, reading),
            Answer::There(false) if finding => self.settle_missing(found, reading),
            Answer::There(true) if finding => {
                self.ask(Slot::Main, Request::GetManifest(reading));
                self.step = Step::Settle { found, reading, again: true, finding: false };
            }
            Answer::Denied if !again => {
                self.ask(Slot::Main, Request::Find(Object::Manifest(reading)));
                self.step = Step::Settle { found, reading, again, finding: true };
            }
            _ => self.fail(Failure::Request),
        }
    }

    fn settle_missing(&mut self, mut found: Chain<W>, reading: W::Batch) {
        if found.pending == Some(reading) {
            found.pending = None;
            if self.replace {
                // Its sources were deleted: R is the only copy of their lines.
                return self.fail(Failure::OnlyCopy);
            }
        } else {
            self.seen.retain(|seen| seen.batch != reading);
        }
        self.settle_next(found);
    }

    fn settle_read(&mut self, mut found: Chain<W>, reading: W::Batch, manifest: Manifest<W>) {
        if found.pending != Some(reading) {
            for seen in self.seen.iter_mut().filter(|seen| seen.batch == reading) {
                seen.base = Some(manifest.base.clone());
            }
            return self.settle_next(found);
        }
        self.collect_garbage(found.base.as_ref());
        found.foreign = manifest.foreign;
        if self.policy.keep {
            found.carried = manifest.merged;
            self.chain = Some(found);
        } else {
            self.chain = Some(found);
            self.sweeps.push_back(Sweep { batch: Some(reading), sources: manifest.merged, stage: SweepStage::Waiting });
            self.step = Step::Settling;
        }
    }

    fn gathered(&mut self, batch: W::Batch, answer: Answer<W>) {
        if self.discarding.contains(&batch) {
            return;
        }
        if let Ahead::Gathering(attempt) = &self.ahead
            && attempt.batch == batch
        {
            let Ahead::Gathering(attempt) = mem::replace(&mut self.ahead, Ahead::Nothing) else { return };
            if answer == Answer::Changed {
                self.discard(batch);
                self.ahead = Ahead::Lost(attempt.offer);
                return;
            }
            self.ahead = match Self::read(attempt, answer) {
                Ok(Some(attempt)) => Ahead::Gathered(attempt),
                Ok(None) => {
                    self.discard(batch);
                    Ahead::Nothing
                }
                Err(()) => {
                    self.discard(batch);
                    Ahead::Failed
                }
            };
            return;
        }
        let Step::Gather(attempt) = mem::replace(&mut self.step, Step::Idle) else {
            unreachable!("{batch:?} is not being gathered");
        };
        if answer == Answer::Changed {
            return self.plan_anew(attempt, false);
        }
        match Self::read(attempt, answer) {
            Ok(Some(attempt)) => self.check(attempt),
            Ok(None) => self.discard(batch),
            Err(()) => {
                self.discard(batch);
                self.fail(Failure::Request);
            }
        }
    }

    /// What was read of the attempt's candidates; `None` where that adds no byte to R.
    fn read(mut attempt: Attempt<W>, answer: Answer<W>) -> Result<Option<Attempt<W>>, ()> {
        let Answer::Gathered { left, added } = answer else { return Err(()) };
        if !left.is_empty() {
            let mut left = left.into_iter().peekable();
            let read = attempt.sources.iter().enumerate().filter(|(at, _)| left.next_if_eq(at).is_none());
            attempt.sources = read.map(|(_, source)| source.clone()).collect();
        }
        attempt.added = added;
        Ok((added > 0 && !attempt.sources.is_empty()).then_some(attempt))
    }

    /// With KEEP: are remembered sources that were not listed really gone?
    fn check(&mut self, attempt: Attempt<W>) {
        if self.stopped {
            return self.discard(attempt.batch);
        }
        let unlisted = match &self.chain {
            Some(chain) if self.policy.keep && !self.replace => W::unlisted(&attempt.offer, &chain.carried),
            _ => Vec::new(),
        };
        if unlisted.is_empty() {
            self.put_manifest(attempt);
        } else {
            self.ask(Slot::Main, Request::CheckKept(unlisted.into()));
            self.step = Step::Check(attempt);
        }
    }

    fn checked(&mut self, attempt: Attempt<W>, answer: Answer<W>) {
        if let (Answer::Gone(gone), Some(chain)) = (answer, &mut self.chain)
            && !gone.is_empty()
        {
            let gone: HashSet<_> = gone.into_iter().collect();
            for list in &mut chain.carried {
                *list = list.iter().filter(|source| !gone.contains(source)).cloned().collect();
            }
            chain.carried.retain(|list| !list.is_empty());
        }
        if self.stopped { self.discard(attempt.batch) } else { self.put_manifest(attempt) }
    }

    fn put_manifest(&mut self, attempt: Attempt<W>) {
        let chain = self.chain.as_ref().expect("a batch is gathered only on a settled rollup");
        let base = chain.base.clone();
        let (mut merged, foreign) = if self.replace {
            (Vec::new(), W::Foreign::default())
        } else {
            (self.unconfirmed(), chain.foreign.clone())
        };
        merged.push(Arc::clone(&attempt.sources));
        if self.policy.keep && merged.iter().map(|list| list.len()).sum::<usize>() > self.policy.max_kept {
            self.discard(attempt.batch);
            return self.fail(Failure::TooManyKept);
        }
        let manifest = Manifest { base, merged, foreign };
        self.ask(Slot::Main, Request::PutManifest { batch: attempt.batch, manifest });
        self.step = Step::PutManifest(attempt);
    }

    fn manifest_put(&mut self, attempt: Attempt<W>, answer: &Answer<W>) {
        match answer {
            Answer::Done => {
                let base = self.chain.as_ref().and_then(|chain| chain.base.clone());
                self.ask(Slot::Main, Request::Commit { batch: attempt.batch, base });
                self.step = Step::Commit(attempt);
            }
            answer => {
                self.remember(attempt.batch);
                self.plan_anew(attempt, *answer == Answer::Failed);
            }
        }
    }

    /// The own manifest was put before the HEAD that comes next, so it counts as seen.
    fn remember(&mut self, batch: W::Batch) {
        let base = self.chain.as_ref().map(|chain| chain.base.clone());
        self.seen.push(Seen { batch, base });
    }

    fn commit_answered(&mut self, attempt: Attempt<W>, answer: Answer<W>) {
        match answer {
            Answer::Committed(etag) => self.committed(attempt, etag),
            answer => {
                self.remember(attempt.batch);
                if answer == Answer::Failed {
                    self.condemned = Some(attempt.batch);
                }
                self.plan_anew(attempt, false);
            }
        }
    }

    /// A clean 2xx: the sources may go, and so may every manifest that was planned on the state before.
    fn committed(&mut self, attempt: Attempt<W>, etag: W::ETag) {
        let chain = self.chain.as_mut().expect("a batch is committed only on a settled rollup");
        // With OVERWRITE the bytes, and with them the tag, may be the same: then what was planned on it is still alive.
        let moved = chain.base.as_ref() != Some(&etag);
        chain.base = Some(etag);
        chain.own = true;
        chain.size = attempt.added + if self.replace { 0 } else { chain.size };
        if self.replace {
            chain.carried.clear();
            chain.foreign = W::Foreign::default();
        }
        let superseded = chain.pending.replace(attempt.batch);
        if self.policy.keep {
            chain.carried.push(attempt.sources);
        } else {
            let mut sources = mem::take(&mut chain.carried);
            sources.push(attempt.sources);
            self.sweeps.push_back(Sweep { batch: Some(attempt.batch), sources, stage: SweepStage::Waiting });
        }
        let outdated = if moved { mem::take(&mut self.seen) } else { Vec::new() };
        for batch in outdated.into_iter().map(|seen| seen.batch).chain(superseded) {
            self.remove(batch);
        }
        self.replace = false;
        self.replans = 0;
        match mem::replace(&mut self.ahead, Ahead::Nothing) {
            Ahead::Nothing => {}
            Ahead::Gathering(next) => self.step = Step::Gather(next),
            Ahead::Gathered(next) => self.check(next),
            Ahead::Lost(offer) => self.offers.push_front(offer),
            Ahead::Failed => self.fail(Failure::Request),
        }
    }

    /// Back to step 1: what was read is thrown away, also what was read ahead.
    fn plan_anew(&mut self, attempt: Attempt<W>, failed: bool) {
        self.drop_ahead();
        self.discard(attempt.batch);
        self.offers.push_front(attempt.offer);
        self.chain = None;
        self.replans += 1;
        if failed {
            self.fail(Failure::Request);
        } else if self.replans > self.policy.max_replans {
            self.fail(Failure::Contended);
        } else {
            self.step = Step::Breaking;
        }
    }

    fn drop_ahead(&mut self) {
        match mem::replace(&mut self.ahead, Ahead::Nothing) {
            Ahead::Gathering(attempt) | Ahead::Gathered(attempt) => {
                self.discard(attempt.batch);
                self.offers.push_front(attempt.offer);
            }
            Ahead::Lost(offer) => self.offers.push_front(offer),
            Ahead::Nothing => {}
            Ahead::Failed => self.fail(Failure::Request),
        }
    }

    fn discard(&mut self, batch: W::Batch) {
        self.discarding.push(batch);
        self.ask(Slot::Discard(batch), Request::Discard(batch));
    }

    fn remove(&mut self, batch: W::Batch) {
        if self.removing.contains(&batch) {
            return;
        }
        self.removing.push(batch);
        self.ask(Slot::Manifest(batch), Request::DeleteManifest(batch));
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        let closed = self.closed;
        self.stop();
        self.closed = closed;
    }

    fn swept(&mut self, answer: Answer<W>) {
        let sweep = self.sweeps.front_mut().expect("a sweep is outstanding");
        match (mem::replace(&mut sweep.stage, SweepStage::Deleting), answer) {
            (SweepStage::Deleting, Answer::Deleted(exceptions)) => {
                let all: Vec<&W::Source> = sweep.sources.iter().flat_map(|list| list.iter()).collect();
                let of = |doubtful| {
                    let all = &all;
                    let is = move |what: &Undeleted| (*what == Undeleted::Condition) == doubtful;
                    exceptions.iter().filter(move |(_, what)| is(what)).map(move |(at, _)| all[*at].clone())
                };
                let doubtful: Sources<W> = of(true).collect();
                let remaining: Vec<_> = of(false).collect();
                let refused = exceptions.iter().any(|(_, what)| *what == Undeleted::Refused);
                if doubtful.is_empty() {
                    self.sweep_ended(remaining);
                } else {
                    self.ask(Slot::Sweep, Request::HeadSources(Arc::clone(&doubtful)));
                    self.sweeps[0].stage = SweepStage::Heading { doubtful, remaining };
                }
                if refused {
                    self.fail(Failure::Request);
                }
            }
            (SweepStage::Heading { doubtful, mut remaining }, Answer::Heads(now)) => {
                let there = doubtful.iter().zip(now).filter(|(_, now)| matches!(now, Now::Same | Now::Unknown));
                remaining.extend(there.map(|(source, _)| source.clone()));
                self.sweep_ended(remaining);
            }
            (SweepStage::Heading { doubtful, mut remaining }, _) => {
                remaining.extend(doubtful.iter().cloned());
                self.sweep_ended(remaining);
            }
            (_, _) => {
                let remaining = sweep.sources.iter().flat_map(|list| list.iter()).cloned().collect();
                self.sweep_ended(remaining);
                self.fail(Failure::Request);
            }
        }
    }

    /// What remains stays carried: by the manifest of the sweep behind this one, else by the batch that comes next.
    fn sweep_ended(&mut self, remaining: Vec<W::Source>) {
        let Some(Sweep { batch: Some(batch), .. }) = self.sweeps.pop_front() else { return };
        let Some(chain) = &mut self.chain else { return };
        if !remaining.is_empty() {
            match self.sweeps.iter_mut().find(|sweep| sweep.batch.is_some()) {
                Some(behind) => behind.sources.push(remaining.into()),
                None => chain.carried.push(remaining.into()),
            }
        } else if chain.pending == Some(batch) && chain.carried.is_empty() && W::none(&chain.foreign) {
            chain.pending = None;
            self.remove(batch);
        }
    }
}
