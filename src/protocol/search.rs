//! The search: breadth first through every state of the [model](super::model) that its bounds allow.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use super::Policy;
use super::model::{Bounds, Move, State};

const APPEND: Policy = Policy { keep: false, overwrite: false, min_part: 1, max_kept: 1_000_000, max_replans: 3 };

/// The multiplication hash of FNV's family on words: good enough to tell states apart, and quick.
#[derive(Default)]
struct Words(u64);

impl Hasher for Words {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }
}

/// What a search has covered.
#[derive(Debug)]
struct Covered {
    states: usize,
    /// Quiet states from which a clean pass was run to its end.
    ends: usize,
    depth: usize,
}

/// Searches everything within the bounds; the error is the shortest schedule that breaks an invariant.
fn search(bounds: &Bounds) -> Result<Covered, String> {
    let hasher = BuildHasherDefault::<Words>::default();
    let mut visited = HashSet::new();
    let mut trail: Vec<(u32, Move)> = Vec::new();
    let start = State::start(bounds);
    visited.insert(hasher.hash_one(&start));
    let mut frontier = vec![(start, u32::MAX)];
    let mut covered = Covered { states: 1, ends: 0, depth: 0 };
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (state, from) in frontier {
            if state.quiet() {
                covered.ends += 1;
                clean_pass(&state, bounds).map_err(|broken| schedule(&trail, from, None, &broken))?;
            }
            for made in state.moves(bounds) {
                let after = state.after(made, bounds).map_err(|broken| schedule(&trail, from, Some(made), &broken))?;
                if visited.insert(hasher.hash_one(&after)) {
                    let at = u32::try_from(trail.len()).expect("fewer than four billion states");
                    trail.push((from, made));
                    next.push((after, at));
                }
            }
        }
        covered.depth += 1;
        frontier = next;
    }
    covered.states = visited.len();
    Ok(covered)
}

fn schedule(trail: &[(u32, Move)], mut at: u32, last: Option<Move>, broken: &str) -> String {
    let mut moves: Vec<Move> = last.into_iter().collect();
    while let Some((from, made)) = trail.get(at as usize) {
        moves.push(*made);
        at = *from;
    }
    moves.reverse();
    let lines: Vec<String> = moves.iter().enumerate().map(|(at, made)| format!("{:3} {made:?}", at + 1)).collect();
    format!("{broken}, after {} steps:\n{}", moves.len(), lines.join("\n"))
}

/// From wherever a run was left, one undisturbed pass ends with every line in R, and leaves nothing behind.
fn clean_pass(state: &State, bounds: &Bounds) -> Result<(), String> {
    let mut state = state.for_a_clean_pass();
    while let Some(made) = state.moves(bounds).into_iter().find(|made| !matches!(made, Move::Put(_))) {
        state = state.after(made, bounds)?;
    }
    let keep = bounds.runners[0].is_some_and(|policy| policy.keep);
    let content = state.rollup.map_or(0, |rollup| rollup.content);
    let held = super::model::content_of(content).map(super::model::bit).fold(0, |set, bit| set | bit);
    if held != state.put {
        return Err(format!("a clean pass left sources {:016b} out of the rollup", state.put & !held));
    }
    if !keep && (state.present != 0 || !state.manifests.is_empty()) {
        return Err(format!("a clean pass left {:016b} and manifests {:?}", state.present, state.manifests.keys()));
    }
    if keep && state.manifests.len() > 1 {
        return Err(format!("a clean pass left more than one manifest: {:?}", state.manifests.keys()));
    }
    Ok(())
}

fn holds(what: &str, bounds: &Bounds) -> Covered {
    match search(bounds) {
        Ok(covered) => {
            println!("{what}: {} states, {} ends, depth {}", covered.states, covered.ends, covered.depth);
            covered
        }
        Err(broken) => panic!("{what}: {broken}"),
    }
}

const ONE: Bounds =
    Bounds { runners: [Some(APPEND), None], passes: 3, early: 0b1110, late: 0, batch: 1, faults: 2, hides: false };

#[test]
fn one_runner_killed_or_unheard_twice_at_any_step_of_three_batches_loses_and_doubles_nothing() {
    for (min_part, hides) in [(1, false), (2, true), (100, false)] {
        let policy = Policy { min_part, ..APPEND };
        holds("one runner", &Bounds { runners: [Some(policy), None], hides, ..ONE });
    }
}

#[test]
fn one_runner_that_keeps_loses_and_doubles_nothing() {
    let keep = Policy { keep: true, ..APPEND };
    holds("one runner with KEEP", &Bounds { runners: [Some(keep), None], late: 0b1_0000, ..ONE });
}

#[test]
fn two_runners_interleaved_at_every_step_lose_and_double_nothing() {
    let two = Bounds { runners: [Some(APPEND), Some(APPEND)], passes: 1, faults: 0, ..ONE };
    holds("two runners, chains of two", &Bounds { early: 0b110, ..two });
    holds("two runners, two batches and a crash or a lost answer", &Bounds { early: 0b110, faults: 1, ..two });
}

#[test]
fn a_runner_that_keeps_beside_one_that_deletes_loses_and_doubles_nothing() {
    let keep = Policy { keep: true, ..APPEND };
    let mixed = Bounds { runners: [Some(keep), Some(APPEND)], passes: 1, early: 0b110, faults: 0, ..ONE };
    holds("KEEP beside a run without", &mixed);
    holds("KEEP beside a run without, late logs", &Bounds { early: 0b10, late: 0b100, faults: 1, ..mixed });
}

/// `cargo test --release --lib protocol -- --ignored --nocapture`: minutes instead of seconds.
#[test]
#[ignore = "minutes long: CONTRIBUTING names the command"]
fn two_runners_over_chains_of_three_batches_lose_and_double_nothing() {
    let two = Bounds { runners: [Some(APPEND), Some(APPEND)], passes: 1, faults: 0, ..ONE };
    holds("two runners, chains of three", &two);
    holds(
        "two runners, three batches, R smaller than a part",
        &Bounds { runners: [Some(Policy { min_part: 100, ..APPEND }), Some(APPEND)], ..two },
    );
}
