//! The ledger: every line that was ever put must be present exactly once, in a rollup or still in its source.
//!
//! It keeps a 64-bit hash for each line and the name of the object it came in, not the text: about 50 bytes a line.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::BufRead as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::testbed::Testbed;

/// How many findings of each kind are told.
const EXAMPLES: usize = 3;
/// How many bytes of an unknown line are shown.
const SHOWN: usize = 120;
/// What stands below the destination prefix and is no data.
const MANIFESTS: &str = "_manifests/";

#[derive(Clone, Copy, Debug)]
struct Entry {
    object: u32,
    line: u32,
    count: u32,
    /// How many of them may be missing.
    expired: u32,
}

/// Every line that was put.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    lines: HashMap<u64, Entry>,
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

/// All lines are where they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The objects that were looked at.
    pub objects: u64,
    /// Their lines.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imbalance {
    /// Lines that are nowhere.
    pub lost: u64,
    /// Lines that are there more often than they were put, counted once for each time too many.
    pub doubled: u64,
    /// Lines that were never put: fused, cut, or from elsewhere.
    pub unknown: u64,
    /// A few findings of each kind.
    pub examples: Vec<String>,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines lost, {} doubled, {} unknown", self.lost, self.doubled, self.unknown)?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

impl std::error::Error for Imbalance {}

fn hash(line: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

/// Calls `each` with every line of a body that comes in pieces. A last line needs no newline; a blank line is a line.
fn for_each_line(pieces: impl IntoIterator<Item = Bytes>, mut each: impl FnMut(&[u8])) {
    let mut open: Vec<u8> = Vec::new();
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            // The standard library's search is quick in a debug build, too.
            let length = (&mut &*rest).skip_until(b'\n').expect("bytes in memory can be read");
            let (line, behind) = rest.split_at(length);
            rest = behind;
            match line.strip_suffix(b"\n") {
                None => open.extend_from_slice(line),
                Some(line) if open.is_empty() => each(line),
                Some(line) => {
                    open.extend_from_slice(line);
                    each(&open);
                    open.clear();
                }
            }
        }
    }
    if !open.is_empty() {
        each(&open);
    }
}

/// Where lines were seen.
#[derive(Default)]
struct Tally {
    /// By hash: how often, and the number of the object where it was seen first.
    seen: HashMap<u64, (u32, u32)>,
    places: Vec<String>,
    balance: Balance,
    found: Imbalance,
}

impl Tally {
    fn add(&mut self, ledger: &Ledger, place: &str, pieces: impl IntoIterator<Item = Bytes>) {
        let number = u32::try_from(self.places.len()).expect("fewer than 2^32 objects");
        self.places.push(place.to_owned());
        self.balance.objects += 1;
        let mut bytes = 0;
        let pieces = pieces.into_iter().inspect(|piece| bytes += piece.len() as u64);
        for_each_line(pieces, |line| {
            self.balance.lines += 1;
            let id = hash(line);
            let Some(entry) = ledger.lines.get(&id) else {
                self.found.unknown += 1;
                if self.found.unknown <= EXAMPLES as u64 {
                    let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned();
                    self.found.examples.push(format!("unknown in {place}: {text:?} ({} bytes)", line.len()));
                }
                return;
            };
            let (count, first) = self.seen.entry(id).or_insert((0, number));
            *count += 1;
            if *count > entry.count {
                self.found.doubled += 1;
                if self.found.doubled <= EXAMPLES as u64 {
                    let first = &self.places[*first as usize];
                    self.found
                        .examples
                        .push(format!("doubled: {} is in {first} and in {place}", ledger.origin(*entry)));
                }
            }
        });
        self.balance.bytes += bytes;
    }

