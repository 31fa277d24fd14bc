//! The search: breadth first, on all cores, through every state of the [model](super::model) that its bounds allow.
//!
//! A state is a few numbers: each part of it (S3, a runner) is kept once and known by its number. So the states that
//! were visited are compared as they are, none is lost to a hash that collides, and fifty million fit into memory.

mod holds;
mod long;
mod store;
mod variants;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::model::{Bounds, Move, Runner, S3, State};
use store::{Interned, Key, Visited};

/// What a search has covered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Covered {
    pub(super) states: u64,
    /// Ways S3 is left behind, from each of which clean passes were run to their end.
    ends: usize,
    /// Every schedule of so many steps was searched.
    pub(super) depth: usize,
    /// No longer one leads to a state that was not seen.
    pub(super) whole: bool,
    seconds: f64,
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, ends, depth, whole, seconds } = self;
        let bound = if *whole { "all" } else { "cut" };
        #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
        let rate = *states as f64 / seconds.max(0.001);
        write!(f, "{states:>11} states {ends:>7} ends {depth:>4} steps, {bound} {seconds:>7.1} s {rate:>9.0} states/s")
    }
}

/// A schedule that breaks an invariant, and none is shorter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Broken {
    pub(super) moves: Vec<Move>,
    pub(super) invariant: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after {} steps:", self.invariant, self.moves.len())?;
        self.moves.iter().enumerate().try_for_each(|(at, made)| writeln!(f, "{:4} {made:?}", at + 1))
    }
}

/// Searches everything within the bounds.
///
/// # Errors
/// With a shortest schedule that breaks an invariant, the first in the order of its invariant's text.
pub(super) fn search(bounds: &Bounds) -> Result<Covered, Broken> {
    let started = Instant::now();
    let search = Search::new(bounds);
    let mut covered = Covered::default();
    let mut level = vec![vec![search.start()]];
    while level.iter().any(|part| !part.is_empty()) && search.visited.count() < bounds.states {
        level = search.expand(&level);
        covered.depth += 1;
        let mut broken = search.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, broken)) = broken.drain(..).min() {
            return Err(broken);
        }
    }
    covered.states = search.visited.count();
    covered.whole = level.iter().all(Vec::is_empty);
    covered.ends = search.ends.lock().unwrap_or_else(PoisonError::into_inner).len();
    covered.seconds = started.elapsed().as_secs_f64();
    Ok(covered)
}

/// States whose successors are asked for, with their places in the trail.
type Level = Vec<Vec<(Key, u32)>>;

/// States that a thread takes at once.
const TAKEN: usize = 256;

struct Search<'b> {
    bounds: &'b Bounds,
    s3: Interned<S3>,
    runners: Interned<Runner>,
    visited: Visited,
    ends: Mutex<HashSet<u32>>,
    /// By the steps of the schedule.
    broken: Mutex<Vec<(usize, Broken)>>,
}

impl<'b> Search<'b> {
    fn new(bounds: &'b Bounds) -> Self {
        Self {
            bounds,
            s3: Interned::default(),
            runners: Interned::default(),
            visited: Visited::default(),
            ends: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    fn start(&self) -> (Key, u32) {
        let start = State::start(self.bounds);
        let mut parts = [self.s3.number(&start.s3), 0, 0, 0];
        for (number, runner) in parts[1..].iter_mut().zip(&start.runners) {
            *number = self.runners.number(runner);
        }
        let key = Key::new(parts);
        (key, self.visited.insert(key, None).expect("nothing was visited"))
    }

    fn state(&self, key: Key) -> State {
        let [s3, runners @ ..] = key.parts();
        let runners = &runners[..self.bounds.runners.len()];
        State { s3: self.s3.get(s3), runners: runners.iter().map(|number| self.runners.get(*number)).collect() }
    }

    /// The number of a state that is one move away from another.
    fn key(&self, state: &State, from: &State, key: Key) -> Key {
        let mut parts = key.parts();
        if !Arc::ptr_eq(&state.s3, &from.s3) {
            parts[0] = self.s3.number(&state.s3);
        }
        for (at, (runner, before)) in state.runners.iter().zip(&from.runners).enumerate() {
            if !Arc::ptr_eq(runner, before) {
                parts[at + 1] = self.runners.number(runner);
            }
        }
        Key::new(parts)
    }

    /// The states one step further that were not seen before.
    fn expand(&self, level: &Level) -> Level {
        let parts: Vec<&[(Key, u32)]> = level.iter().flat_map(|part| part.chunks(TAKEN)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut found = Vec::new();
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                for (key, at) in *part {
                    self.visit(*key, *at, &mut found);
                }
            }
            found
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().map(|other| other.join().expect("a searching thread panicked")).chain([own]).collect()
        })
    }

    fn visit(&self, key: Key, at: u32, found: &mut Vec<(Key, u32)>) {
        let state = self.state(key);
        if state.quiet()
            && self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(key.parts()[0])
            && let Err((moves, invariant)) = clean_passes(&state.s3, self.bounds)
        {
            self.found_broken(at, &moves, invariant);
        }
        for made in state.moves(self.bounds) {
            match state.after(made, self.bounds) {
                Ok(after) => {
                    let key = self.key(&after, &state, key);
                    found.extend(self.visited.insert(key, Some((at, made))).map(|at| (key, at)));
                }
                Err(invariant) => self.found_broken(at, &[made], invariant),
            }
        }
    }

    fn found_broken(&self, at: u32, last: &[Move], invariant: String) {
        let mut moves = self.visited.schedule(at);
        moves.extend(last);
        let broken = Broken { moves, invariant };
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push((broken.moves.len(), broken));
    }
}

/// From wherever a schedule ends, undisturbed passes end with every line in R, and leave nothing behind.
fn clean_passes(left: &S3, bounds: &Bounds) -> Result<(), (Vec<Move>, String)> {
    let mut s3 = Arc::new(left.clone());
    let mut moves = Vec::new();
    for (passes, (policy, own)) in (0..).zip(&bounds.clean) {
        let bounds = bounds.of_a_clean_pass(*policy, *own);
        let mut state = State::for_a_clean_pass(&s3, passes);
        while let Some(made) = state.moves(&bounds).first() {
            moves.push(*made);
            state = match state.after(*made, &bounds) {
                Ok(state) => state,
                Err(invariant) => return Err((moves, format!("in a clean pass {invariant}"))),
            };
        }
        s3 = state.s3;
    }
    let Some((policy, _)) = bounds.clean.last() else { return Ok(()) };
    // What another bucket's run has put into the last manifest stays in it, even when it is gone.
    let shared = bounds.own.iter().any(|own| *own != !0);
    if s3.left_out() != 0 {
        return Err((moves, format!("clean passes left sources {:016b} out of the rollup", s3.left_out())));
    }
    let manifests = s3.pending(bounds);
    if !policy.keep && s3.present != 0 || manifests > usize::from(policy.keep || shared) {
        return Err((moves, format!("clean passes left sources {:016b} and {manifests} manifests", s3.present)));
    }
    Ok(())
}
