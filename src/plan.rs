//! Planning: a stream of listed objects becomes batches, each of one rollup.
//!
//! S3 lists in key order, and all keys of one rollup lie side by side, so a rollup is handed on as soon as the listing
//! has passed it: what is held is one batch, however many objects there are. Where another group's keys stand between,
//! the rollup simply gets one more batch. Which requests a batch makes is `protocol`'s business, and that it lists,
//! `pass`'s.

mod tally;
mod window;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use crc_fast::CrcAlgorithm;

pub use self::tally::{Count, Left, Reason, Tally};
use self::window::Window;
use crate::key::LogKey;
use crate::layout::{Layout, RollupName};
use crate::period::{Level, Period};
use crate::shown::shown;
use crate::source::{ETag, Source};

/// One object as a listing shows it.
#[derive(Clone, Debug)]
pub struct Listed<'k> {
    /// The whole key, prefix included.
    pub key: &'k str,
    /// The entity tag that was listed.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// Whether a GET would be answered.
    pub storage: Storage,
}

/// Whether an object can be read as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// A GET returns it.
    Readable,
    /// It must be restored first.
    Archived,
}

impl Storage {
    /// What a listing's storage class says; `restored`: the listing shows a restored copy of it.
    ///
    /// `GLACIER` and `DEEP_ARCHIVE` are archived, `GLACIER_IR` is not. An object that `INTELLIGENT_TIERING` has archived
    /// looks like any other of its class in a listing: only its GET tells (`InvalidObjectState`).
    #[must_use]
    pub fn of_class(class: Option<&str>, restored: bool) -> Self {
        match class {
            Some("GLACIER" | "DEEP_ARCHIVE") if !restored => Self::Archived,
            _ => Self::Readable,
        }
    }
}

/// Which rollups this process takes, of several that share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    count: NonZeroU32,
    index: u32,
}

impl Shard {
    /// The one process that takes everything.
    pub const WHOLE: Self = Self { count: NonZeroU32::MIN, index: 0 };

    /// The shard `index`, from 0, of `count`; `None`: there is none.
    #[must_use]
    pub fn new(count: u32, index: u32) -> Option<Self> {
        let count = NonZeroU32::new(count)?;
        (index < count.get()).then_some(Self { count, index })
    }

    /// How many processes share the work.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// Which of them this is, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The one of `places`, from 0, that this shard has for itself where there are enough; the shards lie evenly among
    /// them.
    #[must_use]
    pub fn share_of(&self, places: usize) -> usize {
        places * self.index as usize / self.count.get() as usize
    }

    /// Whether this shard takes a rollup.
    #[must_use]
    pub fn takes(&self, rollup: &RollupName) -> bool {
        self.count == NonZeroU32::MIN || shard_of(rollup, self.count) == self.index
    }
}

/// The shard, below `count`, that takes a rollup: CRC-64/NVME of its name, modulo `count`. It never
/// changes, so that shards of two versions beside each other do not take the same rollup.
#[must_use]
pub fn shard_of(rollup: &RollupName, count: NonZeroU32) -> u32 {
    remainder(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, rollup.as_str().as_bytes()), count)
}

fn remainder(hash: u64, count: NonZeroU32) -> u32 {
    u32::try_from(hash % u64::from(count.get())).expect("a remainder is below its divisor")
}

/// What a [`Planner`] goes by.
#[derive(Clone, Debug)]
pub struct PlanSettings {
    /// What every listed key begins with, literally.
    pub source_prefix: String,
    /// How rollups are named, and how long their periods are.
    pub layout: Layout,
    /// Log objects before this are left.
    pub since: Option<DateTime<Utc>>,
    /// Log objects at this or after are left.
    pub until: Option<DateTime<Utc>>,
    /// Periods that ended less than this ago are left.
    pub settle: Option<Duration>,
    /// Other shards' rollups are left.
    pub shard: Shard,
    /// Objects of a batch at most, empty ones among them; at least 1.
    pub batch_objects: usize,
    /// Bytes of a batch at most, but for a batch of a single larger source.
    pub batch_bytes: u64,
}

