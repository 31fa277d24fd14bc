//! Steps 1 to 3: what R is, and what the manifests say of it.

use std::mem;

use super::{Chain, Machine, Seen, Step, Sweep, SweepStage};
use crate::protocol::variant::broken;
use crate::protocol::{Answer, Base, Failure, Manifest, Object, Request, Slot, World};

impl<W: World> Machine<W> {
    pub(super) fn head(&mut self) {
        self.unsettled = false;
        self.chain = None;
        let again = self.replans;
        self.ask(Slot::Main, Request::Head { again });
        self.step = Step::Head { again: false };
    }

    pub(super) fn headed(&mut self, again: bool, answer: Answer<W>) {
        match answer {
            Answer::Found { etag, size, batch } => self.settle_found(Some(etag), size, batch),
            Answer::Missing => self.settle_found(None, 0, None),
            Answer::Denied if broken!(self, TakesDeniedForMissing) => self.settle_found(None, 0, None),
            Answer::Denied if !again => {
                self.ask(Slot::Main, Request::Find(Object::Rollup));
                self.step = Step::FindRollup;
            }
            _ => self.fail(Failure::Request),
        }
    }

    pub(super) fn found_rollup(&mut self, answer: &Answer<W>) {
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
        if broken!(self, SettlesNothing) {
            self.chain = Some(found);
            return;
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
        let (alive, garbage) = mem::take(&mut self.seen).into_iter().partition(|seen| {
            let alive = seen.base.as_ref().is_some_and(|planned| planned.as_ref() == base);
            alive && !broken!(self, CollectsEverything)
        });
        self.seen = alive;
        for Seen { batch, .. } in garbage {
            self.remove(batch);
        }
    }

    pub(super) fn settle(&mut self, found: Chain<W>, reading: W::Batch, again: bool, finding: bool, answer: Answer<W>) {
        match answer {
            Answer::Manifest(manifest) => self.settle_read(found, reading, manifest),
            Answer::Missing => self.settle_missing(found, reading),
            Answer::There(false) if finding => self.settle_missing(found, reading),
            Answer::There(true) if finding => {
                self.ask(Slot::Main, Request::GetManifest(reading));
                self.step = Step::Settle { found, reading, again: true, finding: false };
            }
            Answer::Denied if broken!(self, TakesDeniedForMissing) => self.settle_missing(found, reading),
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
            if self.replace && !broken!(self, OverwritesTheOnlyCopy) {
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
}
