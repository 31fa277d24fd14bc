//! A model of S3, of the runners that work on one rollup in it, and of whatever may befall them.
//!
//! Sources are numbered; R's content is the sequence of their numbers, packed into an integer that is R's `ETag` as
//! well (S3's tags follow the bytes). Every request is applied at one moment, but for those that S3 itself does key by
//! key. A [`Move`] is one such moment, and a state after which nothing can move is the end of a schedule.

mod runner;
mod s3;

use std::sync::Arc;

pub(super) use runner::Runner;
pub(super) use s3::S3;

use super::variant::Variant;
use super::{Offer, Policy, Sources, World};

/// The model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Model;

impl World for Model {
    type Source = u8;
    type ETag = u64;
    type Batch = u8;
    type Foreign = u16;
    type Scope = ();

    fn none(foreign: &u16) -> bool {
        *foreign == 0
    }

    fn unlisted(offer: &Offer<Self>, carried: &[Sources<Self>]) -> Vec<u8> {
        carried.iter().flat_map(|list| list.iter()).filter(|source| !offer.sources.contains(source)).copied().collect()
    }
}

/// Runners in a search at most.
pub(super) const MOST_RUNNERS: usize = 3;

/// What a search covers.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// The passes of each runner, one after the other.
    pub(super) runners: Vec<Vec<Policy>>,
    /// The sources under each runner's own bucket and prefix.
    pub(super) own: [u16; MOST_RUNNERS],
    /// Sources that exist at the start, and such as may appear at any time.
    pub(super) early: u16,
    pub(super) late: u16,
    /// Those of them that have no bytes.
    pub(super) empty: u16,
    /// Runs of keys side by side in the listing that go to this rollup: between two of them it may end its work.
    pub(super) groups: Vec<u16>,
    /// Sources in a batch, which is also a page of the listing.
    pub(super) batch: usize,
    /// The sources are listed at one moment, not page by page beside the work.
    pub(super) listed_at_once: bool,
    /// How many of the `menu`'s faults happen in all.
    pub(super) faults: u8,
    pub(super) menu: u16,
    /// S3 answers 403 for what is missing.
    pub(super) hides: bool,
    /// No pass begins before every other has ended, and what those had in flight is lost by then.
    pub(super) alone: bool,
    /// The passes that must complete everything from wherever the schedule ends, and whose sources they are.
    pub(super) clean: Vec<(Policy, u16)>,
    /// The search ends at the first depth that it reaches with so many states.
    pub(super) states: u64,
    /// How the protocol or the store is broken.
    pub(super) variant: Variant,
}

impl Bounds {
    /// Runners that find these sources, with nothing that goes wrong.
    pub(super) fn new(runners: &[&[Policy]], early: u16, late: u16) -> Self {
        Self {
            runners: runners.iter().map(|passes| passes.to_vec()).collect(),
            own: [!0; MOST_RUNNERS],
            early,
            late,
            empty: 0,
            groups: vec![!0],
            batch: 1,
            listed_at_once: false,
            faults: 0,
            menu: 0,
            hides: false,
            alone: false,
            clean: vec![(runners[0][0], !0)],
            states: u64::MAX,
            variant: Variant::None,
        }
    }

    /// As many faults out of a menu.
    pub(super) fn with(self, faults: u8, menu: u16) -> Self {
        Self { faults, menu, ..self }
    }

    /// One undisturbed pass.
    pub(super) fn of_a_clean_pass(&self, policy: Policy, own: u16) -> Self {
        Self {
            runners: vec![vec![policy]],
            own: [own; MOST_RUNNERS],
            late: 0,
            listed_at_once: true,
            faults: 0,
            menu: self.menu & (menu::EXPIRY | menu::EXPIRY_AT_WORK),
            ..self.clone()
        }
    }

    fn meets(&self, fault: u16) -> bool {
        self.menu & fault != 0
    }

    /// R's tags repeat, as they do nowhere else.
    fn repeats(&self) -> bool {
        self.meets(menu::EXPIRY | menu::EXPIRY_AT_WORK) || self.runners.iter().flatten().any(|policy| policy.overwrite)
    }
}

