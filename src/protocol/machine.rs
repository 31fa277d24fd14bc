//! The machine of one rollup: what is under way, what may begin, and how a plan is given up.

mod commit;
mod settle;
mod sweep;

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::Arc;

#[cfg(test)]
use super::variant::Variant;
use super::variant::broken;
use super::{Answer, Base, Failure, Offer, Old, Policy, Request, Slot, Sources, World};

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
    #[cfg(test)]
    variant: Variant,
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
            #[cfg(test)]
            variant: Variant::None,
        }
    }

    /// The same machine with a mistake in it.
    #[cfg(test)]
    pub(super) fn broken(self, variant: Variant) -> Self {
        Self { variant, ..self }
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

    /// The candidates less those that R holds already, or `None` where nothing is left.
    fn attempt(
        &self,
        offer: Offer<W>,
        committing: Option<&Attempt<W>>,
        fresh: &mut impl FnMut() -> W::Batch,
    ) -> Option<Attempt<W>> {
        // What R holds that is about to be replaced does not count.
        let merged = if self.replace || broken!(self, ReadsAgain) { Vec::new() } else { self.unconfirmed() };
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
}
