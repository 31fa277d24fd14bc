//! The pass beside the naive tool, each in a process of its own, and what it asks, sends and holds.
//!
//! `cargo bench --bench pass` runs everything against the testbed; with `--endpoint URL` (and the SDK's variables for
//! region and credentials) the first row runs against that server instead, in two buckets that it makes and empties.
//! The naive tool is the floor: for each rollup it GETs the rollup, GETs each source one after the other, PUTs the
//! whole and DELETEs each source, with the same SDK and the same release build.

mod naive;
mod server;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::Value;
use wait4::Wait4;

use server::{Fill, LOGS, OUT, Serving};

/// Objects of a row against a server that is not the testbed.
const REMOTE: usize = 20_000;

/// One client process, measured from outside.
struct Measured {
    seconds: f64,
    cpu: f64,
    /// Peak resident memory in MiB.
    rss: f64,
    report: Value,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server::serve(&arguments[1..]),
        Some("--naive") => naive::run(),
        Some("--fill") => server::fill_remote(&arguments[1], REMOTE),
        Some("--endpoint") if arguments.len() == 2 => against(&arguments[1]),
        None => against_the_testbed(),
        Some(other) => {
            eprintln!("{other} is not understood: [--endpoint URL]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn against(endpoint: &str) {
    println!("{REMOTE} objects in 3 groups and 4 days, {endpoint}");
    fill(endpoint);
    let pass = pass(endpoint, &[]);
    fill(endpoint);
    let naive = naive(endpoint);
    compare("loopback server", REMOTE, &pass, REMOTE, &naive);
}

/// In a process of its own: Linux counts the peak memory of who starts a process as that process's own.
fn fill(endpoint: &str) {
    let program = std::env::current_exe().expect("this program has a path");
    let filled = Command::new(program).args(["--fill", endpoint]).status().expect("this program starts");
    assert!(filled.success(), "the buckets could not be filled");
}

fn against_the_testbed() {
    println!("| row | objects | objects/s | naive, objects/s | ratio | requests/object | peak MiB | CPU µs/object |");
    println!("|---|---|---|---|---|---|---|---|");
    loopback();
    latency();
    memory();
    append();
}

/// No latency, 20,000 objects each.
fn loopback() {
    let fill = Fill { objects: 20_000, ..Fill::default() };
    let serving = Serving::start(&fill);
    let pass = pass(&serving.endpoint, &[]);
    let serving = Serving::start(&fill);
    let naive = naive(&serving.endpoint);
    compare("no latency", fill.objects, &pass, fill.objects, &naive);
}

/// 30 ms, where the naive tool gets 500 objects.
fn latency() {
    let fill = Fill { objects: 100_000, latency_ms: 30, ..Fill::default() };
    let serving = Serving::start(&fill);
    let pass = pass(&serving.endpoint, &[]);
    let few = Fill { objects: 500, ..fill.clone() };
    let serving = Serving::start(&few);
    let naive = naive(&serving.endpoint);
    compare("30 ms an answer", fill.objects, &pass, few.objects, &naive);
}

/// One rollup of 100,000 sources: the most that is held at once.
fn memory() {
    let fill = Fill { objects: 100_000, groups: 1, days: 1, ..Fill::default() };
    let serving = Serving::start(&fill);
    let pass = pass(&serving.endpoint, &[]);
    row("one rollup of 100,000", fill.objects, &pass, None);
}

/// 1 MiB behind 1 GiB.
fn append() {
    let fill = Fill { objects: 0, append: true, ..Fill::default() };
    let serving = Serving::start(&fill);
    let pass = pass(&serving.endpoint, &[]);
    let sent = pass.report["sent"].as_f64().unwrap_or_default() / f64::from(1 << 20);
    let copied = &pass.report["requests"]["UploadPartCopy"];
    println!("\nAppending 1 MiB to 1 GiB sent {sent:.2} MiB of bodies, with {copied} UploadPartCopy.");
}

fn compare(name: &str, objects: usize, pass: &Measured, naive_objects: usize, naive: &Measured) {
    row(name, objects, pass, Some(rate(naive_objects, naive)));
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵²")]
fn rate(objects: usize, measured: &Measured) -> f64 {
    objects as f64 / measured.seconds
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵²")]
fn row(name: &str, objects: usize, pass: &Measured, floor: Option<f64>) {
    assert_eq!(pass.report["rolled_up"]["objects"], objects, "{}", pass.report);
    let requests = pass.report["requests"].as_object().into_iter().flatten();
    let asked: u64 = requests.filter(|(name, _)| !name.starts_with("Delete")).filter_map(|(_, n)| n.as_u64()).sum();
    let rate = rate(objects, pass);
    let (floor, ratio) = floor.map_or_else(
        || (String::from("–"), String::from("–")),
        |floor| (format!("{floor:.0}"), format!("{:.1}×", rate / floor)),
    );
    println!(
        "| {name} | {objects} | {rate:.0} | {floor} | {ratio} | {:.4} | {:.1} | {:.0} |",
        asked as f64 / objects as f64,
        pass.rss,
        pass.cpu * 1e6 / objects as f64
    );
}

/// The release binary over everything under `logs/`.
fn pass(endpoint: &str, settings: &[(&str, &str)]) -> Measured {
    let report = std::env::temp_dir().join(format!("s3-log-rollup-bench-{}.json", std::process::id()));
    std::fs::write(&report, "").expect("the temporary folder can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_s3-log-rollup"));
    command.env("ROLLUP_TERMINATION_LOG", &report).envs(settings.iter().copied());
    let mut measured = measure(command, endpoint);
    measured.report = read(&report);
    measured
}

fn naive(endpoint: &str) -> Measured {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg("--naive");
    measure(command, endpoint)
}

fn read(report: &PathBuf) -> Value {
    let json = std::fs::read_to_string(report).expect("the report was written");
    serde_json::from_str(&json).expect("the report is JSON")
}

fn measure(mut command: Command, endpoint: &str) -> Measured {
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("ROLLUP_SOURCE", format!("s3://{LOGS}/logs/"))
        .env("ROLLUP_DESTINATION", format!("s3://{OUT}/rollup/"))
        .env("ROLLUP_FORCE_PATH_STYLE", "true")
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null());
    for (name, value) in
        [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", testbed::SECRET_KEY)]
    {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let start = Instant::now();
    let mut child = command.spawn().expect("the client starts");
    let used = child.wait4().expect("the client ends");
    assert!(used.status.success(), "{command:?} ended with {}", used.status);
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory far below 2⁵²")]
    let rss = used.rusage.maxrss as f64 / f64::from(1 << 20);
    let cpu = (used.rusage.utime + used.rusage.stime).as_secs_f64();
    Measured { seconds: start.elapsed().as_secs_f64(), cpu, rss, report: Value::Null }
}
