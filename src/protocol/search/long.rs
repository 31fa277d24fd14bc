//! The same with larger bounds: minutes instead of seconds. CONTRIBUTING.md names the command.

use super::super::Policy;
use super::super::model::{Bounds, menu};
use super::holds::{A, APPEND, K, KEEP, first, holds, only};

/// Some are cut where they reach so many states: then every schedule up to the depth that is printed was searched.
const CUT: u64 = 12_000_000;

fn cut(runners: &[&[Policy]], early: u16, late: u16) -> Bounds {
    Bounds { states: CUT, ..Bounds::new(runners, early, late) }
}

fn at_once(bounds: Bounds) -> Bounds {
    Bounds { listed_at_once: true, ..bounds }
}

#[test]
#[ignore = "minutes long: CONTRIBUTING.md names the command"]
fn larger_bounds_hold_as_well() {
    let network = menu::NETWORK;
    let searches = [
        ("one runner, 3 batches, 2 faults", cut(&[&[APPEND; 3]], first(3), 0).with(2, menu::ALL)),
        ("one runner, 2 batches, 3 faults", cut(&[&[APPEND; 3]], first(2), 0).with(3, menu::ALL)),
        (
            "KEEP, then without, late logs, 2 faults",
            cut(&[&[KEEP, APPEND, KEEP]], first(1), only(2)).with(2, menu::ALL),
        ),
        ("two runners, 2 batches, 1 fault", at_once(cut(&[A, A], first(2), 0).with(1, menu::ALL))),
        ("two runners, late logs, a network's fault", cut(&[A, A], first(1), only(2)).with(1, network)),
        ("two runners, one batch, 2 faults", cut(&[&[APPEND; 2], A], first(1), 0).with(2, menu::ALL)),
        ("KEEP beside a run without, 2 batches, 1 fault", cut(&[K, A], first(2), 0).with(1, menu::ALL)),
        ("two runners, 3 batches", at_once(cut(&[A, A], first(3), 0))),
        ("two runners, 3 batches, 1 fault", at_once(cut(&[A, A], first(3), 0).with(1, menu::ALL))),
        ("KEEP beside a run without, 3 batches, 1 fault", cut(&[K, A], first(3), 0).with(1, network)),
        ("three runners, one batch, 1 fault", cut(&[A, K, A], first(1), 0).with(1, menu::ALL)),
        ("three runners, 2 batches", at_once(cut(&[A, A, A], first(2), 0))),
    ];
    let states: u64 = searches.iter().map(|(what, bounds)| holds(what, bounds)).sum();
    println!("{states} states");
    assert!(states >= 50_000_000, "the bounds were meant to be larger");
}