/// Log objects of one rollup that are to be committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The rollup's name.
    pub rollup: RollupName,
    /// The span of time it holds.
    pub period: Period,
    /// The group of the first source, as it stands in the key.
    pub group: Box<str>,
    /// Readable sources with at least one byte, in key order.
    pub sources: Vec<Source>,
    /// Sources without a byte: there is nothing to commit, only to delete. In key order.
    pub empty: Vec<Source>,
    /// Bytes of all sources together.
    pub bytes: u64,
    /// Why the batch ended.
    pub end: BatchEnd,
    /// The stretch of the listing in which the batch has every object of its rollup; `None`: some may have been left
    /// out (archived, outside the window), or the listing was not in order.
    pub covers: Option<KeyRange>,
}

/// Why a batch ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchEnd {
    /// The listing has passed the rollup: another batch of it is rare.
    Passed,
    /// The batch is full: the next one is of the same rollup, for certain.
    Full,
}

/// A stretch of the listing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The key listed just before the first one; `None`: the stretch begins where the listing does.
    pub after: Option<Box<str>>,
    /// The last key of the stretch, which belongs to it.
    pub until: Box<str>,
}

/// Keys that carry no time of day, at a level that needs one: partitioned prefixes by event time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log objects of group `{}` carry a date but no time of day (for example `{}`): their bucket logs \
     with partitioned prefixes by event time, so ROLLUP_LEVEL={level} cannot be told from the key; nothing of this \
     group was rolled up in this period. Set ROLLUP_LEVEL to `day` or `month`, or the bucket's PartitionDateSource to \
     DeliveryTime",
    shown(.group),
    shown(.example)
)]
pub struct EventTimeKeys {
    /// The group, as it stands in the key.
    pub group: String,
    /// One of its keys.
    pub example: String,
    /// The level that was asked for.
    pub level: Level,
}

/// Takes listed objects in key order and hands on batches.
///
/// Holds at most one batch. A key costs a comparison and a parse; a name is made, and memory taken, only where the
/// group or the period changes and for the sources that are kept.
#[derive(Debug)]
pub struct Planner {
    source_prefix: String,
    layout: Layout,
    window: Window,
    /// Periods that end after this are not settled.
    settled: NaiveDateTime,
    shard: Shard,
    batch_objects: usize,
    batch_bytes: u64,
    /// The greatest key so far.
    last: Option<String>,
    run: Option<Run>,
    tally: Tally,
}

/// Keys side by side that have one group and one period.
#[derive(Debug)]
struct Run {
    group: Box<str>,
    period: Period,
    /// The period's, computed once.
    end: NaiveDateTime,
    fate: Fate,
}

#[derive(Debug)]
enum Fate {
    Gather(Gathering),
    Leave(Reason),
}

/// A batch that is being filled.
#[derive(Debug)]
struct Gathering {
    rollup: RollupName,
    group: Box<str>,
    sources: Vec<Source>,
    empty: Vec<Source>,
    bytes: u64,
    /// The key listed before the batch's first.
    after: Option<Box<str>>,
    /// Whether the batch has all of its rollup from its first key to its last.
    complete: bool,
    /// Whether something was left out since the batch's last key.
    gap: bool,
    times: Times,
}

/// Whether the keys of a rollup, over all its batches side by side, show a time of day.
#[derive(Debug, Default)]
struct Times {
    /// Keys that may carry a date only.
    dates: u64,
    /// One key at least has a time of day.
    told: bool,
}

impl Planner {
    /// Plans a listing as of `now`, which only `settle` looks at.
    #[must_use]
    pub fn new(settings: PlanSettings, now: DateTime<Utc>) -> Self {
        let PlanSettings { source_prefix, layout, since, until, settle, shard, batch_objects, batch_bytes } = settings;
        Self {
            source_prefix,
            layout,
            window: Window::new(since, until),
            settled: settled(settle, now),
            shard,
            batch_objects: batch_objects.max(1),
            batch_bytes,
            last: None,
            run: None,
            tally: Tally::default(),
        }
    }

    /// Says that the listing begins behind a key, before anything is pushed.
    pub fn begin_behind(&mut self, key: &str) {
        self.last = Some(key.to_owned());
    }

