//! How a rollup is laid out in the parts of a multipart upload, within S3's limits.
//!
//! Source: Amazon S3 user guide, "Amazon S3 multipart upload limits": parts of 5 MiB to 5 GiB but for the last, at most
//! 10,000 of them, objects of at most 48.8 TiB.

/// The smallest part but for the last, in bytes.
pub const SMALLEST: u64 = 5 << 20;
/// The largest part, in bytes.
pub const LARGEST: u64 = 5 << 30;
/// The most parts.
pub const MOST: u64 = 10_000;

/// The layout of old bytes that are copied on the server and new bytes that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte and length of each copied part; empty where nothing is copied.
    pub copied: Vec<(u64, u64)>,
    /// Bytes of each part that is sent, but for the last.
    pub part: u64,
}

impl Layout {
    /// A layout for `old` bytes to copy and at most `new` bytes to send, or `None` where they do not fit into one
    /// object.
    #[must_use]
    pub fn new(old: u64, new: u64) -> Option<Self> {
        let copies = old.div_ceil(LARGEST);
        let left = MOST.checked_sub(copies).filter(|left| *left > 0)?;
        let part = new.div_ceil(left).max(SMALLEST);
        (part <= LARGEST).then(|| Self { copied: even(old, copies), part })
    }

    /// The number of the first part that is sent.
    ///
    /// # Panics
    /// Never: there are at most 10,000 copied parts.
    #[must_use]
    pub fn first_sent(&self) -> u16 {
        u16::try_from(self.copied.len() + 1).expect("at most 10,000 parts")
    }
}

/// `whole` bytes in `pieces` ranges whose lengths differ by at most one.
fn even(whole: u64, pieces: u64) -> Vec<(u64, u64)> {
    let (length, longer) = (whole.checked_div(pieces).unwrap_or(0), whole.checked_rem(pieces).unwrap_or(0));
    let mut first = 0;
    (0..pieces)
        .map(|piece| {
            let length = length + u64::from(piece < longer);
            let range = (first, length);
            first += length;
            range
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest object: 10,000 of the largest parts, which S3 calls 48.8 TiB.
    const WHOLE: u64 = MOST * LARGEST;

    /// Nothing, or what is not small enough to be read.
    fn old_bytes() -> impl Strategy<Value = u64> {
        let near = |bytes: u64| bytes.saturating_sub(3).max(SMALLEST)..=bytes + 3;
        prop_oneof![
            Just(0),
            SMALLEST..=WHOLE + LARGEST,
            (1..=MOST).prop_flat_map(move |parts| near(parts * LARGEST)),
            near(SMALLEST),
        ]
    }

    fn new_bytes() -> impl Strategy<Value = u64> {
        let near = |bytes: u64| bytes.saturating_sub(3).max(1)..=bytes + 3;
        prop_oneof![
            1..=LARGEST,
            1..=WHOLE + LARGEST,
            (1..=MOST).prop_flat_map(move |parts| near(parts * SMALLEST)),
            (1..=MOST).prop_flat_map(move |parts| near(parts * LARGEST)),
        ]
    }

    proptest! {
        #[test]
        fn every_part_is_within_the_limits_of_s3(old in old_bytes(), new in new_bytes()) {
            let Some(layout) = Layout::new(old, new) else {
                prop_assert!(old.div_ceil(LARGEST) + new.div_ceil(LARGEST) > MOST, "it fits, and no layout was found");
                return Ok(());
            };
            let mut next = 0;
            for (first, length) in &layout.copied {
                prop_assert_eq!(*first, next, "the copied ranges leave a gap or overlap");
                prop_assert!((SMALLEST..=LARGEST).contains(length));
                next += length;
            }
            prop_assert_eq!(next, old, "the copied ranges are not the old object");
            prop_assert!((SMALLEST..=LARGEST).contains(&layout.part));
            let sent = new.div_ceil(layout.part);
            prop_assert!(u64::from(layout.first_sent()) + sent - 1 <= MOST, "more than 10,000 parts");
            prop_assert_eq!(u64::from(layout.first_sent()) - 1, layout.copied.len() as u64);
            prop_assert!(old + new <= WHOLE);
        }
    }

    #[test]
    fn the_largest_object_of_s3_just_fits() {
        assert!(Layout::new(WHOLE - LARGEST, LARGEST).is_some());
        assert_eq!(Layout::new(WHOLE - LARGEST, LARGEST + 1), None);
        assert_eq!(Layout::new(WHOLE - LARGEST + 1, 1), None);
        assert!(Layout::new(0, WHOLE).is_some());
        assert_eq!(Layout::new(0, WHOLE + 1), None);
    }

    #[test]
    fn nothing_old_leaves_all_parts_to_the_new() {
        assert_eq!(Layout::new(0, 1), Some(Layout { copied: vec![], part: SMALLEST }));
        assert_eq!(Layout::new(LARGEST + 2, 1).map(|l| l.copied.len()), Some(2));
    }
}
