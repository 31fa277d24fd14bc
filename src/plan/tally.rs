//! What the planning of a listing came to: figures for the report.

use std::fmt;

use super::Listed;

/// How many objects, and how many bytes they have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Why an object stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its key is not one of a log object.
    NotALogKey,
    /// It cannot be read before it is restored.
    Archived,
    /// Its time lies outside SINCE and UNTIL.
    OutsideWindow,
    /// Its period has not ended long enough ago.
    NotSettled,
    /// Another shard takes its rollup.
    OtherShard,
    /// No rollup can have the name that its group makes: it begins with `_`, reads as a log object's, or is too long.
    NoRollupName,
    /// It was listed after a key that is greater: the listing is not one of S3's.
    OutOfOrder,
}

impl Reason {
    /// Every reason, in the order they are reported.
    pub const ALL: [Self; 7] = [
        Self::NotALogKey,
        Self::Archived,
        Self::OutsideWindow,
        Self::NotSettled,
        Self::OtherShard,
        Self::NoRollupName,
        Self::OutOfOrder,
    ];

    /// Whether some keys are named: where the user may want to do something about it.
    fn has_examples(self) -> bool {
        matches!(self, Self::NotALogKey | Self::Archived | Self::NoRollupName | Self::OutOfOrder)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotALogKey => "not named like a log object",
            Self::Archived => "archived, to be restored first",
            Self::OutsideWindow => "outside ROLLUP_SINCE and ROLLUP_UNTIL",
            Self::NotSettled => "of a period that is not settled yet",
            Self::OtherShard => "another shard's",
            Self::NoRollupName => "in a group that no rollup can be named after",
            Self::OutOfOrder => "listed out of order",
        })
    }
}

/// Examples kept for a reason at most.
const EXAMPLES: usize = 3;

/// What was left for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// How much.
    pub count: Count,
    /// The first keys, three at most; none for what settings exclude.
    pub examples: Vec<String>,
}

/// What was listed, planned and left. Every listed object is repeated, planned or left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Everything that was pushed.
    pub listed: Count,
    /// Keys that were listed twice in a row; the second one is skipped.
    pub repeated: u64,
    /// What went into a batch, or will with the next one; empty objects among it.
    pub planned: Count,
    /// Batches handed on.
    pub batches: u64,
    left: [Left; Reason::ALL.len()],
}

impl Tally {
    /// What was left for a reason.
    #[must_use]
    pub fn left(&self, reason: Reason) -> &Left {
        &self.left[reason as usize]
    }

    pub(super) fn leave(&mut self, reason: Reason, object: &Listed<'_>) {
        let left = &mut self.left[reason as usize];
        left.count.add(object.size);
        if reason.has_examples() && left.examples.len() < EXAMPLES {
            left.examples.push(object.key.to_owned());
        }
    }
}