    /// Takes the next listed object; returns the batch that it ends, if it ends one.
    ///
    /// Keys come in ascending order of their bytes, as S3 lists. A key that was just listed is skipped; a smaller one
    /// is left for the next pass ([`Reason::OutOfOrder`]), so that no listing, however broken, brings an object into
    /// two batches.
    ///
    /// After an error nothing more may be pushed: the pass ends with it.
    pub fn push(&mut self, object: Listed<'_>) -> Result<Option<Batch>, EventTimeKeys> {
        self.tally.listed.add(object.size);
        match self.last.as_deref().map(|last| object.key.cmp(last)) {
            Some(Ordering::Equal) => {
                self.tally.repeated += 1;
                return Ok(None);
            }
            Some(Ordering::Less) => {
                self.tally.leave(Reason::OutOfOrder, &object);
                return Ok(None);
            }
            _ => {}
        }
        let key = object.key;
        let batch = self.place(object);
        let last = self.last.get_or_insert_default();
        last.clear();
        last.push_str(key);
        batch
    }

    /// Ends the listing; returns the last batch, if there is one. What is pushed then is another listing, which has none
    /// of the keys of this one.
    pub fn finish(&mut self) -> Result<Option<Batch>, EventTimeKeys> {
        self.last = None;
        match self.run.take() {
            Some(run) => self.pass_by(run),
            None => Ok(None),
        }
    }

    /// What has been listed, planned and left so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Where the listing may go on (`StartAfter`) instead of after `last`, the last key of a page: behind keys that the
    /// window excludes. `None`: nothing can be jumped over.
    ///
    /// A jump stays among the keys that have the same text before their time and the same year, in the same format; a
    /// window that begins years later takes one page a year. One thing can be missed: a group whose own name reads like
    /// a date where the times stand. With `logs/2018-03-05-10-00-00-AB` outside the window, what lies in a folder
    /// `logs/2018-04/` may not be seen.
    #[must_use]
    pub fn skip_to(&self, last: &str) -> Option<String> {
        self.window.jump(&LogKey::parse(&self.source_prefix, last)?, last)
    }

    fn place(&mut self, object: Listed<'_>) -> Result<Option<Batch>, EventTimeKeys> {
        let Some(key) = LogKey::parse(&self.source_prefix, object.key) else {
            self.tally.leave(Reason::NotALogKey, &object);
            return Ok(None);
        };
        let passed = if self.run.as_ref().is_some_and(|run| run.has(&key)) { None } else { self.enter(&key)? };
        let Some(run) = &mut self.run else { return Ok(passed) };
        let gathering = match &mut run.fate {
            Fate::Gather(gathering) => gathering,
            Fate::Leave(reason) => {
                self.tally.leave(*reason, &object);
                return Ok(passed);
            }
        };
        if let Some(reason) = reason_to_leave(&self.window, &key, &object) {
            gathering.gap = true;
            self.tally.leave(reason, &object);
            return Ok(passed);
        }
        gathering.times.note(&key);
        let full = gathering.is_full(object.size, self.batch_objects, self.batch_bytes);
        let cut = if full { self.hand_on(BatchEnd::Full)? } else { None };
        self.gather(object);
        Ok(passed.or(cut))
    }

    /// Begins the run of a key; returns the batch of the run before it, unless both are of one rollup.
    fn enter(&mut self, key: &LogKey<'_>) -> Result<Option<Batch>, EventTimeKeys> {
        let period = Period::of(self.layout.level(), key.at());
        let fate = self.fate(key, &period);
        let mut run = Run { group: key.group().into(), period, end: period.end(), fate };
        let Some(before) = self.run.take() else {
            self.run = Some(run);
            return Ok(None);
        };
        let passed = match (before.fate, &mut run.fate) {
            (Fate::Gather(old), Fate::Gather(new)) if old.rollup == new.rollup => {
                *new = old;
                Ok(None)
            }
            (fate, _) => self.pass_by(Run { fate, ..before }),
        };
        self.run = Some(run);
        passed
    }

    fn fate(&self, key: &LogKey<'_>, period: &Period) -> Fate {
        match self.layout.rollup(key.group(), period) {
            None => Fate::Leave(Reason::NoRollupName),
            Some(rollup) if !self.shard.takes(&rollup) => Fate::Leave(Reason::OtherShard),
            Some(_) if period.end() > self.settled => Fate::Leave(Reason::NotSettled),
            Some(rollup) => Fate::Gather(Gathering::new(rollup, key.group().into())),
        }
    }

    /// Adds an object to the batch of the run it belongs to.
    fn gather(&mut self, object: Listed<'_>) {
        let Some(Run { fate: Fate::Gather(gathering), period, .. }) = &mut self.run else { return };
        if gathering.is_empty() {
            gathering.after = self.last.as_deref().map(Into::into);
            // What a jump goes over is never listed, so a period that the window cuts is never known to be complete.
            gathering.complete = self.window.holds(period);
        } else if gathering.gap {
            gathering.complete = false;
        }
        gathering.gap = false;
        self.tally.planned.add(object.size);
        gathering.add(object);
    }

