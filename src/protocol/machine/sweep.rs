//! Step 8: sources whose bytes are in R are deleted, and what could not be deleted is remembered.

use std::mem;
use std::sync::Arc;

use super::{Machine, Sweep, SweepStage};
use crate::protocol::variant::broken;
use crate::protocol::{Answer, Failure, Now, Offer, Request, Slot, Sources, Undeleted, World};

impl<W: World> Machine<W> {
    /// Sources without bytes are deleted at once: R holds all that they ever held.
    pub(super) fn sweep_empty(&mut self, mut offer: Offer<W>) -> Offer<W> {
        let empty = mem::replace(&mut offer.empty, Arc::new([]));
        if !self.policy.keep && !empty.is_empty() {
            self.sweeps.push_back(Sweep { batch: None, sources: vec![empty], stage: SweepStage::Waiting });
        }
        offer
    }

    /// Every source in R that may still exist.
    pub(super) fn unconfirmed(&self) -> Vec<Sources<W>> {
        let swept = self.sweeps.iter().filter(|sweep| sweep.batch.is_some()).flat_map(|sweep| &sweep.sources);
        self.chain.iter().flat_map(|chain| &chain.carried).chain(swept).cloned().collect()
    }

    pub(super) fn swept(&mut self, answer: Answer<W>) {
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
                if doubtful.is_empty() || broken!(self, TrustsFailedConditions) {
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
        if !remaining.is_empty() && !broken!(self, ForgetsFailedDeletes) {
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
