//! The settings: every environment variable, its default, its check. The only reader of the environment.
//!
//! `AWS_*` variables are the SDK's business, `RUST_LOG` is that of telemetry. Whether a bucket exists is not known here:
//! nothing is requested.

mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;

pub use self::variables::{Fallback, VARIABLES, Variable};
use self::variables::{find, similar, wrapped};
use crate::key::Location;
use crate::layout::Layout;
use crate::period::Level;
use crate::plan::{PlanSettings, Shard};
use crate::shown::shown;

/// Settings that are possible, each by itself and all together.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "settings that are on or off, each by itself")]
pub struct Config {
    /// Where the log objects are.
    pub source: Location,
    /// Where the rollups go.
    pub destination: Location,
    /// How rollups are named, and how long their periods are.
    pub layout: Layout,
    /// What becomes of log objects and of rollups that exist.
    pub mode: Mode,
    /// Send no request that changes anything.
    pub dry_run: bool,
    /// Try every permission instead of a pass.
    pub check: bool,
    /// Leave periods that ended less than this ago.
    pub settle: Option<Duration>,
    /// Leave log objects before this.
    pub since: Option<DateTime<Utc>>,
    /// Leave log objects at this or after it; later than `since`.
    pub until: Option<DateTime<Utc>>,
    /// Start no batch after this long; more than zero.
    pub time_limit: Option<Duration>,
    /// Requests in flight.
    pub concurrency: Concurrency,
    /// Bytes of log data in memory at most: 8 MiB up to below 4 GiB.
    pub buffer: u64,
    /// Log objects of a batch at most: 1 to 1,000,000.
    pub batch_objects: usize,
    /// Bytes of a batch at most, but for a larger single source: 5 MiB to 40 GiB.
    pub batch_bytes: u64,
    /// Which rollups this process takes.
    pub shard: Shard,
    /// Address buckets by path.
    pub force_path_style: bool,
    /// Accept a store that does not enforce conditional writes.
    pub assume_no_overlap: bool,
    /// How logs are written.
    pub log_format: LogFormat,
    /// Where the report is written to; `None`: to [`DEFAULT_TERMINATION_LOG`] where that exists.
    pub termination_log: Option<PathBuf>,
}

/// What becomes of log objects that were rolled up, and of rollups that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Rollups grow, log objects are deleted.
    Move,
    /// Rollups grow, log objects stay.
    Keep,
    /// Rollups are rebuilt from the listed log objects, which stay.
    Overwrite,
}

impl Mode {
    /// Whether log objects stay where they are.
    #[must_use]
    pub fn keeps_sources(self) -> bool {
        self != Self::Move
    }
}

/// How many requests are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Concurrency {
    /// As many as the store takes.
    Auto,
    /// This many: 1 to 1024.
    Fixed(u16),
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// Pretty on a terminal, else bunyan.
    Auto,
    /// One JSON record a line.
    Bunyan,
    /// For people.
    Pretty,
}

/// Where Kubernetes looks for a container's last words
/// (<https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>).
pub const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";

/// Everything that is wrong with the settings, at least one thing: a sentence each, naming the variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// The sentences, the settings' own in the order of [`VARIABLES`].
    #[must_use]
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl std::error::Error for ConfigErrors {}

/// A headline and one paragraph for each problem, 80 columns wide.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {noun} with the settings; nothing was requested from S3:", self.0.len())?;
        self.0.iter().try_for_each(|sentence| write!(f, "\n{}", wrapped(sentence, "- ", "  ").trim_end()))
    }
}

