//! What a pass did: one struct, shown as a log line, as JSON in the termination message, and as a table on a terminal.

use std::collections::BTreeMap;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::store::Traffic;

/// Kubernetes reads at most this much of a termination message (its documentation, "Determine the Reason for Pod
/// Failure").
const TERMINATION_MESSAGE: usize = 4096;
/// Examples of keys and of failures kept, each.
const EXAMPLES: usize = 3;
const FAILURES: usize = 10;

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    /// One more object.
    pub fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    /// Several more.
    pub fn join(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// Sources that stay where they are, for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// How much.
    #[serde(flatten)]
    pub count: Count,
    /// Some keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// Rollups by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rollups {
    /// Written where there was none.
    pub created: u64,
    /// Commits to one that was there.
    pub appended: u64,
    /// Rebuilt, with OVERWRITE.
    pub replaced: u64,
    /// Given up in this pass.
    pub failed: u64,
}

/// A rollup that was given up, or a source that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The rollup's key.
    pub rollup: String,
    /// Why, and what to do.
    pub why: String,
}

/// What an unchanged pass would ask of S3, and its price.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Requests by kind.
    pub requests: BTreeMap<String, u64>,
    /// US dollars at the list prices of us-east-1: PUT, COPY, POST and LIST 5 a million, GET and HEAD 0.40, DELETE free.
    pub dollars: f64,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All that was found is done, but for what is named.
    #[default]
    Done,
    /// `ROLLUP_TIME_LIMIT` was reached.
    TimeLimit,
    /// SIGTERM.
    Stopped,
    /// An error that concerns every rollup.
    Error,
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// The error, where it ended with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Nothing was written.
    pub dry_run: bool,
    /// Objects listed under the source prefix.
    pub found: Count,
    /// Sources whose lines this pass put into rollups.
    pub rolled_up: Count,
    /// Sources that S3 confirmed as gone.
    pub deleted: u64,
    /// Sources that are in a rollup and stay, with KEEP.
    pub kept: u64,
    /// Listed and not reached before the pass was ended; the listing may not have ended either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// What stays, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<String, Left>,
    /// Rollups.
    pub rollups: Rollups,
    /// The first failures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failed>,
    /// With `DRY_RUN`: what a pass would ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Requests by S3's names, attempts that were repeated included.
    pub requests: BTreeMap<String, u64>,
    /// Answers that said `SlowDown`.
    pub throttled: u64,
    /// Bytes of bodies sent, and of objects received.
    pub sent: u64,
    /// Bytes of objects received.
    pub received: u64,
    /// Seconds of the pass.
    pub seconds: f64,
    /// Sources that could not be read or deleted, apart from archived ones.
    #[serde(skip)]
    pub troubled: u64,
}

impl Report {
    /// A source stays.
    pub fn leave(&mut self, reason: &str, key: &str, bytes: u64) {
        let left = self.left.entry(reason.to_owned()).or_default();
        left.count.add(bytes);
        if left.examples.len() < EXAMPLES {
            left.examples.push(printable(key));
        }
    }

    /// Several sources stay.
    pub fn leave_all(&mut self, reason: &str, count: Count, examples: &[String]) {
        let left = self.left.entry(reason.to_owned()).or_default();
        left.count.join(count);
        let room = EXAMPLES.saturating_sub(left.examples.len());
        left.examples.extend(examples.iter().take(room).map(|key| printable(key)));
    }

    /// A rollup was given up.
    pub fn fail(&mut self, rollup: &str, why: &str) {
        self.rollups.failed += 1;
        if self.failures.len() < FAILURES {
            self.failures.push(Failed { rollup: printable(rollup), why: why.to_owned() });
        }
    }

    /// Takes over what was asked of S3.
    pub fn count_traffic(&mut self, traffic: &Traffic) {
        let counts = &traffic.counts;
        self.requests = counts.requests().into_iter().map(|(op, count)| (op.to_string(), count)).collect();
        self.throttled = counts.throttled();
        self.sent = counts.sent();
        self.received = counts.received();
    }

