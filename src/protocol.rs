//! The commit protocol of one rollup as a state machine without I/O.
//!
//! [`Machine`] holds every decision: it names the next requests and takes their answers, among them "no answer: it may
//! or may not have been applied". It owns no bytes, no clock, no names of buckets; the executor that performs the
//! requests owns those, and the tests put a model of S3 in its place. Several requests may be outstanding, each in a
//! [`Slot`] of its own: a chain reads ahead while it commits and while the sources of earlier batches are deleted.
//!
//! In the words used here a rollup `R` has an `ETag` `e` (its *base*, `None` where R is absent) and names the batch
//! `p` that last changed it. A batch is *merged* when its commit is known to have been applied.
//!
//! Why it is safe, in five sentences; the search beside this file checks each of them in every reachable state.
//! A manifest that lists every source of a batch exists before its commit. The commit is conditional on the base,
//! so whoever planned on another state of R is refused. Whoever finds `p` on R excludes or deletes the sources of
//! its manifest before reading any other. A source is deleted only when the batch that holds it is known to be
//! committed. A manifest is deleted only when it can never commit any more, or when nothing depends on it.

mod machine;
#[cfg(test)]
mod model;
#[cfg(test)]
mod search;
mod variant;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

pub use machine::Machine;

/// The vocabulary of a world in which the protocol runs: Amazon S3, or a model of it.
pub trait World: Clone + Debug + Eq + Hash {
    /// A source log object; equal only to the very same object.
    type Source: Clone + Debug + Eq + Hash;
    /// The entity tag of a rollup.
    type ETag: Clone + Debug + Eq + Hash;
    /// A batch's id, which is also the name of its manifest.
    type Batch: Copy + Debug + Eq + Hash;
    /// Manifest entries of other sources that write to the same rollup: carried, never deleted.
    type Foreign: Clone + Debug + Default + Eq + Hash;
    /// What the listing knew when it handed on a batch.
    type Scope: Clone + Debug + Eq + Hash;

    /// Are there no entries of other sources?
    fn none(foreign: &Self::Foreign) -> bool;

    /// The entries of `carried` that the listing behind `offer` should have shown and did not. Only a hint where to
    /// look: an entry is dropped when S3 confirms that the source is gone.
    fn unlisted(offer: &Offer<Self>, carried: &[Sources<Self>]) -> Vec<Self::Source>;
}

/// A shared list of sources.
pub type Sources<W> = Arc<[<W as World>::Source]>;

/// The state of R that a batch is planned on: its `ETag`, or `None` where R is absent.
pub type Base<W> = Option<<W as World>::ETag>;

/// Candidates of one batch, as the plan hands them on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer<W: World> {
    /// Listed sources with bytes, in key order.
    pub sources: Sources<W>,
    /// Listed sources of zero bytes: they add nothing to R and are deleted without a commit.
    pub empty: Sources<W>,
    /// What the listing covered.
    pub scope: W::Scope,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manifest<W: World> {
    /// R when the batch was planned.
    pub base: Base<W>,
    /// Every source under the own bucket and prefix whose bytes are in R once the batch commits, and which may exist.
    pub merged: Vec<Sources<W>>,
    /// The same of other sources.
    pub foreign: W::Foreign,
}

/// How this run treats what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Delete no source.
    pub keep: bool,
    /// The first commit replaces R instead of appending to it; needs `keep`.
    pub overwrite: bool,
    /// The smallest part of a multipart upload, in bytes: a smaller R is read into the first part.
    pub min_part: u64,
    /// The most sources that a manifest may remember with `keep`.
    pub max_kept: usize,
    /// How often a batch is planned anew before the rollup fails.
    pub max_replans: u8,
}

/// What the first bytes of the new R are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Old {
    /// Nothing: R is absent, empty, or replaced.
    Nothing,
    /// The bytes that [`Request::ReadOld`] has read, fewer than a part.
    Read,
    /// So many bytes, copied on the server.
    Copied(u64),
}