impl Config {
    /// Reads the settings from the environment, `std::env::vars_os()` in production.
    ///
    /// An empty variable is an unset one. Every other variable that begins with `ROLLUP_`, in whatever case, must be a
    /// setting: a misspelt dry run must never delete a log. The value of one that is none is never shown, as it may be
    /// a secret.
    pub fn from_env(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigErrors> {
        let mut problems = Problems::default();
        let Environment { settings, job_completion_index, mut strangers } = sorted_out(variables, &mut problems);
        let config = problems.check(texts(settings), job_completion_index);
        strangers.sort();
        problems.0.append(&mut strangers);
        config.filter(|_| problems.0.is_empty()).ok_or(ConfigErrors(problems.0))
    }

    /// The text of `--help`: every setting with its default and its meaning, 80 columns wide.
    #[must_use]
    pub fn help() -> String {
        variables::help()
    }

    /// What the planner goes by.
    #[must_use]
    pub fn planning(&self) -> PlanSettings {
        PlanSettings {
            source_prefix: self.source.prefix().to_owned(),
            layout: self.layout.clone(),
            since: self.since,
            until: self.until,
            settle: self.settle,
            shard: self.shard,
            batch_objects: self.batch_objects,
            batch_bytes: self.batch_bytes,
        }
    }
}

/// Set by Kubernetes in the pods of an Indexed Job
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>).
const JOB_COMPLETION_INDEX: &str = "JOB_COMPLETION_INDEX";

/// What of the environment concerns this tool.
#[derive(Debug, Default)]
struct Environment {
    /// Settings by their full names.
    settings: BTreeMap<String, String>,
    job_completion_index: Option<String>,
    /// A sentence on each variable that looks like a setting and is none.
    strangers: Vec<String>,
}

fn sorted_out(variables: impl IntoIterator<Item = (OsString, OsString)>, problems: &mut Problems) -> Environment {
    let mut ours = Environment::default();
    for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
        let name = name.to_string_lossy().into_owned();
        if find(&name).is_some() {
            // What comes of a text that is not UTF-8 does not matter, as long as it does not count as unset.
            if value.to_str().is_none() {
                problems.add(format!("{name} is not UTF-8"));
            }
            ours.settings.insert(name, value.to_string_lossy().into_owned());
        } else if name == JOB_COMPLETION_INDEX {
            ours.job_completion_index = Some(value.to_string_lossy().into_owned());
        } else if is_ours(&name) {
            ours.strangers.push(stranger(&name));
        }
    }
    ours
}

fn texts(settings: BTreeMap<String, String>) -> Texts {
    envy::prefixed("ROLLUP_").from_iter(settings).expect("every field is an optional text, and no name comes twice")
}

fn is_ours(name: &str) -> bool {
    name.get(.."ROLLUP_".len()).is_some_and(|start| start.eq_ignore_ascii_case("ROLLUP_"))
}

fn stranger(name: &str) -> String {
    let name = shown(name).to_string();
    if let Some(setting) = similar(&name) {
        format!("{name} is not a setting; did you mean {setting}?")
    } else if name.starts_with("ROLLUP_SERVICE_") || name.starts_with("ROLLUP_PORT") {
        format!(
            "{name} is not a setting; Kubernetes sets it where a Service is called `rollup`: put `enableServiceLinks: \
             false` into the pod's spec"
        )
    } else {
        format!("{name} is not a setting; --help lists them all")
    }
}

/// The variables as they came; the names of the fields are theirs, in lower case, less `ROLLUP_`.
#[derive(Debug, Default, Deserialize)]
struct Texts {
    source: Option<String>,
    destination: Option<String>,
    level: Option<String>,
    keep: Option<String>,
    dry_run: Option<String>,
    overwrite: Option<String>,
    key_template: Option<String>,
    settle: Option<String>,
    since: Option<String>,
    until: Option<String>,
    time_limit: Option<String>,
    concurrency: Option<String>,
    buffer: Option<String>,
    batch_objects: Option<String>,
    batch_bytes: Option<String>,
    shard_count: Option<String>,
    shard_index: Option<String>,
    check: Option<String>,
    force_path_style: Option<String>,
    assume_no_overlap: Option<String>,
    log_format: Option<String>,
    termination_log: Option<String>,
}

