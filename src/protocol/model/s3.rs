//! What S3 holds of one rollup, what is in flight to it, and the invariants.

use super::super::variant::Variant;
use super::{Bounds, Move, bit, menu, numbers};

/// R: its content, and the batch that last changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Rollup {
    pub(super) content: u64,
    pub(super) batch: u8,
}

/// A manifest: the batch that names it, the R it was planned on, the sources that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Written {
    pub(super) batch: u8,
    pub(super) base: Option<u64>,
    pub(super) merged: u16,
}

/// A request that may be applied at any later moment, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Flying {
    Put(Written),
    Commit { batch: u8, base: Option<u64>, content: u64 },
    DeleteManifest(u8),
}

/// S3 at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct S3 {
    pub(super) rollup: Option<Rollup>,
    /// By batch.
    pub(super) manifests: Vec<Written>,
    /// Sources that exist, and that ever existed.
    pub(in super::super) present: u16,
    pub(in super::super) put: u16,
    /// Sources whose lines R need not hold: without bytes, or removed by others, themselves or with R.
    excused: u16,
    /// In order, so that the same requests are the same state.
    pub(super) flying: Vec<Flying>,
    /// Sources whose delete is in flight.
    pub(super) deleting: u16,
    /// How many faults are left.
    pub(super) faults: u8,
}

/// The sources of a content, in order. Their numbers start at 1, so that a packed sequence has no leading nothing.
fn content_of(content: u64) -> impl Iterator<Item = u8> {
    (0..16).map(move |at| u8::try_from(content >> (4 * at) & 15).expect("four bits")).take_while(|source| *source != 0)
}

/// Bits of a content.
fn length(content: u64) -> u32 {
    64 - content.leading_zeros() / 4 * 4
}

pub(super) fn append(content: u64, more: u64) -> u64 {
    content | more.unbounded_shl(length(content))
}

/// Sources of a content, which stand for its bytes.
pub(super) fn size(content: u64) -> u64 {
    u64::from(length(content) / 4)
}

fn begins_with(content: u64, start: u64) -> bool {
    content & (1_u64.unbounded_shl(length(start)).wrapping_sub(1)) == start
}

fn set_of(content: u64) -> u16 {
    content_of(content).map(bit).fold(0, |set, bit| set | bit)
}

impl S3 {
    pub(super) fn start(bounds: &Bounds) -> Self {
        Self {
            rollup: None,
            manifests: Vec::new(),
            present: bounds.early,
            put: bounds.early,
            excused: bounds.empty,
            flying: Vec::new(),
            deleting: 0,
            faults: bounds.faults,
        }
    }

    fn named(&self) -> Option<u8> {
        self.rollup.map(|rollup| rollup.batch)
    }

    fn held(&self) -> u16 {
        self.rollup.map_or(0, |rollup| set_of(rollup.content))
    }

    /// Sources whose lines should be in R and are not.
    pub(in super::super) fn left_out(&self) -> u16 {
        self.put & !self.held() & !self.excused
    }

    /// How many manifests there are. Where sources vanish or R repeats, a killed pass's batch may be the last that ever
    /// was: it may be on its way for all that is known, so its manifest stays until R moves.
    pub(in super::super) fn pending(&self, bounds: &Bounds) -> usize {
        let now = self.rollup.map(|rollup| rollup.content);
        let waits = |written: &&Written| {
            (bounds.repeats() || bounds.meets(menu::VANISH))
                && written.base == now
                && self.named() != Some(written.batch)
        };
        self.manifests.iter().filter(|written| !waits(written)).count()
    }

    pub(super) fn manifest(&self, batch: u8) -> Option<&Written> {
        self.manifests.iter().find(|written| written.batch == batch)
    }

    /// Nothing that is in flight arrives any more.
    pub(super) fn nothing_arrives(&mut self) {
        self.flying.clear();
        self.deleting = 0;
    }

    pub(super) fn fly(&mut self, request: Flying) {
        let at = self.flying.partition_point(|other| *other < request);
        self.flying.insert(at, request);
    }

    /// Is a batch on its way that was planned on this R?
    pub(super) fn planned_on(&self, rollup: Rollup) -> bool {
        let tag = Some(rollup.content);
        self.manifests.iter().any(|written| written.base == tag)
            || self.flying.iter().any(|request| match request {
                Flying::Put(Written { base, .. }) | Flying::Commit { base, .. } => *base == tag,
                Flying::DeleteManifest(_) => false,
            })
    }

