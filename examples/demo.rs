//! The main job on an S3 server in this process: `cargo run --example demo`.
//!
//! No network and no account. The server and the ledger are the testbed's; the pass is the program's own, over the AWS
//! SDK, with settings as a user writes them.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use indicatif::{BinaryBytes, HumanCount};
use s3_log_rollup::config::Config;
use s3_log_rollup::pass::{self, Ended, Stores, Surroundings};
use s3_log_rollup::report::Report;
use testbed::{Generator, Imbalance, Ledger, Moment, Operation, Settings, Spec, Testbed, When};
use tokio::sync::watch;

const BUCKET: &str = "acme-logs";
const LOGS: &str = "logs/";
const ROLLUPS: &str = "rollups/";
const GROUPS: usize = 4;
const DAYS: u32 = 5;

/// The pass is killed when it is about to delete the log objects of this group: the groups before it are done by then.
const KILLED_AT: &str = "logs/media/";

const NEXT: &str = "\
The same program on a server of its own, with 20,000 log objects:

   cargo run --bin testbed -- serve --port 9000 --buckets logs --fill 20000

and in a second terminal

   export AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_REGION=us-east-1
   export ROLLUP_FORCE_PATH_STYLE=true
   export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=secret
   export ROLLUP_SOURCE=s3://logs/raw/ ROLLUP_DESTINATION=s3://logs/rollups/
   ROLLUP_DRY_RUN=true cargo run
   cargo run

On a real bucket, first a dry run, which sends no request that changes anything:

   export AWS_REGION=us-east-1 AWS_PROFILE=default
   export ROLLUP_SOURCE=s3://BUCKET/PREFIX
   export ROLLUP_DESTINATION=s3://OTHER-BUCKET/PREFIX
   ROLLUP_DRY_RUN=true cargo run --release

then a pass that keeps the log objects, then the one that deletes them:

   ROLLUP_KEEP=true cargo run --release
   cargo run --release

   ROLLUP_LEVEL=month, hour or 10min   longer or shorter periods than a day
   ROLLUP_UNTIL=2026-01-01             only log objects before that
   ROLLUP_SETTLE=6h                    only periods that ended 6 hours ago

