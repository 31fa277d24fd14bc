//! What a pass did: one struct, shown as a log line, as JSON in the termination message, and as a table on a terminal.

use std::collections::BTreeMap;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::shown::shown;
use crate::store::Traffic;

/// Kubernetes reads at most this much of a termination message (its documentation, "Determine the Reason for Pod
/// Failure").
pub(crate) const TERMINATION_MESSAGE: usize = 4096;
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

impl Rollups {
    /// What happened, or would, in the words for it; what did not is not told.
    fn told(&self, created: &str, appended: &str, replaced: &str) -> String {
        let each =
            [(self.created, created), (self.appended, appended), (self.replaced, replaced), (self.failed, "failed")];
        let told: Vec<_> = each.iter().filter(|(count, _)| *count > 0).collect();
        let Some((first, rest)) = told.split_first() else { return String::from("no rollup changed") };
        let rest = rest.iter().map(|(count, what)| format!(", {} {what}", HumanCount(*count)));
        format!("{} {}{}", objects(first.0, "rollup"), first.1, rest.collect::<String>())
    }
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
            left.examples.push(shown(key).to_string());
        }
    }

    /// Several sources stay.
    pub fn leave_all(&mut self, reason: &str, count: Count, examples: &[String]) {
        let left = self.left.entry(reason.to_owned()).or_default();
        left.count.join(count);
        let room = EXAMPLES.saturating_sub(left.examples.len());
        left.examples.extend(examples.iter().take(room).map(|key| shown(key).to_string()));
    }

    /// A rollup was given up.
    pub fn fail(&mut self, rollup: &str, why: &str) {
        self.rollups.failed += 1;
        if self.failures.len() < FAILURES {
            self.failures.push(Failed { rollup: shown(rollup).to_string(), why: why.to_owned() });
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
            (_, 0) if self.error.is_some() && self.deleted == 0 => {
                String::from("The pass ended with an error before anything was rolled up.")
            }
            (true, _) => format!(
                "Dry run: {} ({}) would go into {}; nothing was written.",
                objects(planned, "log object"),
                bytes(rolled_up.bytes),
                rollups.told("to create", "to append to", "to replace")
            ),
            (false, _) => format!(
                "{} ({}) rolled up: {}; {} deleted.",
                objects(planned, "log object"),
                bytes(rolled_up.bytes),
                rollups.told("created", "appended to", "replaced"),
                HumanCount(*deleted)
            ),
        };
        let failed = if rollups.failed > 0 { " Run again for what failed." } else { "" };
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
        let count = |count: &Count| format!("{}, {}", objects(count.objects, "object"), bytes(count.bytes));
        row("found", count(&self.found));
        row(if self.dry_run { "to roll up" } else { "rolled up" }, count(&self.rolled_up));
        row(if self.dry_run { "to delete" } else { "deleted" }, objects(self.deleted, "object"));
        if self.kept > 0 {
            row("kept", objects(self.kept, "object"));
        }
        let told = if self.dry_run {
            self.rollups.told("to create", "to append to", "to replace")
        } else {
            self.rollups.told("created", "appended to", "replaced")
        };
        row("rollups", told);
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
    let each: Vec<_> = requests.iter().map(|(name, count)| format!("{} {name}", HumanCount(*count))).collect();
    if each.is_empty() { String::from("none") } else { format!("{}: {}", HumanCount(all), each.join(", ")) }
}

/// `1 rollup`, `20,000 rollups`.
fn objects(count: u64, name: &str) -> String {
    format!("{} {name}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

fn bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            found: Count { objects: 20_001, bytes: 1 << 30 },
            rolled_up: Count { objects: 20_000, bytes: 1 << 30 },
            deleted: 20_000,
            rollups: Rollups { created: 1, appended: 12, ..Rollups::default() },
            requests: BTreeMap::from([(String::from("GetObject"), 20_000), (String::from("PutObject"), 26)]),
            ..Report::default()
        }
    }

    #[test]
    fn the_summary_is_one_sentence_about_what_happened_only() {
        let summary = "20,000 log objects (1.00 GiB) rolled up: 1 rollup created, 12 appended to; 20,000 deleted.";
        assert_eq!(report().summary(), summary);
        let dry = Report { dry_run: true, ..report() };
        let summary = "Dry run: 20,000 log objects (1.00 GiB) would go into 1 rollup to create, 12 to append to; nothing \
                       was written.";
        assert_eq!(dry.summary(), summary);
        let failed = Report { rollups: Rollups { failed: 1, ..Rollups::default() }, ..report() };
        assert!(
            failed.summary().ends_with(" rolled up: 1 rollup failed; 20,000 deleted. Run again for what failed."),
            "{}",
            failed.summary()
        );
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let mut report = report();
        report.leave("not a log key", &"long/".repeat(100), 1);
        report.fail(&"rollup/".repeat(20), "access denied: s3:PutObject");
        assert!(report.table().lines().all(|line| line.chars().count() <= 80), "{}", report.table());
    }
}
