//! Steps 4 to 7: what was read becomes a manifest, and then R.

use std::collections::HashSet;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;

use super::{Ahead, Attempt, Machine, Seen, Step, Sweep, SweepStage};
use crate::protocol::variant::broken;
use crate::protocol::{Answer, Failure, Manifest, Now, Request, Slot, World};

impl<W: World> Machine<W> {
    pub(super) fn gathered(&mut self, batch: W::Batch, answer: Answer<W>) {
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
            self.ahead = match self.read(attempt, answer) {
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
        match self.read(attempt, answer) {
            Ok(Some(attempt)) => self.check(attempt),
            Ok(None) => self.discard(batch),
            Err(()) => {
                self.discard(batch);
                self.fail(Failure::Request);
            }
        }
    }

    /// What was read of the attempt's candidates; `None` where that adds no byte to R.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "the tests break it"))]
    fn read(&self, mut attempt: Attempt<W>, answer: Answer<W>) -> Result<Option<Attempt<W>>, ()> {
        let Answer::Gathered { left, added } = answer else { return Err(()) };
        if !left.is_empty() {
            let mut left = left.into_iter().peekable();
            let read = attempt.sources.iter().enumerate().filter(|(at, _)| left.next_if_eq(at).is_none());
            attempt.sources = read.map(|(_, source)| source.clone()).collect();
        }
        attempt.added = added;
        let adds = added > 0 && !attempt.sources.is_empty();
        Ok((adds || broken!(self, CommitsNothing)).then_some(attempt))
    }

    /// With KEEP: are remembered sources that were not listed really gone? With OVERWRITE: are all that were not read
    /// still there? Of those that are not, R is the only copy.
    fn check(&mut self, attempt: Attempt<W>) {
        if self.stopped {
            return self.discard(attempt.batch);
        }
        let carried = self.chain.as_ref().filter(|_| self.policy.keep).map_or(&[][..], |chain| &chain.carried);
        let request = if self.replace {
            let unread = unread(&attempt.sources, carried);
            (!unread.is_empty() && !broken!(self, OverwritesHalfACopy)).then(|| Request::HeadSources(unread))
        } else {
            let unlisted = W::unlisted(&attempt.offer, carried);
            (!unlisted.is_empty()).then(|| Request::CheckKept(unlisted.into()))
        };
        if let Some(request) = request {
            self.ask(Slot::Main, request);
            self.step = Step::Check(attempt);
        } else {
            self.put_manifest(attempt);
        }
    }

    pub(super) fn checked(&mut self, attempt: Attempt<W>, answer: Answer<W>) {
        if self.replace {
            return self.checked_copies(attempt, &answer);
        }
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

    fn checked_copies(&mut self, attempt: Attempt<W>, answer: &Answer<W>) {
        let trouble = match answer {
            Answer::Heads(now) if now.iter().all(|now| *now == Now::Same) => None,
            Answer::Heads(now) if now.iter().any(|now| matches!(now, Now::Gone | Now::Replaced)) => {
                Some(Failure::OnlyCopy)
            }
            _ => Some(Failure::Request),
        };
        if trouble.is_none() && !self.stopped {
            return self.put_manifest(attempt);
        }
        self.discard(attempt.batch);
        if let Some(failure) = trouble {
            self.fail(failure);
        }
    }

    fn put_manifest(&mut self, attempt: Attempt<W>) {
        let chain = self.chain.as_ref().expect("a batch is gathered only on a settled rollup");
        let base = chain.base.clone();
        let (mut merged, foreign) = if self.replace || broken!(self, ListsOnlyItsOwn) {
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

    pub(super) fn manifest_put(&mut self, attempt: Attempt<W>, answer: &Answer<W>) {
        match answer {
            answer if *answer == Answer::Done || broken!(self, CommitsUnmanifested) => {
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

    pub(super) fn commit_answered(&mut self, attempt: Attempt<W>, answer: Answer<W>) {
        match answer {
            Answer::Committed(etag) => self.committed(attempt, etag),
            answer => {
                if broken!(self, TrustsSilence) && answer == Answer::NoAnswer {
                    let sources = vec![Arc::clone(&attempt.sources)];
                    self.sweeps.push_back(Sweep { batch: None, sources, stage: SweepStage::Waiting });
                }
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
}

/// What is remembered and was not read.
fn unread<S: Clone + Eq + Hash>(read: &[S], remembered: &[Arc<[S]>]) -> Arc<[S]> {
    let read: HashSet<_> = read.iter().collect();
    remembered.iter().flat_map(|list| list.iter()).filter(|source| !read.contains(source)).cloned().collect()
}