/// A request that the executor performs and answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request<W: World> {
    /// HEAD R.
    Head {
        /// How often the batch was planned anew; wait a little where it is not zero.
        again: u8,
    },
    /// LIST with prefix = the key and at most one key: is it there? (S3 answers 403 for a missing key to who may not
    /// list.)
    Find(Object<W>),
    /// GET a manifest of R.
    GetManifest(W::Batch),
    /// GET R if it still has this tag: all of it where it is smaller than a part, else its last byte (does R end in a
    /// newline?).
    ReadOld {
        /// The tag that HEAD showed.
        etag: W::ETag,
        /// Bytes.
        size: u64,
    },
    /// Read the sources in this order and build the body of the batch, sending parts on the way.
    Gather {
        /// The batch.
        batch: W::Batch,
        /// Its candidates.
        sources: Sources<W>,
        /// What comes before them.
        old: Old,
    },
    /// Which of these sources are gone for certain (404, or another object under the key)?
    CheckKept(Sources<W>),
    /// PUT the manifest, `If-None-Match: *`.
    PutManifest {
        /// The batch, which names the object.
        batch: W::Batch,
        /// Its content.
        manifest: Manifest<W>,
    },
    /// Commit what was gathered, on the condition that R is still `base`, and name the batch in R's metadata.
    Commit {
        /// The batch.
        batch: W::Batch,
        /// What R must still be.
        base: Base<W>,
    },
    /// Throw away what was gathered: stop reading, abort the upload.
    Discard(W::Batch),
    /// Delete sources, each only if it is still the object that was read.
    DeleteSources(Vec<Sources<W>>),
    /// HEAD sources: what stands under the keys now?
    HeadSources(Sources<W>),
    /// Delete a manifest.
    DeleteManifest(W::Batch),
}

/// An object of the rollup that may be asked for with [`Request::Find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object<W: World> {
    /// R itself.
    Rollup,
    /// A manifest of R.
    Manifest(W::Batch),
}

/// An answer to a [`Request`]; `Failed` stands for whatever outlasted the executor's retries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer<W: World> {
    /// To `Head`: R exists.
    Found {
        /// Its tag.
        etag: W::ETag,
        /// Bytes.
        size: u64,
        /// `rollup-batch` of its metadata.
        batch: Option<W::Batch>,
    },
    /// To `Head`, `GetManifest`: 404.
    Missing,
    /// To `Head`, `GetManifest`: 403, which may hide a 404.
    Denied,
    /// To `Find`: is there an object of that very key?
    There(bool),
    /// To `GetManifest`.
    Manifest(Manifest<W>),
    /// To `ReadOld`: it was read.
    Read,
    /// To `ReadOld`, `Commit`: R is not what it was (404, 409, 412), surely not applied by this request. To `Gather`:
    /// somebody has ended the upload, most likely because R has moved on.
    Changed,
    /// To `Gather`: the body is ready.
    Gathered {
        /// Positions of the sources that were left out: gone, changed or unreadable. In rising order.
        left: Vec<usize>,
        /// Bytes that the others add to R.
        added: u64,
    },
    /// To `CheckKept`: these are gone.
    Gone(Vec<W::Source>),
    /// To `PutManifest`, `Discard`, `DeleteManifest`: done.
    Done,
    /// To `Commit`: a clean 2xx, and the tag of R.
    Committed(W::ETag),
    /// To `Commit`, `PutManifest`: it may or may not have been applied, or may be later.
    NoAnswer,
    /// To `DeleteSources`: all are gone but these, by their position in the flattened list.
    Deleted(Vec<(usize, Undeleted)>),
    /// To `HeadSources`: what stands under each key now.
    Heads(Vec<Now>),
    /// To any: refused for good, or still failing after the retries.
    Failed,
}

/// Why S3 did not confirm that a source is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undeleted {
    /// Its condition failed: somebody else's object, perhaps.
    Condition,
    /// Refused for good, as every further delete would be.
    Refused,
    /// Anything else.
    Failed,
}

/// What stands under a source's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Now {
    /// Nothing.
    Gone,
    /// Another object: the next pass's candidate.
    Replaced,
    /// The object that was read.
    Same,
    /// It could not be told.
    Unknown,
}

/// Where a request is outstanding. Each slot holds one request at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot<W: World> {
    /// The steps of the batch, one after the other.
    Main,
    /// Reading sources, possibly ahead of the commit before.
    Gather(W::Batch),
    /// Deleting sources.
    Sweep,
    /// Deleting a manifest.
    Manifest(W::Batch),
    /// Throwing away what was gathered.
    Discard(W::Batch),
}

/// Why a rollup was given up in this pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// A request failed; the executor knows how.
    Request,
    /// R changed under every attempt.
    Contended,
    /// More sources than a manifest may remember with KEEP.
    TooManyKept,
    /// OVERWRITE of a rollup whose sources were deleted.
    OnlyCopy,
}