    /// Takes the batch out of the current run, which goes on.
    fn hand_on(&mut self, end: BatchEnd) -> Result<Option<Batch>, EventTimeKeys> {
        let ordered = self.tally.left(Reason::OutOfOrder).count.objects == 0;
        let Some(Run { fate: Fate::Gather(gathering), period, .. }) = &mut self.run else { return Ok(None) };
        gathering.check_times(period.level())?;
        let batch = gathering.take(*period, end, ordered);
        self.tally.batches += u64::from(batch.is_some());
        Ok(batch)
    }

    fn pass_by(&mut self, run: Run) -> Result<Option<Batch>, EventTimeKeys> {
        self.run = Some(run);
        let batch = self.hand_on(BatchEnd::Passed);
        self.run = None;
        batch
    }
}

/// The instant after which no period may end: everything is settled without a setting, nothing with one that reaches
/// beyond the calendar.
fn settled(settle: Option<Duration>, now: DateTime<Utc>) -> NaiveDateTime {
    let Some(settle) = settle else { return NaiveDateTime::MAX };
    TimeDelta::from_std(settle)
        .ok()
        .and_then(|settle| now.naive_utc().checked_sub_signed(settle))
        .unwrap_or(NaiveDateTime::MIN)
}

fn reason_to_leave(window: &Window, key: &LogKey<'_>, object: &Listed<'_>) -> Option<Reason> {
    if !window.takes(key) {
        return Some(Reason::OutsideWindow);
    }
    (object.storage == Storage::Archived).then_some(Reason::Archived)
}

impl Run {
    fn has(&self, key: &LogKey<'_>) -> bool {
        self.period.start() <= key.at() && key.at() < self.end && *self.group == *key.group()
    }
}

impl Times {
    fn note(&mut self, key: &LogKey<'_>) {
        self.dates += u64::from(key.may_be_a_date_only());
        self.told |= !key.may_be_a_date_only();
    }
}

impl Gathering {
    fn new(rollup: RollupName, group: Box<str>) -> Self {
        Self {
            rollup,
            group,
            sources: Vec::new(),
            empty: Vec::new(),
            bytes: 0,
            after: None,
            complete: false,
            gap: false,
            times: Times::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.empty.is_empty()
    }

    /// Whether one more object of `size` bytes would be too much.
    fn is_full(&self, size: u64, objects: usize, bytes: u64) -> bool {
        let too_many = self.sources.len() + self.empty.len() >= objects;
        let too_large = !self.sources.is_empty() && size > 0 && self.bytes.saturating_add(size) > bytes;
        too_many || too_large
    }

    fn add(&mut self, object: Listed<'_>) {
        let source = Source { key: object.key.into(), etag: object.etag, size: object.size };
        self.bytes = self.bytes.saturating_add(object.size);
        if object.size == 0 { self.empty.push(source) } else { self.sources.push(source) }
    }

    fn last_key(&self) -> Option<&str> {
        let keys = [self.sources.last(), self.empty.last()];
        keys.into_iter().flatten().map(|source| &*source.key).max()
    }

    /// Two keys or more that all read 00-00-00 are no accident: at a level that needs the time of day, they carry none.
    fn check_times(&self, level: Level) -> Result<(), EventTimeKeys> {
        if level.is_told_by_a_date() || self.times.told || self.times.dates < 2 {
            return Ok(());
        }
        let example = self.last_key().unwrap_or_default().to_owned();
        Err(EventTimeKeys { group: self.group.as_ref().to_owned(), example, level })
    }

    /// The batch, if it holds anything; what is gathered next begins another one.
    fn take(&mut self, period: Period, end: BatchEnd, ordered: bool) -> Option<Batch> {
        let until = self.last_key()?.into();
        let after = self.after.take();
        Some(Batch {
            rollup: self.rollup.clone(),
            period,
            group: self.group.clone(),
            sources: std::mem::take(&mut self.sources),
            empty: std::mem::take(&mut self.empty),
            bytes: std::mem::take(&mut self.bytes),
            end,
            covers: (self.complete && ordered).then_some(KeyRange { after, until }),
        })
    }
}
