//! What must hold, within bounds that take seconds.

use super::super::Policy;
use super::super::model::{Bounds, menu};
use super::{Broken, search};

pub(super) const APPEND: Policy =
    Policy { keep: false, overwrite: false, min_part: 1, max_kept: 1_000_000, max_replans: 3 };
/// R is always read, and never copied: no chains.
pub(super) const SMALL: Policy = Policy { min_part: 100, ..APPEND };
pub(super) const KEEP: Policy = Policy { keep: true, ..APPEND };
pub(super) const OVERWRITE: Policy = Policy { overwrite: true, ..KEEP };

/// One pass of each kind.
pub(super) const A: &[Policy] = &[APPEND];
pub(super) const K: &[Policy] = &[KEEP];

/// The set of the sources from 1 to this one.
pub(super) const fn first(last: u8) -> u16 {
    (1 << (last + 1)) - 2
}

/// The set of this source alone.
pub(super) const fn only(source: u8) -> u16 {
    1 << source
}

/// Searches to the bound, and prints what was covered.
pub(super) fn holds(what: &str, bounds: &Bounds) -> u64 {
    match search(bounds) {
        Ok(covered) => {
            println!("{what:58} {covered}");
            covered.states
        }
        Err(broken) => panic!("{what}: {broken}"),
    }
}

/// The shortest schedule that breaks an invariant, as it must.
pub(super) fn breaks(what: &str, bounds: &Bounds) -> Broken {
    match search(bounds) {
        Ok(covered) => panic!("{what}: no invariant breaks: {covered}"),
        Err(broken) => {
            println!("{what:58} {:>3} steps: {}", broken.moves.len(), broken.invariant);
            broken
        }
    }
}

#[test]
fn one_runner_loses_and_doubles_nothing_whatever_goes_wrong() {
    for policy in [APPEND, Policy { min_part: 2, ..APPEND }, SMALL] {
        let what = format!("one runner, 3 batches, R copied from {} on, 1 fault", policy.min_part);
        holds(&what, &Bounds::new(&[&[policy; 2]], first(3), 0).with(1, menu::ALL));
    }
    holds("one runner, 2 batches, 2 faults", &Bounds::new(&[&[APPEND; 3]], first(2), 0).with(2, menu::ALL));
    let pairs = Bounds { batch: 2, ..Bounds::new(&[&[APPEND; 2]], first(4), 0) };
    holds("one runner, 2 batches of two, 1 fault", &pairs.with(1, menu::ALL));
}

#[test]
fn a_403_that_hides_a_404_makes_nobody_lose_or_double_anything() {
    let hides = Bounds { hides: true, ..Bounds::new(&[&[APPEND; 2]], first(2), 0) };
    holds("one runner that may not list, 2 faults", &hides.with(2, menu::ALL));
    let hides = Bounds { hides: true, ..Bounds::new(&[A, A], first(1), 0) };
    holds("two runners that may not list, 1 fault", &hides.with(1, menu::ALL));
}

#[test]
fn passes_that_keep_and_passes_that_delete_take_turns_and_lose_and_double_nothing() {
    let kept = Bounds::new(&[&[KEEP; 2]], first(2), only(3));
    holds("one runner that keeps, late logs, 1 fault", &kept.with(1, menu::ALL));
    let turns = Bounds::new(&[&[KEEP, APPEND, KEEP]], first(1), only(2) | only(3));
    holds("KEEP, then without, then with, late logs, 1 fault", &turns.with(1, menu::ALL));
    let few = Policy { max_kept: 1, ..KEEP };
    let many = Bounds { clean: vec![(APPEND, !0)], ..Bounds::new(&[&[few, KEEP]], first(2), only(3)) };
    holds("more kept than a manifest may remember, 1 fault", &many.with(1, menu::ALL));
}

#[test]
fn sources_without_bytes_and_groups_side_by_side_lose_and_double_nothing() {
    let empty = Bounds { empty: only(1) | only(3), batch: 2, ..Bounds::new(&[&[APPEND; 2]], first(3), only(4)) };
    holds("sources without bytes, 1 fault", &empty.with(1, menu::ALL));
    let groups = Bounds { groups: vec![first(2), only(3)], ..Bounds::new(&[&[APPEND; 2]], first(3), 0) };
    holds("a second machine of one pass, 1 fault", &groups.with(1, menu::ALL));
    let groups = Bounds { groups: vec![only(1), only(2)], ..Bounds::new(&[A, K], first(2), 0) };
    holds("a second machine of two passes that overlap", &groups);
}

#[test]
fn two_runners_interleaved_at_every_step_lose_and_double_nothing() {
    holds("two runners, 2 batches", &Bounds::new(&[A, A], first(2), 0));
    holds("two runners, R smaller than a part for one", &Bounds::new(&[&[SMALL], A], first(2), 0));
    holds("two runners, late logs", &Bounds::new(&[A, A], first(1), only(2)));
    holds("two runners, one batch, 1 fault", &Bounds::new(&[&[APPEND; 2], A], first(1), 0).with(1, menu::ALL));
    for (what, fault) in [("a crash", menu::KILL), ("SIGTERM", menu::STOP), ("a late answer", menu::LATE)] {
        let listed = Bounds { listed_at_once: true, ..Bounds::new(&[A, A], first(2), 0) };
        holds(&format!("two runners, 2 batches, {what}"), &listed.with(1, fault));
    }
}