    /// 0, 1 or 143; what ended with an error has that error's code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.ending {
            Ending::Stopped => 143,
            _ if self.rollups.failed > 0 || self.troubled > 0 => 1,
            _ => 0,
        }
    }

    /// One line of JSON, of at most 4 KiB: examples, then failures go where it would be longer.
    ///
    /// # Panics
    /// Never: a report has only string keys.
    #[must_use]
    pub fn termination_message(&self) -> String {
        let encode = |report: &Self| serde_json::to_string(report).expect("string keys only");
        let message = encode(self);
        if message.len() <= TERMINATION_MESSAGE {
            return message;
        }
        let mut short = self.clone();
        short.left.values_mut().for_each(|left| left.examples.clear());
        while encode(&short).len() > TERMINATION_MESSAGE && short.failures.pop().is_some() {}
        let cut = |text: &mut String| text.truncate(text.floor_char_boundary(1000));
        short.error.iter_mut().for_each(cut);
        encode(&short)
    }

    /// What a person wants to know, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { rolled_up, rollups, deleted, .. } = self;
        let planned = rolled_up.objects;
        let what = match (self.dry_run, planned) {
            (_, 0) if self.rollups.failed == 0 && self.error.is_none() && self.deleted == 0 => {
                format!("Nothing to do: {} objects found, none to roll up.", self.found.objects)
            }
            (true, _) => format!(
                "Dry run: {planned} log objects ({}) would become {} new rollups and be appended {} times to old ones; \
                 nothing was written.",
                bytes(rolled_up.bytes),
                rollups.created,
                rollups.appended
            ),
            (false, _) => format!(
                "{planned} log objects ({}) rolled up: {} rollups created, {} appended to; {deleted} sources deleted.",
                bytes(rolled_up.bytes),
                rollups.created,
                rollups.appended
            ),
        };
        let failed = match rollups.failed {
            0 => String::new(),
            failed => format!(" {failed} rollups failed: run again."),
        };
        let ending = match self.ending {
            Ending::Done | Ending::Error => String::new(),
            Ending::TimeLimit => format!(" Ended at ROLLUP_TIME_LIMIT, at least {} left.", self.backlog.unwrap_or(0)),
            Ending::Stopped => String::from(" Stopped by SIGTERM at a safe point: run again."),
        };
        format!("{what}{failed}{ending}")
    }

    /// The figures for a terminal, at most 80 columns wide.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_width(78).set_content_arrangement(ContentArrangement::Dynamic);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        let count = |count: &Count| format!("{} objects, {}", count.objects, bytes(count.bytes));
        row("found", count(&self.found));
        row(if self.dry_run { "to roll up" } else { "rolled up" }, count(&self.rolled_up));
        row(if self.dry_run { "to delete" } else { "deleted" }, format!("{} objects", self.deleted));
        if self.kept > 0 {
            row("kept", format!("{} objects", self.kept));
        }
        let Rollups { created, appended, replaced, failed } = self.rollups;
        row("rollups", format!("{created} created, {appended} appended, {replaced} replaced, {failed} failed"));
        for (reason, left) in &self.left {
            let examples = if left.examples.is_empty() { "" } else { ", such as " };
            row("left", format!("{} {reason}{examples}{}", left.count.objects, left.examples.join(", ")));
        }
        for Failed { rollup, why } in &self.failures {
            row("failed", format!("{rollup}: {why}"));
        }
        if let Some(estimate) = &self.estimate {
            row("would ask", requests(&estimate.requests));
            row("would cost", format!("${:.4} at us-east-1's list prices", estimate.dollars));
        }
        row("requests", requests(&self.requests));
        let traffic =
            format!("{} sent, {} received, {} SlowDown", bytes(self.sent), bytes(self.received), self.throttled);
        row("traffic", traffic);
        row("seconds", format!("{:.1}", self.seconds));
        if let Some(column) = table.column_mut(0) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

fn requests(requests: &BTreeMap<String, u64>) -> String {
    let all: u64 = requests.values().sum();
    let each: Vec<_> = requests.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if each.is_empty() { String::from("none") } else { format!("{all}: {}", each.join(", ")) }
}

/// A key as it may be shown: control characters escaped, never longer than S3 allows.
fn printable(key: &str) -> String {
    key.escape_debug().take(1100).collect()
}

fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