    fn finish(mut self, ledger: &Ledger) -> Result<Balance, Imbalance> {
        let mut lost: Vec<Entry> = Vec::new();
        for (id, entry) in &ledger.lines {
            let seen = self.seen.get(id).map_or(0, |(count, _)| *count);
            let missing = entry.count.saturating_sub(entry.expired).saturating_sub(seen);
            self.found.lost += u64::from(missing);
            if missing > 0 {
                lost.push(*entry);
            }
        }
        // By age, so that the same loss is told in the same words.
        lost.sort_by_key(|entry| (entry.object, entry.line));
        let told = lost.into_iter().take(EXAMPLES).map(|entry| format!("lost: {}", ledger.origin(entry)));
        self.found.examples.extend(told);
        if self.found.lost + self.found.doubled + self.found.unknown == 0 { Ok(self.balance) } else { Err(self.found) }
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters the lines of a log object.
    ///
    /// # Panics
    /// Beyond 2^32 objects, or lines in one object.
    pub fn put(&mut self, bucket: &str, key: &str, body: &Bytes) {
        let name: Arc<str> = format!("{bucket}/{key}").into();
        let next = u32::try_from(self.names.len()).expect("fewer than 2^32 objects");
        let object = *self.numbers.entry(Arc::clone(&name)).or_insert(next);
        if object == next {
            self.names.push(name);
        }
        let mut number = 0;
        for_each_line([body.clone()], |line| {
            number += 1;
            self.lines.entry(hash(line)).or_insert(Entry { object, line: number, count: 0, expired: 0 }).count += 1;
        });
    }

    /// Strikes out the lines of a log object that is meant to be gone, for example by a lifecycle rule.
    pub fn forget(&mut self, body: &Bytes) {
        for_each_line([body.clone()], |line| {
            let id = hash(line);
            if let Some(entry) = self.lines.get_mut(&id) {
                entry.count = entry.count.saturating_sub(1);
                if entry.count == 0 {
                    self.lines.remove(&id);
                }
            }
        });
    }

    /// A lifecycle rule expired a log object: each of its lines is in a rollup, if it got there in time, or nowhere.
    pub fn expire(&mut self, body: &Bytes) {
        for_each_line([body.clone()], |line| {
            if let Some(entry) = self.lines.get_mut(&hash(line)) {
                entry.expired += 1;
            }
        });
    }

    /// How many lines were put.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.values().map(|entry| u64::from(entry.count)).sum()
    }

    fn origin(&self, entry: Entry) -> String {
        format!("line {} of {}", entry.line, self.names[entry.object as usize])
    }

    /// Checks the bytes of all objects present, rollups and sources, uncompressed.
    ///
    /// # Errors
    /// What is lost, doubled or unknown.
    pub fn check<K: AsRef<str>>(&self, objects: impl IntoIterator<Item = (K, Bytes)>) -> Result<Balance, Imbalance> {
        let mut tally = Tally::default();
        for (key, body) in objects {
            tally.add(self, key.as_ref(), [body]);
        }
        tally.finish(self)
    }

    /// Checks that every line is once in the rollups and the sources that are left. `destination` and `source` are a
    /// bucket and a prefix each; they may overlap: a source is an object that was put into this ledger.
    ///
    /// # Errors
    /// What is lost, doubled or unknown.
    pub fn check_testbed(
        &self,
        bed: &Testbed,
        destination: (&str, &str),
        source: (&str, &str),
    ) -> Result<Balance, Imbalance> {
        let mut tally = Tally::default();
        self.add_sources(&mut tally, bed, source);
        self.add_rollups(&mut tally, bed, destination);
        tally.finish(self)
    }

    /// As [`check_testbed`](Self::check_testbed) after a pass that keeps its sources: every line once in the
    /// rollups, and once in the sources.
    ///
    /// # Errors
    /// What is lost, doubled or unknown.
    pub fn check_testbed_kept(
        &self,
        bed: &Testbed,
        destination: (&str, &str),
        source: (&str, &str),
    ) -> Result<Balance, Imbalance> {
        let mut sources = Tally::default();
        self.add_sources(&mut sources, bed, source);
        sources.finish(self)?;
        let mut rollups = Tally::default();
        self.add_rollups(&mut rollups, bed, destination);
        rollups.finish(self)
    }

