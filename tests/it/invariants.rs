//! The invariants of the commit protocol, checked in the buckets after every request that changed something.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use s3_log_rollup::manifest::{self, BatchId, Manifest, Scope};
use testbed::{Object, Operation, Recorded, Testbed};

use crate::bench::{LOGS, OUT};

/// Probes of killed passes, and their uploads, stay for a day.
const PROBES: &str = "rollup/_manifests/_probe-";

const MIB: usize = 1 << 20;
/// How many chunks a [`Watch::put_filler`] has: above 16 MiB the testbed copies without reading.
const FILLER: usize = 17;

/// A log object whose lines say where they come from.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) key: String,
    pub(crate) lines: usize,
    /// Bytes that each line has besides.
    pub(crate) padding: usize,
    /// The last line ends in a newline.
    pub(crate) newline: bool,
}

impl Log {
    pub(crate) fn body(&self) -> String {
        let mut body = String::new();
        for line in 0..self.lines {
            let _ = writeln!(body, "{}#{line} {}", self.key, "x".repeat(self.padding));
        }
        if !self.newline {
            body.pop();
        }
        body
    }
}

/// What a rollup holds.
#[derive(Debug)]
struct Content {
    etag: String,
    batch: Option<BatchId>,
    /// Keys of log objects.
    logs: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct State {
    /// Log objects that were put, and their lines.
    logs: BTreeMap<String, usize>,
    /// By rollup.
    contents: BTreeMap<String, Content>,
    /// Every state of a rollup there ever was.
    tags: BTreeSet<(String, String)>,
    /// Every manifest there ever was.
    manifests: BTreeMap<(String, String), Manifest>,
    checked: u64,
    broken: Option<String>,
}

/// Checks after every request as long as it lives.
pub(crate) struct Watch {
    bed: Testbed,
    state: Arc<Mutex<State>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The hook holds the testbed, which holds the hook.
        self.bed.on_request(|_| ());
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    pub(crate) fn new(bed: &Testbed) -> Self {
        Self::with(bed, State::default())
    }

    fn with(bed: &Testbed, state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let (seen, watched) = (Arc::clone(&state), bed.clone());
        bed.on_request(move |request| lock(&seen).look(&watched, Some(request)));
        Self { bed: bed.clone(), state }
    }

    /// The same for a fork of the testbed: what was put so far is known.
    pub(crate) fn fork(&self, bed: &Testbed) -> Self {
        let watch = Self::with(bed, State { logs: lock(&self.state).logs.clone(), ..State::default() });
        lock(&watch.state).look(bed, None);
        watch
    }

    pub(crate) fn put(&self, log: &Log) {
        lock(&self.state).logs.insert(log.key.clone(), log.lines);
        self.bed.put(LOGS, &log.key, log.body());
    }

    /// A rollup of another tool, too large to be read again, without a newline at its end.
    pub(crate) fn put_filler(&self, rollup: &str) {
        self.bed.put_virtual(OUT, &format!("rollup/{rollup}"), "x".repeat(MIB), FILLER);
    }

    /// How many states were checked.
    pub(crate) fn checked(&self) -> u64 {
        lock(&self.state).checked
    }

    /// Fails with the first invariant that was broken.
    pub(crate) fn holds(&self) -> Result<(), String> {
        lock(&self.state).broken.take().map_or(Ok(()), Err)
    }

    /// Everything that was put is in its rollup and, without `keep`, nowhere else. Of the work nothing is left but a
    /// manifest that may still commit, and, with `keep`, those that the rollups name. (Probes of killed passes stay.)
    pub(crate) fn complete(&self, keep: bool) -> Result<(), String> {
        self.holds()?;
        let mut state = lock(&self.state);
        state.check(&self.bed, None)?;
        let held: BTreeSet<&String> = state.contents.values().flat_map(|content| &content.logs).collect();
        let put = state.logs.iter().filter(|(_, lines)| **lines > 0).map(|(key, _)| key);
        let missing: Vec<_> = put.filter(|key| !held.contains(key)).collect();
        expect(missing.is_empty(), || format!("in no rollup: {missing:?}"))?;
        let left = self.bed.keys(LOGS);
        expect(keep || left.is_empty(), || format!("not deleted: {left:?}"))?;
        for key in self.bed.keys_under(OUT, "rollup/_manifests/") {
            let Some((rollup, batch)) = manifest::parse_key("rollup/", &key) else { continue };
            expect(state.is_needed(rollup, batch, keep), || format!("left behind: {key}"))?;
        }
        Ok(())
    }

