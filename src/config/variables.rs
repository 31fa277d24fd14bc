//! The one list of settings: names, defaults, meanings. Help, checks and documentation are made from it.

use std::fmt;

/// One environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its full name.
    pub name: &'static str,
    /// What holds where it is unset or empty.
    pub default: Fallback,
    /// What it does, which values it takes.
    pub meaning: &'static str,
}

/// What holds where a variable is unset or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be set.
    Required,
    /// Nothing: the feature is off.
    Unset,
    /// This very value.
    Value(&'static str),
    /// What these words say.
    Described(&'static str),
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Unset => "unset",
            Self::Value(text) | Self::Described(text) => text,
        })
    }
}

const fn variable(name: &'static str, default: Fallback, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

use Fallback::{Described, Required, Unset, Value};

/// Every variable that is a setting, in the order they are explained.
pub const VARIABLES: &[Variable] = &[
    variable(
        "ROLLUP_SOURCE",
        Required,
        "Where the log objects are: s3://bucket/prefix; s3:// may be left out. The prefix is taken literally.",
    ),
    variable(
        "ROLLUP_DESTINATION",
        Required,
        "Where the rollups go: s3://bucket/prefix. A / is added to a prefix that does not end in one.",
    ),
    variable("ROLLUP_LEVEL", Value("day"), "How long the periods are: month, day, hour or 10min."),
    variable("ROLLUP_KEEP", Value("false"), "Keep the log objects. A second run still adds nothing twice."),
    variable(
        "ROLLUP_DRY_RUN",
        Value("false"),
        "Plan only: what would be read, written and deleted. Nothing is changed.",
    ),
    variable(
        "ROLLUP_OVERWRITE",
        Value("false"),
        "Rebuild rollups from the listed log objects alone. Needs ROLLUP_KEEP=true, and no other run beside it.",
    ),
    variable(
        "ROLLUP_KEY_TEMPLATE",
        Value("{group}/{period}"),
        "The rollups' names. Takes {group}, {period}, {year}, {month}, {day}, {hour} and {minute}; must hold {group} and \
         tell the periods of the level apart.",
    ),
    variable(
        "ROLLUP_SETTLE",
        Unset,
        "Roll up only periods that ended at least this long ago, like 6h or 7d. Unset: everything that is there.",
    ),
    variable(
        "ROLLUP_SINCE",
        Unset,
        "Leave log objects before this date or RFC 3339 time, like 2019-09-14 or 2019-09-14T17:00:00Z. UTC.",
    ),
    variable("ROLLUP_UNTIL", Unset, "Leave log objects at this date or time, or after it. UTC."),
    variable("ROLLUP_TIME_LIMIT", Unset, "Start no new batch after this long, like 50m; end well and report the rest."),
    variable(
        "ROLLUP_CONCURRENCY",
        Value("auto"),
        "Requests in flight: 1 to 1024, or auto, which finds the store's rate by itself.",
    ),
    variable("ROLLUP_BUFFER", Value("24MiB"), "Log data held in memory at most: 8MiB up to below 4GiB."),
    variable("ROLLUP_BATCH_OBJECTS", Value("10000"), "Log objects in one commit at most: 1 to 1000000."),
    variable(
        "ROLLUP_BATCH_BYTES",
        Value("1GiB"),
        "Bytes in one commit at most, but for a larger single log object: 5MiB to 40GiB.",
    ),
    variable("ROLLUP_SHARD_COUNT", Value("1"), "Processes that share the work by the names of the rollups: 1 to 1000."),
    variable(
        "ROLLUP_SHARD_INDEX",
        Described("JOB_COMPLETION_INDEX"),
        "Which of them this one is, from 0. Kubernetes sets JOB_COMPLETION_INDEX in an Indexed Job.",
    ),
    variable(
        "ROLLUP_CHECK",
        Value("false"),
        "Instead of a run: try every permission that it needs and what the store must be able to do, leave nothing behind.",
    ),
    variable(
        "ROLLUP_FORCE_PATH_STYLE",
        Value("false"),
        "Address buckets by path, as most S3-compatible stores want it.",
    ),
    variable(
        "ROLLUP_ASSUME_NO_OVERLAP",
        Value("false"),
        "Accept a store that does not enforce conditional writes. Two runs at once would then lose or double logs.",
    ),
    variable(
        "ROLLUP_LOG_FORMAT",
        Value("auto"),
        "bunyan, pretty, or auto: pretty on a terminal, else bunyan. RUST_LOG filters.",
    ),
    variable(
        "ROLLUP_TERMINATION_LOG",
        Described("/dev/termination-log where it exists"),
        "The file, by its absolute path, that the report is written to as one line of JSON.",
    ),
];

/// The variable of that name.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// The setting that a misspelt name was probably meant to be: at most a third of its letters differ, without regard to
/// case and underscores.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    let letters = |text: &str| -> String {
        let own = text.get("ROLLUP_".len()..).unwrap_or_default();
        own.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect()
    };
    let meant = letters(name);
    let distance = |variable: &Variable| strsim::osa_distance(&meant, &letters(variable.name));
    let nearest = VARIABLES.iter().min_by_key(|variable| distance(variable))?;
    (distance(nearest) <= meant.len() / 3).then_some(nearest.name)
}

/// Columns of a terminal.
const WIDTH: usize = 80;

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = "\
Joins S3 server access logs into one object per period, exactly once.

Usage: s3-log-rollup [--help | --version]

Everything is set in the environment. An empty variable is an unset one.

"
    .to_owned();
    for Variable { name, default, meaning } in VARIABLES {
        text.push_str(&wrapped(&format!("{name} ({default})"), "  ", "  "));
        text.push_str(&wrapped(meaning, "      ", "      "));
    }
    text.push('\n');
    text.push_str(&wrapped(
        "Region, credentials and endpoint are the AWS SDK's: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_S3, \
         AWS_ROLE_ARN and the others.",
        "",
        "",
    ));
    text.push('\n');
    text.push_str(&wrapped(
        "Exit codes: 0 done; 1 some rollups failed, run again; 2 wrong settings; 3 access denied or no such bucket; 143 \
         stopped by SIGTERM.",
        "",
        "",
    ));
    text.truncate(text.trim_end().len());
    text
}

/// Lines of at most 80 columns, broken at spaces; a longer word stays whole.
pub(super) fn wrapped(text: &str, first: &str, others: &str) -> String {
    let mut lines = first.to_owned();
    let (mut column, mut fresh) = (first.chars().count(), true);
    for word in text.split(' ') {
        let width = word.chars().count();
        if !fresh && column + 1 + width > WIDTH {
            lines.push('\n');
            lines.push_str(others);
            (column, fresh) = (others.chars().count(), true);
        }
        if !fresh {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
        fresh = false;
    }
    lines.push('\n');
    lines
}