/// What may go wrong: each costs one of a search's faults.
pub(super) mod menu {
    /// A runner is killed; what it has in flight arrives later or never.
    pub(in super::super) const KILL: u16 = 1;
    /// A request is not answered, and applied at some later moment or never.
    pub(in super::super) const LOSE: u16 = 1 << 1;
    /// A request is sent twice, by a retry below the machine: the copy arrives at any moment.
    pub(in super::super) const TWICE: u16 = 1 << 2;
    /// A request fails for good, or outlasts its retries: whether it is applied, now or later, is open.
    pub(in super::super) const FAIL: u16 = 1 << 3;
    /// An answer comes later than those to requests that were applied after it.
    pub(in super::super) const LATE: u16 = 1 << 4;
    /// S3 denies a read once.
    pub(in super::super) const DENY: u16 = 1 << 5;
    /// A source cannot be read.
    pub(in super::super) const UNREADABLE: u16 = 1 << 6;
    /// A delete's condition fails, or it is refused for good.
    pub(in super::super) const UNDELETED: u16 = 1 << 7;
    /// SIGTERM.
    pub(in super::super) const STOP: u16 = 1 << 8;
    /// A lifecycle rule, or another object under its key, removes a source.
    pub(in super::super) const VANISH: u16 = 1 << 9;
    /// A lifecycle rule removes R while no pass is at it and nothing is in flight.
    pub(in super::super) const EXPIRY: u16 = 1 << 10;
    /// The same at any moment, which the assumptions exclude.
    pub(in super::super) const EXPIRY_AT_WORK: u16 = 1 << 11;
    /// Whatever a network does.
    pub(in super::super) const NETWORK: u16 = KILL | LOSE | TWICE | LATE;
    /// Whatever the assumptions allow.
    pub(in super::super) const ALL: u16 = NETWORK | FAIL | DENY | UNREADABLE | UNDELETED | STOP | VANISH | EXPIRY;
}

/// How a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fate {
    /// Applied, or its next key is, and answered.
    Answered,
    /// Applied; its answer is read later.
    AnsweredLate,
    /// In flight, and the machine hears nothing (of a delete: that it failed).
    Unanswered,
    /// In flight, and sent again.
    SentTwice,
    /// In flight, and the machine hears that it failed.
    Failed,
    /// 403, although the object is there.
    Denied,
    /// This source cannot be read.
    Unreadable,
    /// The condition of this key's delete fails.
    Condition,
    /// This key's delete is refused.
    Refused,
}

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Move {
    /// A source appears.
    Put(u8),
    /// A source is removed by others.
    Vanish(u8),
    /// R is removed by others.
    Expire,
    /// A request in flight arrives.
    Arrive(u8),
    /// The delete of this source arrives.
    ArriveDelete(u8),
    /// A runner begins a pass: the listing of the manifests begins.
    BeginManifests(u8),
    /// It ends. 1: it shows what went meanwhile; 2: it shows what came meanwhile.
    EndManifests(u8, u8),
    /// The next page of the sources is listed.
    ListSources(u8),
    /// The outstanding request at this place of a runner's list goes one step on.
    Step(u8, u8, Fate),
    /// SIGTERM to a runner.
    Stop(u8),
    /// A runner is killed.
    Kill(u8),
}

/// A set of sources, and the numbers in it.
pub(super) fn bit(source: u8) -> u16 {
    1 << source
}

fn numbers(set: u16) -> impl Iterator<Item = u8> {
    (1..16).filter(move |source| set & bit(*source) != 0)
}

fn small(count: usize) -> u8 {
    u8::try_from(count).expect("the bounds are small")
}

/// The whole world at a moment. What a move leaves alone is shared with the state before.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) s3: Arc<S3>,
    pub(super) runners: Vec<Arc<Runner>>,
}

impl State {
    pub(super) fn start(bounds: &Bounds) -> Self {
        let runners = (0..small(bounds.runners.len())).map(|at| Arc::new(Runner::new(at, 60 * at))).collect();
        Self { s3: Arc::new(S3::start(bounds)), runners }
    }

