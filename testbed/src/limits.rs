//! S3's request limits: a token bucket for the reads and one for the writes of each partition.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::time::Instant;

use crate::request::Recorded;
use crate::settings::Limits;

/// Tokens that are left, and when they were last counted.
#[derive(Debug)]
struct Tokens {
    left: f64,
    counted: Instant,
}

/// The tokens of every partition that was used so far.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    tokens: HashMap<(String, usize, bool), Tokens>,
}

impl Meter {
    /// Takes the tokens of a request, or refuses it, which costs none.
    pub(crate) fn admits(&mut self, request: &Recorded, limits: &Limits, now: Instant) -> bool {
        let write = request.operation.is_write();
        let rate = if write { limits.writes } else { limits.reads };
        let bucket = request.bucket.clone().unwrap_or_default();
        let mut wanted: HashMap<usize, f64> = HashMap::new();
        for key in request.all_keys() {
            *wanted.entry(limits.partition_of(key)).or_default() += 1.0;
        }
        if wanted.is_empty() {
            wanted.insert(limits.partition_of(request.prefix.as_deref().unwrap_or_default()), 1.0);
        }
        for partition in wanted.keys() {
            let full = || Tokens { left: rate, counted: now };
            let tokens = self.tokens.entry((bucket.clone(), *partition, write)).or_insert_with(full);
            tokens.left = (tokens.left + rate * (now - tokens.counted).as_secs_f64()).min(rate);
            tokens.counted = now;
        }
        let all = || wanted.iter().map(|(partition, count)| ((bucket.clone(), *partition, write), *count));
        // A batch larger than a second's worth passes when the bucket is full, and leaves a debt.
        if all().any(|(id, count)| self.tokens[&id].left < count.min(rate)) {
            return false;
        }
        for (id, count) in all() {
            self.tokens.entry(id).and_modify(|tokens| tokens.left -= count);
        }
        true
    }
}

impl Limits {
    /// The partition that a key belongs to, from 0.
    ///
    /// # Panics
    /// Never: a remainder is less than its divisor.
    #[must_use]
    pub fn partition_of(&self, key: &str) -> usize {
        let folder = key.rfind('/').map_or("", |end| &key[..end]);
        let mut hasher = DefaultHasher::new();
        folder.hash(&mut hasher);
        let partitions = self.partitions.max(1) as u64;
        usize::try_from(hasher.finish() % partitions).expect("less than a usize")
    }
}
