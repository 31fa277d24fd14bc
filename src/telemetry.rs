//! Logs, the progress bar and the report's three forms.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::HumanCount;
use tracing::{Level, Metadata, Subscriber};
use tracing_bunyan_formatter::{BunyanFormattingLayer, JsonStorageLayer};
use tracing_indicatif::IndicatifLayer;
use tracing_indicatif::span_ext::IndicatifSpanExt;
use tracing_indicatif::style::ProgressStyle;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::check::{Checked, Finding, Outcome};
use crate::config::{DEFAULT_TERMINATION_LOG, LogFormat};
use crate::pass::Ended;
use crate::report::Report;

/// What is logged without `RUST_LOG`. The SDK warns at length of every source of credentials and region that is not there;
/// where none is, that is an error of our own with the last cause in it.
const FILTER: &str = "info,aws_config=error";

/// Other crates log requests as they are signed, answers as they come and credentials as they are found, some of it
/// redacted and some not. Below this level nothing of theirs is shown, whatever `RUST_LOG` says.
const OTHERS: Level = Level::INFO;

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next();
    *metadata.level() <= OTHERS || krate == Some(env!("CARGO_CRATE_NAME"))
}

/// How this process speaks.
#[derive(Debug)]
pub struct Telemetry {
    pretty: bool,
    bar: Option<tracing::Span>,
    termination_log: Option<PathBuf>,
}

impl Telemetry {
    /// Starts logging: bunyan JSON on standard output, or readable lines on standard error, with a progress bar where
    /// that is a terminal.
    #[must_use]
    pub fn start(format: LogFormat, termination_log: Option<PathBuf>) -> Self {
        let terminal = io::stderr().is_terminal();
        let pretty = match format {
            LogFormat::Auto => terminal,
            LogFormat::Pretty => true,
            LogFormat::Bunyan => false,
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
        let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_harmless));
        let mut bar = None;
        if pretty && terminal {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bars = IndicatifLayer::new().with_progress_style(style);
            let lines = fmt::layer().with_target(false).with_writer(bars.get_stderr_writer());
            registry.with(lines).with(bars).init();
            let span = tracing::info_span!("pass");
            span.pb_start();
            bar = Some(span);
        } else if pretty {
            registry.with(fmt::layer().with_target(false).with_ansi(false).with_writer(io::stderr)).init();
        } else {
            bunyan(registry);
        }
        let default = Path::new(DEFAULT_TERMINATION_LOG);
        let termination_log = termination_log.or_else(|| default.exists().then(|| default.to_owned()));
        Self { pretty, bar, termination_log }
    }

    /// Shows how far the pass is, on a terminal.
    pub fn progress(&self, report: &Report) {
        if let Some(bar) = &self.bar {
            bar.pb_set_message(&format!(
                "{} found, {} read, {} rolled up, {} deleted",
                HumanCount(report.found.objects),
                HumanCount(report.requests.get("GetObject").copied().unwrap_or(0)),
                HumanCount(report.rolled_up.objects),
                HumanCount(report.deleted)
            ));
        }
    }

    /// Is there somebody to show progress to?
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        self.bar.is_some()
    }

    /// Says how the pass ended: in the log, on the terminal, in the termination message.
    pub fn end(mut self, ended: &Ended) {
        self.bar.take();
        let report = &ended.report;
        if let Some(error) = &ended.error {
            tracing::error!(exit_code = ended.exit_code(), "{error}");
        }
        if self.pretty {
            if ended.error.is_some() && report.found.objects == 0 {
                return self.terminate(&report.termination_message());
            }
            tracing::info!("{}", report.summary());
            // A closed standard output is no reason to fail.
            let _ = writeln!(io::stdout(), "{}", report.table());
        } else {
            let json = serde_json::to_value(report).unwrap_or_default();
            tracing::info!(
                exit_code = ended.exit_code(),
                found = report.found.objects,
                rolled_up = report.rolled_up.objects,
                deleted = report.deleted,
                failed = report.rollups.failed,
                seconds = report.seconds,
                report = %json,
                "{}",
                report.summary()
            );
        }
        self.terminate(&report.termination_message());
    }

    /// Says what `ROLLUP_CHECK` found: one log line for each finding, and the outcome.
    pub fn end_check(mut self, checked: &Checked) {
        self.bar.take();
        for Finding { what, outcome } in &checked.findings {
            match outcome {
                Outcome::Works(seen) if seen.is_empty() => tracing::info!("works: {what}"),
                Outcome::Works(seen) => tracing::info!("works: {what}: {seen}"),
                Outcome::Untried(why) => tracing::warn!("not tried: {what}: {why}"),
                Outcome::Fails(error) => tracing::error!("FAILS: {what}: {error}"),
            }
        }
        match checked.exit_code() {
            0 => tracing::info!(exit_code = 0, "{}", checked.summary()),
            exit_code => tracing::error!(exit_code, "{}", checked.summary()),
        }
        self.terminate(&checked.termination_message());
    }

    /// Writes the termination message.
    fn terminate(&self, message: &str) {
        if let Some(path) = &self.termination_log
            && let Err(error) = std::fs::write(path, message)
        {
            tracing::warn!(path = %path.display(), "the termination message cannot be written: {error}");
        }
    }
}

fn bunyan<S>(registry: S)
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
{
    // Where in the source a record was written says nothing to who reads it.
    let records = BunyanFormattingLayer::new(String::from("s3-log-rollup"), io::stdout)
        .skip_fields(["file", "line"].into_iter())
        .expect("neither is one of bunyan's own fields");
    registry.with(JsonStorageLayer).with(records).init();
}

/// Says an error of the settings, or one from before the pass, on standard error and in the termination message.
pub fn refuse(error: &dyn std::error::Error, termination_log: Option<&Path>) {
    let _ = writeln!(io::stderr(), "{error}");
    let path = termination_log.unwrap_or(Path::new(DEFAULT_TERMINATION_LOG));
    if path.exists() {
        let message = error.to_string();
        let _ = std::fs::write(path, &message[..message.floor_char_boundary(4096)]);
    }
}