`cargo run -- --help` lists all settings, README.md says more.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let demo = Demo::new();
    let shown = demo.show().await;
    shown.map_or_else(
        |wrong| {
            println!("\n{wrong}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

struct Demo {
    bed: Testbed,
    ledger: Ledger,
    generator: Generator,
    steps: u32,
}

impl Demo {
    fn new() -> Self {
        // Nobody else is there to sign for, and nobody reads the list of requests.
        let bed = Testbed::new(Settings { check_signatures: false, keep_requests: false, ..Settings::default() });
        bed.create_bucket(BUCKET);
        Self { bed, ledger: Ledger::new(), generator: Generator::new(1), steps: 0 }
    }

    async fn show(mut self) -> Result<(), String> {
        println!("One pass after another over an S3 server in memory: no network, no account.");
        println!("ROLLUP_SOURCE=s3://{BUCKET}/{LOGS} ROLLUP_DESTINATION=s3://{BUCKET}/{ROLLUPS}");

        self.step("The bucket before");
        self.add(20_000);
        self.bucket();

        self.step("A dry run plans, and writes nothing");
        self.pass("ROLLUP_DRY_RUN", "true").await?;

        self.step("A pass");
        self.pass("ROLLUP_DRY_RUN", "false").await?;
        self.bucket();
        self.prove()?;

        self.step("Late logs for the same days, and a pass");
        self.add(500);
        self.pass("ROLLUP_DRY_RUN", "false").await?;
        self.prove()?;

        self.step("5,000 more, and a pass that is killed half-way");
        self.add(5_000);
        self.killed_pass().await?;
        self.show_the_wreck()?;

        self.step("The next pass takes up what the killed one left");
        self.pass("ROLLUP_DRY_RUN", "false").await?;
        self.bucket();
        self.prove()?;

        self.step("What to try next");
        println!("{NEXT}");
        Ok(())
    }

    fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    /// More log objects, of the same groups and days, into the bucket and the ledger.
    fn add(&mut self, objects: usize) {
        let spec = Spec { prefix: LOGS.to_owned(), groups: GROUPS, days: DAYS, objects, ..Spec::default() };
        for (key, body) in self.generator.objects(&spec) {
            self.ledger.put(BUCKET, &key, &body);
            self.bed.put(BUCKET, &key, body);
        }
    }

    /// What is in the bucket: the first keys, and how many there are.
    fn bucket(&self) {
        let keys = self.bed.keys(BUCKET);
        let size = |key: &String| self.bed.object(BUCKET, key).map_or(0, |object| object.bytes().len() as u64);
        let bytes: u64 = keys.iter().map(size).sum();
        println!("   s3://{BUCKET}: {} objects, {}", count(keys.len()), BinaryBytes(bytes));
        for key in keys.iter().take(3) {
            println!("   {:>12}  {key}", BinaryBytes(size(key)).to_string());
        }
        println!("   {:>12}  {} more", "…", count(keys.len().saturating_sub(3)));
    }

    async fn pass(&self, name: &str, value: &str) -> Result<(), String> {
        let started = Instant::now();
        let ended = self.run(&[(name, value)]).await;
        if let Some(error) = ended.error {
            return Err(error.to_string());
        }
        println!("   {}", fold(&ended.report.summary()));
        if let Some(estimate) = &ended.report.estimate {
            println!("   S3 would charge about ${:.2} for its requests.", estimate.dollars);
        } else {
            let requests: u64 = ended.report.requests.values().sum();
            println!("   {} requests, {:.1} s.", HumanCount(requests), started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// The real pass, as `main.rs` runs it.
    async fn run(&self, settings: &[(&str, &str)]) -> Ended {
        let config = config(settings);
        // Never told to stop: that is for signals.
        let (_run_on, stop) = watch::channel(false);
        let progress = Progress::new(&self.bed);
        let show = |report: &Report| progress.show(report);
        let surroundings = Surroundings { now: self.bed.now(), seed: fastrand::u64(..), stop, progress: Some(&show) };
        pass::run(&config, Stores::open(&config, &self.sdk()), surroundings).await
    }

    /// A pass that ends between two of its requests: whatever it was about to do does not happen.
    async fn killed_pass(&self) -> Result<(), String> {
        let deletes = When::operation(Operation::DeleteObjects).key_prefix(KILLED_AT);
        let gate = self.bed.pause(deletes, Moment::Before);
        tokio::select! {
            biased;
            () = gate.reached() => Ok(()),
            ended = self.run(&[]) => Err(format!("the pass ended before it was killed: {}", ended.report.summary())),
        }
    }

    fn show_the_wreck(&self) -> Result<(), String> {
        let manifests = self.bed.keys_under(BUCKET, &format!("{ROLLUPS}_manifests/")).len();
        let left = self.bed.keys_under(BUCKET, LOGS).len();
        let manifests = format!("{manifests} manifest{}", if manifests == 1 { "" } else { "s" });
        println!("   Killed. {} log objects and {manifests} are left behind.", count(left));
        match self.check() {
            Err(found) if found.lost + found.unknown == 0 => {
                println!(
                    "   Ledger: 0 lines lost; {} are in a rollup and in a log object that",
                    HumanCount(found.doubled)
                );
                println!("   was to be deleted next. The manifest says which.");
                Ok(())
            }
            Err(found) => Err(found.to_string()),
            Ok(_) => Err(String::from("the pass was killed where it left nothing to do")),
        }
    }

    /// Every line that was ever put, looked for in all objects of the bucket.
    fn check(&self) -> Result<u64, Imbalance> {
        self.ledger.check_testbed(&self.bed, (BUCKET, ROLLUPS), (BUCKET, LOGS)).map(|balance| balance.lines)
    }

    fn prove(&self) -> Result<(), String> {
        let lines = self.check().map_err(|found| found.to_string())?;
        println!("   Ledger: {} lines, each of them exactly once: 0 lost, 0 doubled.", HumanCount(lines));
        Ok(())
    }

    fn sdk(&self) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .endpoint_url("http://in.memory")
            .http_client(self.bed.http_client())
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .time_source(SharedTimeSource::new(SystemTimeSource::new()))
            .build()
    }
}

fn config(settings: &[(&str, &str)]) -> Config {
    let own = [
        ("ROLLUP_SOURCE", format!("s3://{BUCKET}/{LOGS}")),
        ("ROLLUP_DESTINATION", format!("s3://{BUCKET}/{ROLLUPS}")),
        ("ROLLUP_FORCE_PATH_STYLE", String::from("true")),
    ];
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let environment = own.into_iter().chain(settings).map(|(name, value)| (OsString::from(name), value.into()));
    Config::from_env(environment).expect("the settings are good")
}

/// How far a pass is: a line that is written anew on a terminal, elsewhere one line half-way.
struct Progress<'b> {
    bed: &'b Testbed,
    /// Reads before this pass.
    before: u64,
    log_objects: u64,
    half_told: Cell<bool>,
}

impl<'b> Progress<'b> {
    fn new(bed: &'b Testbed) -> Self {
        let log_objects = bed.keys_under(BUCKET, LOGS).len() as u64;
        Self { bed, before: bed.count(Operation::GetObject), log_objects, half_told: Cell::new(false) }
    }

    fn show(&self, report: &Report) {
        let read = (self.bed.count(Operation::GetObject) - self.before).min(self.log_objects);
        let line = format!(
            "{} of {} read, {} rolled up, {} deleted",
            HumanCount(read),
            HumanCount(self.log_objects),
            HumanCount(report.rolled_up.objects),
            HumanCount(report.deleted)
        );
        if io::stdout().is_terminal() {
            print!("\r\x1b[K   {line}");
            // A progress line that is not seen is no reason to fail.
            let _ = io::stdout().flush();
            return;
        }
        if read * 2 >= self.log_objects && !self.half_told.replace(true) {
            println!("   {line}");
        }
    }
}

/// The line goes with the pass, also with a killed one.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if io::stdout().is_terminal() {
            print!("\r\x1b[K");
        }
    }
}

fn count(number: usize) -> HumanCount {
    HumanCount(number as u64)
}

/// Sentences on lines of at most 77 columns, indented from the second one on.
fn fold(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > 77 {
            lines.push_str("\n   ");
            column = 0;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    lines
}