    /// What happens without a runner.
    pub(super) fn befall(&mut self, made: Move, bounds: &Bounds) -> Result<(), String> {
        match made {
            Move::Put(source) => {
                self.present |= bit(source);
                self.put |= bit(source);
            }
            Move::Vanish(source) => {
                self.faults -= 1;
                self.present &= !bit(source);
                self.deleting &= !bit(source);
                self.excused |= bit(source) & !self.held();
            }
            Move::Expire => {
                self.faults -= 1;
                self.excused |= self.held() & !self.present;
                self.rollup = None;
                if !bounds.meets(menu::EXPIRY_AT_WORK) {
                    self.nothing_arrives();
                }
            }
            Move::ArriveDelete(source) => {
                self.deleting &= !bit(source);
                self.present &= !bit(source);
            }
            Move::Arrive(at) => match self.flying.remove(at.into()) {
                Flying::Put(written) => self.put_manifest(written),
                Flying::Commit { batch, base, content } => {
                    self.commit(batch, base, content, bounds.variant)?;
                }
                Flying::DeleteManifest(batch) => self.delete_manifest(batch, bounds)?,
            },
            _ => unreachable!("{made:?} is a runner's"),
        }
        Ok(())
    }

    /// `If-None-Match: *`
    pub(super) fn put_manifest(&mut self, written: Written) {
        let at = self.manifests.partition_point(|other| other.batch < written.batch);
        if self.manifest(written.batch).is_none() {
            self.manifests.insert(at, written);
        }
    }

    /// The conditional write of R, with I3's and I4's side of it. Was it applied?
    pub(super) fn commit(
        &mut self,
        batch: u8,
        base: Option<u64>,
        content: u64,
        variant: Variant,
    ) -> Result<bool, String> {
        let now = self.rollup.map(|rollup| rollup.content);
        let ignored = match base {
            Some(_) => variant == Variant::StoreIgnoresIfMatch,
            None => variant == Variant::StoreIgnoresIfNoneMatch,
        };
        if now != base && !ignored {
            return Ok(false);
        }
        let merged = self.manifest(batch).ok_or_else(|| format!("I3: {batch} commits without its manifest"))?.merged;
        let appends = now.is_none_or(|now| begins_with(content, now));
        let dropped = self.held() & self.present & !merged;
        if dropped != 0 && appends {
            return Err(format!("I4: {batch} commits without carrying {:?}", numbers(dropped).collect::<Vec<_>>()));
        }
        self.rollup = Some(Rollup { content, batch });
        Ok(true)
    }

    /// I6.
    pub(super) fn delete_manifest(&mut self, batch: u8, bounds: &Bounds) -> Result<(), String> {
        let Some(at) = self.manifests.iter().position(|written| written.batch == batch) else { return Ok(()) };
        let written = self.manifests.remove(at);
        let named = self.named() == Some(batch);
        let sent = |request: &Flying| matches!(request, Flying::Commit { batch: sent, .. } if *sent == batch);
        // Where tags repeat, what was planned on the same tag long ago is no batch any more.
        let alive = !bounds.repeats() || self.flying.iter().any(sent);
        let may_commit = alive && written.base == self.rollup.map(|rollup| rollup.content);
        if (named || may_commit) && written.merged & self.present != 0 {
            return Err(format!("I6: the manifest of {batch} is deleted while it is needed"));
        }
        Ok(())
    }

    /// I1, I2, I3.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut held = 0;
        for source in content_of(self.rollup.map_or(0, |rollup| rollup.content)) {
            if held & bit(source) != 0 {
                return Err(format!("I1: source {source} is in the rollup twice"));
            }
            held |= bit(source);
        }
        let lost = self.left_out() & !self.present;
        if lost != 0 {
            return Err(format!("I2: sources {:?} are lost", numbers(lost).collect::<Vec<_>>()));
        }
        if let Some(Rollup { batch, .. }) = self.rollup
            && self.manifest(batch).is_none()
            && held & self.present != 0
        {
            return Err(format!("I3: the rollup names {batch}, its manifest is missing, sources still exist"));
        }
        Ok(())
    }
}