    /// No runner is at work.
    pub(super) fn quiet(&self) -> bool {
        self.runners.iter().all(|runner| runner.is_off())
    }

    /// Everything that may happen next.
    pub(super) fn moves(&self, bounds: &Bounds) -> Vec<Move> {
        let s3 = &*self.s3;
        let mut moves: Vec<_> = numbers(bounds.late & !s3.put).map(Move::Put).collect();
        moves.extend((0..s3.flying.len()).map(|at| Move::Arrive(small(at))));
        moves.extend(numbers(s3.deleting).map(Move::ArriveDelete));
        let menu = if s3.faults > 0 { bounds.menu } else { 0 };
        if menu & menu::VANISH != 0 {
            moves.extend(numbers(s3.present).map(Move::Vanish));
        }
        let expires = menu & menu::EXPIRY_AT_WORK != 0 || menu & menu::EXPIRY != 0 && self.quiet();
        if s3.rollup.is_some() && expires {
            moves.push(Move::Expire);
        }
        for (at, runner) in self.runners.iter().enumerate() {
            if !runner.is_off() || !bounds.alone || self.quiet() {
                runner.moves(small(at), s3, bounds, menu, &mut moves);
            }
        }
        moves
    }

    /// The world after a move, or the invariant that it breaks.
    pub(super) fn after(&self, made: Move, bounds: &Bounds) -> Result<Self, String> {
        let mut next = self.clone();
        match made {
            Move::BeginManifests(at) | Move::EndManifests(at, _) | Move::ListSources(at) => {
                if bounds.alone && matches!(made, Move::BeginManifests(_)) {
                    Arc::make_mut(&mut next.s3).nothing_arrives();
                }
                next.runner(at).list(&self.s3, bounds, made);
            }
            Move::Stop(at) => {
                next.s3().faults -= 1;
                next.runner(at).stop(&self.s3, bounds);
            }
            Move::Kill(at) => {
                next.s3().faults -= 1;
                let mut s3 = (*next.s3).clone();
                next.runner(at).kill(&mut s3, bounds);
                next.s3 = Arc::new(s3);
            }
            Move::Step(at, task, fate) => {
                let mut s3 = (*next.s3).clone();
                s3.faults -= u8::from(fate != Fate::Answered);
                next.runner(at).step(task.into(), fate, &mut s3, bounds)?;
                if s3 != *next.s3 {
                    next.s3 = Arc::new(s3);
                }
            }
            Move::Put(_) | Move::Vanish(_) | Move::Expire | Move::Arrive(_) | Move::ArriveDelete(_) => {
                next.s3().befall(made, bounds)?;
            }
        }
        next.check_tags(self, bounds)?;
        if next.s3 != self.s3 {
            next.s3.check()?;
        }
        Ok(next)
    }

    fn s3(&mut self) -> &mut S3 {
        Arc::make_mut(&mut self.s3)
    }

    fn runner(&mut self, at: u8) -> &mut Runner {
        Arc::make_mut(&mut self.runners[usize::from(at)])
    }

    /// I5: no batch is planned on what R becomes.
    fn check_tags(&self, before: &Self, bounds: &Bounds) -> Result<(), String> {
        let Some(rollup) = self.s3.rollup.filter(|_| self.s3.rollup != before.s3.rollup && !bounds.repeats()) else {
            return Ok(());
        };
        let planned = before.s3.planned_on(rollup);
        let planned = planned || before.runners.iter().any(|runner| runner.planned_on(rollup.content));
        if planned || before.s3.rollup.is_some_and(|before| before.content == rollup.content) {
            return Err(String::from("I5: the rollup's tag repeats while a batch planned on it is alive"));
        }
        Ok(())
    }

    /// The same S3, and one new runner, which meets no fault and nobody else.
    pub(super) fn for_a_clean_pass(s3: &S3, passes: u8) -> Self {
        let mut s3 = s3.clone();
        s3.nothing_arrives();
        s3.faults = 0;
        Self { s3: Arc::new(s3), runners: vec![Arc::new(Runner::new(0, 60 * small(MOST_RUNNERS) + 20 * passes))] }
    }
}
