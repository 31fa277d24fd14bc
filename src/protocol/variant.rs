//! Broken variants of the protocol and of the store, with which the tests show that the search would see a mistake.

/// Is the machine this broken variant? Never outside of the tests of the search.
#[cfg(test)]
macro_rules! broken {
    ($machine:expr, $variant:ident) => {
        $machine.variant == $crate::protocol::variant::Variant::$variant
    };
}
#[cfg(not(test))]
macro_rules! broken {
    ($machine:expr, $variant:ident) => {
        false
    };
}
pub(super) use broken;

/// What is broken.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Variant {
    /// Nothing.
    #[default]
    None,
    /// No step 3: the manifest that R names is not read.
    SettlesNothing,
    /// Every listed manifest that R does not name is deleted, whatever it was planned on.
    CollectsEverything,
    /// The manifests are listed after the HEAD.
    HeadBeforeList,
    /// A manifest lists the sources of its own batch alone: none that are kept, or whose delete is not confirmed.
    ListsOnlyItsOwn,
    /// Sources that the manifest lists are candidates again.
    ReadsAgain,
    /// A chain goes on from whatever R is, not from the own commit's tag.
    ChainsOnAnything,
    /// A commit that got no answer counts as applied.
    TrustsSilence,
    /// A batch commits although its manifest got no answer.
    CommitsUnmanifested,
    /// 403 for R or a manifest is taken for 404.
    TakesDeniedForMissing,
    /// A batch that adds no byte is committed.
    CommitsNothing,
    /// A source whose delete failed is forgotten.
    ForgetsFailedDeletes,
    /// A delete whose condition failed counts as done.
    TrustsFailedConditions,
    /// OVERWRITE goes ahead although the sources of R are gone.
    OverwritesTheOnlyCopy,
    /// OVERWRITE goes ahead although some sources of R are gone.
    OverwritesHalfACopy,
    /// OVERWRITE without KEEP, which the settings refuse.
    OverwritesWithoutKeep,
    /// The store commits although `If-Match` fails.
    StoreIgnoresIfMatch,
    /// The store commits although `If-None-Match` fails.
    StoreIgnoresIfNoneMatch,
}