#[test]
fn a_runner_that_keeps_beside_one_that_deletes_loses_and_doubles_nothing() {
    holds("KEEP beside a run without, 2 batches", &Bounds::new(&[K, A], first(2), 0));
    holds("KEEP beside a run without, 1 fault", &Bounds::new(&[K, A], first(1), 0).with(1, menu::ALL));
    holds("KEEP beside KEEP, 2 batches, 1 fault", &Bounds::new(&[K, K], first(2), 0).with(1, menu::KILL | menu::STOP));
}

#[test]
fn two_buckets_with_one_destination_lose_and_double_nothing() {
    for (what, pair) in [("two buckets", [A, A]), ("two buckets, KEEP for one", [K, A])] {
        let clean = vec![(APPEND, only(1)), (APPEND, only(2)), (APPEND, only(1))];
        let buckets = Bounds { own: [only(1), only(2), 0], clean, ..Bounds::new(&pair, first(2), 0) };
        holds(&format!("{what}, 1 fault"), &buckets.with(1, menu::ALL));
    }
}

#[test]
fn three_runners_interleaved_at_every_step_lose_and_double_nothing() {
    holds("three runners, one batch", &Bounds::new(&[A, A, A], first(1), 0));
    holds("three runners, one batch, KEEP for one", &Bounds::new(&[A, K, A], first(1), 0));
}

/// R, and sources that others remove, are left alone.
const CALM: u16 = menu::ALL & !menu::VANISH & !menu::EXPIRY;
/// Of a pass that has ended nothing is in flight.
const LANDED: u16 = CALM & !(menu::LOSE | menu::TWICE | menu::FAIL);

fn alone(passes: &[Policy], late: u16) -> Bounds {
    Bounds { alone: true, clean: vec![(APPEND, !0)], ..Bounds::new(&[passes], first(2), late) }
}

#[test]
fn overwrite_of_rollups_whose_sources_were_kept_loses_and_doubles_nothing() {
    let once = |passes, late| Bounds { batch: 3, ..alone(passes, late) };
    holds("KEEP, OVERWRITE in one batch, 2 faults", &once(&[KEEP, OVERWRITE], only(3)).with(2, CALM));
    holds("OVERWRITE, OVERWRITE, without, 1 fault", &once(&[OVERWRITE, OVERWRITE, APPEND], only(3)).with(1, CALM));
    holds("KEEP, OVERWRITE in three batches, 2 faults", &alone(&[KEEP, OVERWRITE], only(3)).with(2, LANDED));
}

#[test]
fn a_rollup_that_expires_between_passes_takes_nothing_along_but_its_own_lines() {
    holds("expiry, without KEEP, 2 faults", &alone(&[APPEND; 2], 0).with(2, CALM | menu::EXPIRY));
    holds("expiry, KEEP, late logs, 1 fault", &alone(&[KEEP; 2], only(3)).with(1, CALM | menu::EXPIRY));
}

fn breaks_by(invariant: &str, what: &str, bounds: &Bounds) {
    let broken = breaks(what, bounds);
    assert!(broken.invariant.starts_with(invariant), "{broken}");
    println!("{broken}");
}

#[test]
fn without_the_assumptions_the_search_finds_what_breaks() {
    let overlaps = Bounds { clean: Vec::new(), ..Bounds::new(&[&[OVERWRITE], A], first(2), 0) };
    breaks_by("I2", "OVERWRITE beside a run that deletes", &overlaps);
    let expires = Bounds::new(&[A], first(1), 0).with(1, menu::EXPIRY_AT_WORK);
    breaks_by("I2", "R expires between the commit and the deletes", &expires);
    let expires = Bounds::new(&[K, K], first(2), 0).with(1, menu::EXPIRY_AT_WORK);
    breaks_by("I3", "R expires under two runs that keep", &expires);
    let twice = alone(&[KEEP, OVERWRITE], 0).with(1, menu::TWICE);
    breaks_by("I6", "OVERWRITE in two batches, the first arrives again", &twice);
    let vanish = alone(&[KEEP, OVERWRITE], 0).with(1, menu::VANISH);
    breaks_by("I2", "kept sources vanish under OVERWRITE", &vanish);
}

#[test]
fn overwrite_sees_that_sources_were_deleted_by_a_pass_that_was_killed_meanwhile() {
    let killed = Bounds { batch: 3, ..alone(&[APPEND, OVERWRITE], 0).with(1, menu::KILL) };
    holds("OVERWRITE after a killed pass, 1 kill", &Bounds { clean: Vec::new(), ..killed });
}

/// A manifest forgets what was deleted: that R holds more than the sources it lists, OVERWRITE cannot see.
#[test]
fn overwrite_does_not_see_that_an_earlier_batch_was_deleted() {
    let killed = alone(&[APPEND, OVERWRITE], 0).with(1, menu::KILL);
    breaks_by("I2", "OVERWRITE after a pass killed in its second batch", &killed);
}