    /// No upload to a rollup is left, whoever began it.
    pub(crate) fn no_uploads(&self) -> Result<(), String> {
        let uploads = self.bed.uploads(OUT);
        let uploads: Vec<_> = uploads.iter().filter(|(key, ..)| !key.starts_with(PROBES)).collect();
        expect(uploads.is_empty(), || format!("uploads: {uploads:?}"))
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The rollup of a log object, at level day.
fn rollup_of(log: &str) -> String {
    let name = log.strip_prefix("logs/").unwrap_or(log);
    let (group, time) = name.split_at(name.find("2026-01-31").expect("all are of one day"));
    format!("{}{}", group.trim_start_matches('/'), &time[.."2026-01-31".len()])
}

impl State {
    fn look(&mut self, bed: &Testbed, request: Option<&Recorded>) {
        if self.broken.is_some() || request.is_some_and(|request| !request.operation.is_write()) {
            return;
        }
        self.checked += 1;
        if let Err(why) = self.check(bed, request) {
            let after = request.map(|r| format!("after request {} of pass {}, {:?}: ", r.seq, r.client, r.operation));
            self.broken = Some(after.unwrap_or_default() + &why);
        }
    }

    fn check(&mut self, bed: &Testbed, request: Option<&Recorded>) -> Result<(), String> {
        self.read_rollups(bed)?;
        self.read_manifests(bed)?;
        let present: BTreeSet<String> = bed.keys(LOGS).into_iter().collect();
        let held: BTreeSet<&String> = self.contents.values().flat_map(|content| &content.logs).collect();
        for (key, _) in self.logs.iter().filter(|(key, lines)| **lines > 0 && !present.contains(*key)) {
            expect(held.contains(key), || format!("I2: {key} is gone and in no rollup"))?;
        }
        for (rollup, content) in &self.contents {
            self.check_pending(bed, rollup, content, &present)?;
        }
        let deleted = request.filter(|request| request.operation == Operation::DeleteObject);
        deleted.and_then(|request| request.key.as_deref()).map_or(Ok(()), |key| self.check_deleted(key, &present))
    }

    /// Whether a manifest must stay after a pass: with `keep` R needs it, or it was planned on what R is, and its commit
    /// may still be on its way.
    fn is_needed(&self, rollup: &str, batch: BatchId, keep: bool) -> bool {
        let content = self.contents.get(rollup);
        if content.is_some_and(|content| content.batch == Some(batch)) {
            return keep;
        }
        let base = self.manifests.get(&(rollup.to_owned(), batch.to_string())).map(|manifest| manifest.base.as_ref());
        base.is_some_and(|base| base.map(ToString::to_string).as_deref() == content.map(|content| &*content.etag))
    }

    /// I1: no line is in a rollup twice, nor half of a log object, nor another rollup's. I5: no state comes back.
    fn read_rollups(&mut self, bed: &Testbed) -> Result<(), String> {
        let keys = bed.keys_under(OUT, "rollup/");
        for rollup in keys.iter().filter_map(|key| key.strip_prefix("rollup/")).filter(|name| !name.starts_with('_')) {
            let Some(object) = bed.object(OUT, &format!("rollup/{rollup}")) else { continue };
            let known = self.contents.get(rollup);
            if known.is_some_and(|known| known.etag == object.etag) {
                continue;
            }
            let fresh = self.tags.insert((rollup.to_owned(), object.etag.clone()));
            expect(fresh, || format!("I5: {rollup} is {} again", object.etag))?;
            let logs = self.logs_of(rollup, &object)?;
            let lost: Vec<_> = known.iter().flat_map(|known| known.logs.difference(&logs)).collect();
            expect(lost.is_empty(), || format!("{rollup} lost {lost:?}"))?;
            let batch = object.metadata.get("rollup-batch").and_then(|text| BatchId::parse(text));
            self.contents.insert(rollup.to_owned(), Content { etag: object.etag, batch, logs });
        }
        Ok(())
    }

    fn logs_of(&self, rollup: &str, object: &Object) -> Result<BTreeSet<String>, String> {
        let (filler, own): (Vec<_>, Vec<_>) =
            object.body.pieces().partition(|piece| piece.len() == MIB && piece.first() == Some(&b'x'));
        let mut text = String::from_utf8(own.concat()).map_err(|error| format!("{rollup}: {error}"))?;
        if !filler.is_empty() && !text.is_empty() {
            expect(text.starts_with('\n'), || format!("{rollup}: the first line is fused with the old one"))?;
            text.remove(0);
        }
        let mut lines: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for line in text.lines() {
            let Some((key, number)) = line.split(' ').next().and_then(|name| name.split_once('#')) else {
                return Err(format!("{rollup} has an unknown line {:?}", &line[..line.len().min(80)]));
            };
            expect(rollup_of(key) == rollup, || format!("{key} is in {rollup}"))?;
            expect(lines.entry(key).or_default().insert(number), || format!("I1: {key} is in {rollup} twice"))?;
        }
        for (key, lines) in &lines {
            let whole = self.logs.get(*key).is_some_and(|put| *put == lines.len());
            expect(whole, || format!("only {} lines of {key} are in {rollup}", lines.len()))?;
        }
        Ok(lines.into_keys().map(ToOwned::to_owned).collect())
    }

    fn read_manifests(&mut self, bed: &Testbed) -> Result<(), String> {
        for key in bed.keys_under(OUT, "rollup/_manifests/") {
            let Some((rollup, batch)) = manifest::parse_key("rollup/", &key) else { continue };
            let name = (rollup.to_owned(), batch.to_string());
            if !self.manifests.contains_key(&name)
                && let Some(object) = bed.object(OUT, &key)
            {
                let read = manifest::decode(&object.bytes(), rollup, Scope { bucket: LOGS, prefix: "logs/" });
                self.manifests.insert(name, read.map_err(|error| format!("{key}: {error}"))?);
            }
        }
        Ok(())
    }

    /// I3 and I4, as every state shows them: whatever is in R and still there is in the manifest that R names; and
    /// whatever that manifest names is in R, since it may be deleted.
    fn check_pending(
        &self,
        bed: &Testbed,
        rollup: &str,
        content: &Content,
        present: &BTreeSet<String>,
    ) -> Result<(), String> {
        let Some(batch) = content.batch else { return Ok(()) };
        let there = bed.object(OUT, &manifest::key("rollup/", rollup, batch)).is_some();
        let named = self.manifests.get(&(rollup.to_owned(), batch.to_string())).filter(|_| there);
        let named: BTreeSet<&str> = named.iter().flat_map(|named| named.merged.iter()).map(|s| &*s.key).collect();
        let forgotten: Vec<_> =
            content.logs.iter().filter(|key| present.contains(*key) && !named.contains(key.as_str())).collect();
        expect(forgotten.is_empty(), || {
            let law = if there { "I4: the manifest does not name" } else { "I3: there is no manifest that names" };
            format!("{law} {forgotten:?} of {rollup}")
        })?;
        let foreign: Vec<_> = named.iter().filter(|key| !content.logs.contains(**key)).collect();
        expect(foreign.is_empty(), || format!("the manifest names {foreign:?}, which are not in {rollup}"))
    }

    /// I6: a manifest goes only when it can never commit, or when all its sources are gone.
    fn check_deleted(&self, key: &str, present: &BTreeSet<String>) -> Result<(), String> {
        let Some((rollup, batch)) = manifest::parse_key("rollup/", key) else { return Ok(()) };
        let Some(deleted) = self.manifests.get(&(rollup.to_owned(), batch.to_string())) else { return Ok(()) };
        let content = self.contents.get(rollup);
        if content.is_some_and(|content| content.batch == Some(batch)) {
            let left: Vec<_> = deleted.merged.iter().filter(|source| present.contains(&*source.key)).collect();
            return expect(left.is_empty(), || format!("I6: the manifest of {left:?} was deleted"));
        }
        expect(!self.is_needed(rollup, batch, true), || {
            format!("I6: manifest {batch} was deleted, though it may still commit")
        })
    }
}