    /// Whether a log object of this name was put.
    #[must_use]
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        self.numbers.contains_key(format!("{bucket}/{key}").as_str())
    }

    fn add_sources(&self, tally: &mut Tally, bed: &Testbed, (bucket, prefix): (&str, &str)) {
        for key in bed.keys_under(bucket, prefix).iter().filter(|key| self.holds(bucket, key)) {
            self.add(tally, bed, bucket, key);
        }
    }

    fn add_rollups(&self, tally: &mut Tally, bed: &Testbed, (bucket, prefix): (&str, &str)) {
        let manifests = format!("{prefix}{MANIFESTS}");
        let keys = bed.keys_under(bucket, prefix);
        for key in keys.iter().filter(|key| !key.starts_with(&manifests) && !self.holds(bucket, key)) {
            self.add(tally, bed, bucket, key);
        }
    }

    fn add(&self, tally: &mut Tally, bed: &Testbed, bucket: &str, key: &str) {
        if let Some(object) = bed.object(bucket, key) {
            tally.add(self, &format!("{bucket}/{key}"), object.body.pieces());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new();
        ledger.put("logs", "a", &Bytes::from_static(b"one\ntwo\n"));
        ledger.put("logs", "b", &Bytes::from_static(b"three"));
        ledger.put("logs", "empty", &Bytes::new());
        ledger
    }

    #[rstest]
    #[case::all_in_one(&["one\ntwo\nthree\n"], (0, 0, 0))]
    #[case::in_any_order(&["three", "two\none"], (0, 0, 0))]
    #[case::a_loss(&["one\nthree\n"], (1, 0, 0))]
    #[case::doubled_in_one(&["one\ntwo\none\nthree\n"], (0, 1, 0))]
    #[case::doubled_in_two(&["one\ntwo\nthree\n", "three"], (0, 1, 0))]
    #[case::fused(&["one\nthreetwo\n"], (2, 0, 1))]
    #[case::a_blank_line(&["one\n\ntwo\nthree\n"], (0, 0, 1))]
    #[case::nothing(&[], (3, 0, 0))]
    fn the_ledger_finds(#[case] bodies: &[&'static str], #[case] expected: (u64, u64, u64)) {
        let objects =
            bodies.iter().enumerate().map(|(at, body)| (format!("rollup-{at}"), Bytes::from_static(body.as_bytes())));
        let found = ledger().check(objects).map_or_else(|it| (it.lost, it.doubled, it.unknown), |_| (0, 0, 0));
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case::in_no_rollup(&["one\ntwo\n"], (0, 0, 0))]
    #[case::in_one(&["one\ntwo\nthree\n"], (0, 0, 0))]
    #[case::in_two(&["one\ntwo\nthree\n", "three\n"], (0, 1, 0))]
    #[case::another_is_lost(&["one\nthree\n"], (1, 0, 0))]
    fn an_expired_object_is_in_one_rollup_or_in_none(
        #[case] bodies: &[&'static str],
        #[case] expected: (u64, u64, u64),
    ) {
        let mut ledger = ledger();
        ledger.expire(&Bytes::from_static(b"three"));
        let objects = bodies.iter().map(|body| ("rollup", Bytes::from_static(body.as_bytes())));
        let found = ledger.check(objects).map_or_else(|it| (it.lost, it.doubled, it.unknown), |_| (0, 0, 0));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_finding_names_the_places() {
        let twice = [("r1", Bytes::from_static(b"one\ntwo\n")), ("r2", Bytes::from_static(b"two\n"))];
        let found = ledger().check(twice).unwrap_err();
        assert_eq!(found.examples, ["doubled: line 2 of logs/a is in r1 and in r2", "lost: line 1 of logs/b"]);
    }

    #[test]
    fn a_testbed_is_checked_with_source_and_destination_in_one_bucket() {
        let bed = Testbed::default();
        bed.create_bucket("logs");
        bed.put("logs", "a", "one\ntwo\n");
        bed.put("logs", "rollup/day", "three\n");
        bed.put("logs", "rollup/_manifests/day/x", "{}");
        let places = (("logs", "rollup/"), ("logs", ""));
        let balance = ledger().check_testbed(&bed, places.0, places.1).unwrap();
        assert_eq!(balance, Balance { objects: 2, lines: 3, bytes: 14 });
        assert_eq!(ledger().check_testbed_kept(&bed, places.0, places.1).unwrap_err().lost, 1);
        bed.put("logs", "b", "three");
        bed.put("logs", "rollup/day", "three\none\ntwo\n");
        assert_eq!(ledger().check_testbed_kept(&bed, places.0, places.1).unwrap().lines, 3);
        assert_eq!(ledger().check_testbed(&bed, places.0, places.1).unwrap_err().doubled, 3);
    }
}
