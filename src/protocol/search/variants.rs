//! Every rule of the protocol is there because without it an invariant breaks, and the search sees it.

use super::super::Policy;
use super::super::model::{Bounds, menu};
use super::super::variant::Variant;
use super::holds::{A, APPEND, KEEP, OVERWRITE, breaks, first, only};

/// What is broken, where the search is to see it, and the invariant that it finds first.
fn variants() -> Vec<(Variant, Bounds, &'static str)> {
    let one = |passes: &[Policy], late| Bounds::new(&[passes], first(1), late);
    let two = |sources| Bounds::new(&[A, A], first(sources), 0);
    let late = Bounds::new(&[A, A], first(1), only(2));
    let overwrite = Policy { overwrite: true, ..APPEND };
    vec![
        (Variant::SettlesNothing, two(1), "I1"),
        (Variant::CollectsEverything, two(1), "I6"),
        (Variant::HeadBeforeList, two(2), "I6"),
        (Variant::ListsOnlyItsOwn, Bounds::new(&[&[KEEP]], first(2), 0), "I4"),
        (Variant::ListsOnlyItsOwn, Bounds::new(&[A], first(2), 0), "I4"),
        (Variant::ReadsAgain, one(&[KEEP; 2], 0), "I1"),
        (Variant::ChainsOnAnything, two(2), "I1"),
        (Variant::TrustsSilence, one(A, 0).with(1, menu::LOSE), "I2"),
        (Variant::CommitsUnmanifested, one(A, 0).with(1, menu::LOSE), "I3"),
        (Variant::TakesDeniedForMissing, one(&[APPEND; 2], only(2)).with(2, menu::DENY | menu::KILL), "I6"),
        (Variant::CommitsNothing, two(1), "I5"),
        (Variant::ForgetsFailedDeletes, one(A, 0).with(1, menu::LOSE), "I6"),
        (Variant::TrustsFailedConditions, one(A, 0).with(1, menu::UNDELETED), "I6"),
        (Variant::OverwritesTheOnlyCopy, Bounds { alone: true, ..one(&[APPEND, OVERWRITE], only(2)) }, "I2"),
        (
            Variant::OverwritesHalfACopy,
            Bounds { alone: true, batch: 2, ..Bounds::new(&[&[APPEND, OVERWRITE]], first(2), 0).with(1, menu::KILL) },
            "I2",
        ),
        (
            Variant::OverwritesWithoutKeep,
            Bounds { alone: true, ..one(&[overwrite; 2], only(2)).with(2, menu::LOSE) },
            "I2",
        ),
        (Variant::StoreIgnoresIfMatch, late, "I1"),
        (Variant::StoreIgnoresIfNoneMatch, two(2), "I5"),
    ]
}

#[test]
fn without_any_one_of_its_rules_the_protocol_breaks() {
    for (variant, bounds, invariant) in variants() {
        let bounds = Bounds { variant, clean: Vec::new(), ..bounds };
        let broken = breaks(&format!("{variant:?}"), &bounds);
        assert!(broken.invariant.starts_with(invariant), "{variant:?}: {broken}");
    }
}

/// Otherwise the test above would show the bounds to be wrong, and no rule to be needed.
#[test]
fn with_all_of_its_rules_the_protocol_holds_there() {
    for (variant, bounds, _) in variants() {
        if variant != Variant::OverwritesWithoutKeep {
            super::holds::holds(&format!("not {variant:?}"), &Bounds { clean: Vec::new(), ..bounds });
        }
    }
}
