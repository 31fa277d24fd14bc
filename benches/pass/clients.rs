//! Client processes, measured from outside: wall clock, CPU, peak memory, and the program's own report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use wait4::Wait4;

use crate::server::{Fill, LOGS, OUT, Seen, Serving};

/// One client process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// The client, and that of `--program`: which.
    pub(crate) client: String,
    pub(crate) objects: usize,
    pub(crate) seconds: f64,
    /// User and system seconds of the client alone.
    pub(crate) cpu: f64,
    /// Peak resident memory in MiB.
    pub(crate) rss: f64,
    /// Requests by kind, as the server counted them, or the program where the server is a real one.
    pub(crate) requests: BTreeMap<String, u64>,
    /// The program's report; null for a floor.
    pub(crate) report: Value,
    /// Log objects deleted in each second, where the server is the testbed.
    pub(crate) deleted: Vec<u64>,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        count(self.objects) / self.seconds
    }

    /// CPU µs an object.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu * 1e6 / count(self.objects)
    }

    /// All requests.
    pub(crate) fn asked(&self) -> u64 {
        self.requests.values().sum()
    }

    /// A figure of the report.
    pub(crate) fn reported(&self, figure: &str) -> u64 {
        self.report[figure].as_u64().unwrap_or_default()
    }
}

/// A count as a figure: all are far below 2⁵².
#[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵²")]
pub(crate) fn count(objects: usize) -> f64 {
    objects as f64
}

/// The same of what a report counts.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵²")]
pub(crate) fn figure(reported: u64) -> f64 {
    reported as f64
}

/// The binary that `cargo bench` has built beside this one.
pub(crate) fn built() -> PathBuf {
    env!("CARGO_BIN_EXE_s3-log-rollup").into()
}

/// The program over everything that a fresh server holds.
pub(crate) fn pass(program: &Path, fill: &Fill, settings: &[(&str, &str)]) -> Measured {
    let serving = Serving::start(fill);
    let measured = pass_against(program, &serving.endpoint, fill.tls.as_deref(), settings);
    let Seen { deleted, requests } = serving.seen();
    Measured { objects: fill.objects, deleted, requests, ..measured }
}

/// Several processes at once that share the work: the slowest one's time, and the sums of the rest.
pub(crate) fn sharded(program: &Path, fill: &Fill, shards: usize) -> Measured {
    let serving = Serving::start(fill);
    let endpoint = serving.endpoint.as_str();
    let runs: Vec<Measured> = std::thread::scope(|scope| {
        let start = |shard: usize| {
            let (shards, shard) = (shards.to_string(), shard.to_string());
            let settings = [("ROLLUP_SHARD_COUNT", &*shards), ("ROLLUP_SHARD_INDEX", &*shard)];
            pass_against(program, endpoint, None, &settings)
        };
        let running: Vec<_> = (0..shards).map(|shard| scope.spawn(move || start(shard))).collect();
        running.into_iter().map(|run| run.join().expect("a shard")).collect()
    });
    let Seen { deleted, requests } = serving.seen();
    let rolled_up: u64 = runs.iter().filter_map(|run| run.report["rolled_up"]["objects"].as_u64()).sum();
    assert_eq!(rolled_up, fill.objects as u64, "objects of all shards");
    let sum = |figure: &str| -> u64 { runs.iter().map(|run| run.reported(figure)).sum() };
    Measured {
        client: program.display().to_string(),
        objects: fill.objects,
        seconds: runs.iter().map(|run| run.seconds).fold(0.0, f64::max),
        cpu: runs.iter().map(|run| run.cpu).sum(),
        rss: runs.iter().map(|run| run.rss).fold(0.0, f64::max),
        requests,
        report: serde_json::json!({
            "throttled": sum("throttled"), "sent": sum("sent"), "received": sum("received")
        }),
        deleted,
    }
}

fn blank() -> Measured {
    Measured {
        client: String::new(),
        objects: 0,
        seconds: 0.0,
        cpu: 0.0,
        rss: 0.0,
        requests: BTreeMap::new(),
        report: Value::Null,
        deleted: Vec::new(),
    }
}

/// The program against a server that is there.
pub(crate) fn pass_against(
    program: &Path,
    endpoint: &str,
    bundle: Option<&str>,
    settings: &[(&str, &str)],
) -> Measured {
    let name = format!("s3-log-rollup-bench-{}-{}.json", std::process::id(), fastrand::u64(..));
    let report = std::env::temp_dir().join(name);
    std::fs::write(&report, "").expect("the temporary folder can be written");
    let mut command = Command::new(program);
    command.env("ROLLUP_TERMINATION_LOG", &report).envs(settings.iter().copied());
    if let Some(bundle) = bundle {
        command.env("AWS_CA_BUNDLE", bundle);
    }
    let measured = measure(command, endpoint);
    let json = std::fs::read_to_string(&report).expect("the report was written");
    let _ = std::fs::remove_file(&report);
    let client = program.display().to_string();
    let report: Value = serde_json::from_str(&json).expect("the report is JSON");
    let requests = serde_json::from_value(report["requests"].clone()).expect("counts by kind");
    Measured { client, requests, report, ..measured }
}

/// A floor over everything that a fresh server holds.
pub(crate) fn floor(name: &str, fill: &Fill) -> Measured {
    let serving = Serving::start(fill);
    let measured = floor_against(name, fill, &serving.endpoint);
    let Seen { deleted, requests } = serving.seen();
    Measured { objects: fill.objects, deleted, requests, ..measured }
}

/// A floor against a server that is there.
pub(crate) fn floor_against(name: &str, fill: &Fill, endpoint: &str) -> Measured {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--floor", name]).arg(serde_json::to_string(fill).expect("it is plain"));
    Measured { client: name.to_owned(), ..measure(command, endpoint) }
}

/// The variables of a client of that server.
pub(crate) fn surround(command: &mut Command, endpoint: &str) {
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
}

fn measure(mut command: Command, endpoint: &str) -> Measured {
    surround(&mut command, endpoint);
    let start = Instant::now();
    let mut child = command.spawn().expect("the client starts");
    let used = child.wait4().expect("the client ends");
    let seconds = start.elapsed().as_secs_f64();
    assert!(used.status.success(), "{command:?} ended with {}", used.status);
    let rss = figure(used.rusage.maxrss) / f64::from(1 << 20);
    let cpu = (used.rusage.utime + used.rusage.stime).as_secs_f64();
    Measured { seconds, cpu, rss, ..blank() }
}