/// Checks, and what they find. A value is `None` after its problem was noted, so that one problem is told once.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, sentence: String) {
        self.0.push(sentence);
    }

    /// Checks everything, in the order of [`VARIABLES`].
    fn check(&mut self, texts: Texts, job_completion_index: Option<String>) -> Option<Config> {
        let t = texts;
        let source = self.value("ROLLUP_SOURCE", t.source, |text| location(text, Location::of_source));
        let destination =
            self.value("ROLLUP_DESTINATION", t.destination, |text| location(text, Location::of_destination));
        let level = self.value("ROLLUP_LEVEL", t.level, level);
        let keep = self.value("ROLLUP_KEEP", t.keep, boolean);
        let dry_run = self.value("ROLLUP_DRY_RUN", t.dry_run, boolean);
        let overwrite = self.value("ROLLUP_OVERWRITE", t.overwrite, boolean);
        let mode = self.mode(keep, overwrite);
        let prefix = destination.as_ref().map_or("", Location::prefix);
        let layout = self.value("ROLLUP_KEY_TEMPLATE", t.key_template, |text| layout(text, level, prefix)).flatten();
        let settle = self.option("ROLLUP_SETTLE", t.settle, duration);
        let since = self.option("ROLLUP_SINCE", t.since, instant);
        let until = self.option("ROLLUP_UNTIL", t.until, instant);
        self.check_window(since.flatten(), until.flatten());
        let time_limit = self.option("ROLLUP_TIME_LIMIT", t.time_limit, positive_duration);
        let concurrency = self.value("ROLLUP_CONCURRENCY", t.concurrency, concurrency);
        let buffer = self.value("ROLLUP_BUFFER", t.buffer, |text| size(text, BUFFER, "8MiB up to below 4GiB"));
        let batch_objects = self.value("ROLLUP_BATCH_OBJECTS", t.batch_objects, |text| number(text, 1..=1_000_000));
        let batch_bytes =
            self.value("ROLLUP_BATCH_BYTES", t.batch_bytes, |text| size(text, BATCH_BYTES, "5MiB to 40GiB"));
        let count = self.value("ROLLUP_SHARD_COUNT", t.shard_count, |text| number(text, 1..=1000));
        let shard = self.shard(count, t.shard_index, job_completion_index);
        let check = self.value("ROLLUP_CHECK", t.check, boolean);
        let force_path_style = self.value("ROLLUP_FORCE_PATH_STYLE", t.force_path_style, boolean);
        let assume_no_overlap = self.value("ROLLUP_ASSUME_NO_OVERLAP", t.assume_no_overlap, boolean);
        let log_format = self.value("ROLLUP_LOG_FORMAT", t.log_format, log_format);
        let termination_log = self.option("ROLLUP_TERMINATION_LOG", t.termination_log, path);
        Some(Config {
            source: source?,
            destination: destination?,
            layout: layout?,
            mode: mode?,
            dry_run: dry_run?,
            check: check?,
            settle: settle?,
            since: since?,
            until: until?,
            time_limit: time_limit?,
            concurrency: concurrency?,
            buffer: buffer?,
            batch_objects: batch_objects?,
            batch_bytes: batch_bytes?,
            shard: shard?,
            force_path_style: force_path_style?,
            assume_no_overlap: assume_no_overlap?,
            log_format: log_format?,
            termination_log: termination_log?,
        })
    }

    /// A setting that has a value in any case: its own, or its default's.
    fn value<T>(
        &mut self,
        name: &'static str,
        text: Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let default = || match find(name).map(|variable| variable.default) {
            Some(Fallback::Value(default)) => Some(default.to_owned()),
            _ => None,
        };
        let Some(text) = text.or_else(default) else {
            self.add(format!("{name} is not set: it takes s3://bucket/prefix"));
            return None;
        };
        self.parsed(name, &text, parse)
    }

    /// A setting that may be off: `Some(None)` then.
    #[expect(clippy::option_option, reason = "the outer one says whether the text was right, as everywhere here")]
    fn option<T>(
        &mut self,
        name: &'static str,
        text: Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match text {
            Some(text) => self.parsed(name, &text, parse).map(Some),
            None => Some(None),
        }
    }

    /// `parse` says in a clause what the setting takes, or what is wrong with the text.
    fn parsed<T>(&mut self, name: &str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        parse(text).map_err(|clause| self.add(shown(&format!("{name} is `{text}`: {clause}")).to_string())).ok()
    }

    fn mode(&mut self, keep: Option<bool>, overwrite: Option<bool>) -> Option<Mode> {
        match (keep?, overwrite?) {
            (false, false) => Some(Mode::Move),
            (true, false) => Some(Mode::Keep),
            (true, true) => Some(Mode::Overwrite),
            (false, true) => {
                self.add(
                    "ROLLUP_OVERWRITE needs ROLLUP_KEEP=true: a pass that is stopped between two deletes would later \
                     rebuild the rollup from what is left, and lose logs"
                        .to_owned(),
                );
                None
            }
        }
    }

    fn check_window(&mut self, since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) {
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            let [since, until] = [since, until].map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            self.add(format!(
                "ROLLUP_SINCE ({since}) is not before ROLLUP_UNTIL ({until}): no log object lies in between"
            ));
        }
    }

    fn shard(
        &mut self,
        count: Option<u32>,
        index: Option<String>,
        job_completion_index: Option<String>,
    ) -> Option<Shard> {
        let name = if index.is_some() { "ROLLUP_SHARD_INDEX" } else { JOB_COMPLETION_INDEX };
        let count = count?;
        // A Job may be indexed for a reason of its own: without shards, its index says nothing.
        let Some(text) = index.or(job_completion_index.filter(|_| count > 1)) else {
            if count > 1 {
                self.add(format!("ROLLUP_SHARD_COUNT is `{count}`: it needs ROLLUP_SHARD_INDEX, or an Indexed Job"));
            }
            return Shard::new(count, 0);
        };
        let range = format!("it takes a number from 0 to {}, below ROLLUP_SHARD_COUNT", count - 1);
        self.parsed(name, &text, |text| {
            let index = text.trim().parse().ok();
            index.and_then(|index| Shard::new(count, index)).ok_or(range.clone())
        })
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// At least one part of an upload with room to read on; below 4 GiB, so that bytes can be counted as 32-bit permits.
const BUFFER: RangeInclusive<u64> = 8 * MIB..=4 * GIB - 1;
/// From the smallest part of an upload up to 8,192 of them: of its 10,000 parts, the rest copies the old rollup.
const BATCH_BYTES: RangeInclusive<u64> = 5 * MIB..=40 * GIB;

fn location<E: fmt::Display>(text: &str, parse: fn(&str) -> Result<Location, E>) -> Result<Location, String> {
    if text.trim() != text {
        return Err("it begins or ends with white space".to_owned());
    }
    parse(text).map_err(|error| format!("{error}; it takes s3://bucket/prefix"))
}

fn level(text: &str) -> Result<Level, String> {
    Level::from_str(text.trim()).map_err(|_| "it takes month, day, hour or 10min".to_owned())
}

/// Without a level, nothing can be said about a template.
fn layout(text: &str, level: Option<Level>, destination_prefix: &str) -> Result<Option<Layout>, String> {
    if text.trim() != text {
        return Err("it begins or ends with white space".to_owned());
    }
    let layout = level.map(|level| Layout::new(text, level, destination_prefix)).transpose();
    layout.map_err(|error| format!("it {error}"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("it takes true, yes, on or 1; or false, no, off or 0".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| "it takes a time span like 90m, 6h or 7d".to_owned())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .and_then(|span| if span.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(span) })
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    let date =
        |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN).and_utc());
    DateTime::parse_from_rfc3339(text)
        .map(|at| at.to_utc())
        .or_else(|_| date(text))
        .map_err(|_| "it takes a date like 2019-09-14 or a time like 2019-09-14T17:00:00Z".to_owned())
}

fn concurrency(text: &str) -> Result<Concurrency, String> {
    match text.trim() {
        "auto" => Ok(Concurrency::Auto),
        text => number(text, 1..=1024)
            .map(Concurrency::Fixed)
            .map_err(|_| "it takes auto, or a number from 1 to 1024".to_owned()),
    }
}

fn size(text: &str, range: RangeInclusive<u64>, bounds: &str) -> Result<u64, String> {
    let bytes = parse_size::parse_size(text.trim()).ok().filter(|bytes| range.contains(bytes));
    bytes.ok_or_else(|| format!("it takes a size from {bounds}, like 32MiB"))
}

fn number<N: FromStr + PartialOrd + fmt::Display>(text: &str, range: RangeInclusive<N>) -> Result<N, String> {
    let number = text.trim().parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("it takes a number from {} to {}", range.start(), range.end()))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.trim() {
        "auto" => Ok(LogFormat::Auto),
        "bunyan" => Ok(LogFormat::Bunyan),
        "pretty" => Ok(LogFormat::Pretty),
        _ => Err("it takes auto, bunyan or pretty".to_owned()),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute()).ok_or_else(|| "it takes an absolute path".to_owned())
}
