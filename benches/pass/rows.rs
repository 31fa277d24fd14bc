//! The rows: what runs beside what, and what each figure is to reach.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::Asked;
use crate::clients::{self, Measured, built, count, figure, floor, pass};
use crate::server::{Fill, REMOTE};
use crate::table::{Figure, Reach, Spread, json};

/// Runs of a row, but for the long ones.
const RUNS: usize = 3;
/// Writes a second that S3 takes of one partition; each key of a DELETE is one.
const S3_WRITES: f64 = 3_500.0;
/// Seconds until a pass is at S3's rate.
const WARM: usize = 10;

/// Every row, in the order in which they run.
pub(crate) const NAMES: [&str; 18] = [
    "plan",
    "nothing",
    "20k",
    "100k",
    "8KiB",
    "tls",
    "30ms",
    "limits",
    "partitions",
    "shards-1",
    "shards-2",
    "shards-4",
    "shards-8",
    "append",
    "append-6GiB",
    "listing",
    "listing-10M",
    "million",
];
/// Those that CI holds to wide bounds, in two minutes.
const QUICK: [&str; 5] = ["plan", "nothing", "20k", "append", "limits"];

pub(crate) fn list() {
    for name in NAMES {
        println!("{name}");
    }
}

/// Runs what was asked for and prints it; fails where a figure is missed.
pub(crate) fn run(asked: &Asked) -> ExitCode {
    if let Some(endpoint) = &asked.endpoint {
        against(endpoint);
        return ExitCode::SUCCESS;
    }
    let mut bench = Bench::new(asked);
    println!(
        "| row | client | objects | s | objects/s | CPU s | CPU µs/object | peak MiB | requests/object | 503s |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    let chosen = NAMES.iter().filter(|name| match (asked.only.is_empty(), asked.quick) {
        (false, _) => asked.only.iter().any(|only| only == *name),
        (true, quick) => !quick || QUICK.contains(name),
    });
    for name in chosen {
        bench.row(name);
    }
    bench.growth();
    println!("\n| row | client | requests of one run | MiB sent | MiB received |\n|---|---|---|---|---|");
    bench.traffic.iter().for_each(|line| println!("{line}"));
    println!("\n| row | figure | median (least–most) | to reach |\n|---|---|---|---|");
    for figure in &bench.figures {
        println!("{}", figure.show());
    }
    let path = asked.json.clone().unwrap_or_else(|| concat!(env!("CARGO_TARGET_TMPDIR"), "/pass.json").into());
    let json = serde_json::to_string_pretty(&json(&bench.figures, &bench.measured)).expect("it is plain");
    std::fs::write(&path, json).unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
    println!("\nevery run: {}", path.display());
    if bench.figures.iter().all(|figure| figure.holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A real server: the pass, then the naive tool.
fn against(endpoint: &str) {
    println!("{REMOTE} objects in 3 groups and 4 days, {endpoint}");
    println!("| client | objects/s | CPU µs/object | peak MiB |\n|---|---|---|---|");
    let fill = Fill { objects: REMOTE, ..Fill::default() };
    let fill_remote = || {
        // In a process of its own: Linux counts the peak memory of who starts a process as that process's own.
        let program = std::env::current_exe().expect("this program has a path");
        let filled = Command::new(program).args(["--fill", endpoint]).status().expect("this program starts");
        assert!(filled.success(), "the buckets could not be filled");
    };
    fill_remote();
    let own = Measured { objects: REMOTE, ..clients::pass_against(&built(), endpoint, None, &[]) };
    fill_remote();
    let naive = Measured { objects: REMOTE, ..clients::floor_against("naive", &fill, endpoint) };
    for (name, run) in [("s3-log-rollup", &own), ("naive", &naive)] {
        println!("| {name} | {:.0} | {:.0} | {:.1} |", run.rate(), run.cost(), run.rss);
    }
    println!("\n{:.1} times the naive tool", own.rate() / naive.rate());
}

struct Bench<'a> {
    asked: &'a Asked,
    program: PathBuf,
    measured: Vec<(String, Measured)>,
    /// Lines of the table of requests and bytes.
    traffic: Vec<String>,
    figures: Vec<Figure>,
}

impl<'a> Bench<'a> {
    fn new(asked: &'a Asked) -> Self {
        Self { asked, program: built(), measured: Vec::new(), traffic: Vec::new(), figures: Vec::new() }
    }

    fn runs(&self) -> usize {
        self.asked.runs.unwrap_or(RUNS)
    }

    fn row(&mut self, name: &'static str) {
        let plain = Fill::default();
        let at_limits = Fill { objects: 100_000, latency_ms: 30, limits: Some(1.0), ..plain.clone() };
        match name {
            "plan" => self.plan(),
            "nothing" => self.nothing(),
            "20k" => self.beside_floors(name, &plain, &["bare", "tuned", "naive"]),
            "100k" => {
                self.beside_floors(name, &Fill { objects: 100_000, ..plain }, &["bare", "tuned", "signed"]);
            }
            "8KiB" => {
                let large = Fill { objects: 100_000, size: 8 << 10, ..plain };
                self.beside_floors(name, &large, &["bare", "tuned"]);
            }
            "tls" => self.tls(),
            "30ms" => self.beside_floors(name, &Fill { objects: 100_000, latency_ms: 30, ..plain }, &["naive"]),
            "limits" => drop(self.at_limits(name, &at_limits, 1)),
            "partitions" => drop(self.at_limits(name, &Fill { groups: 8, partitions: 8, ..at_limits }, 8)),
            "shards-1" => self.shards(name, 1),
            "shards-2" => self.shards(name, 2),
            "shards-4" => self.shards(name, 4),
            "shards-8" => self.shards(name, 8),
            "append" => self.append(name, 1),
            "append-6GiB" => self.append(name, 6),
            "listing" => self.listing(name, 1_000_000),
            "listing-10M" => self.listing(name, 10_000_000),
            "million" => self.million(name, &at_limits),
            other => unreachable!("{other} is not in NAMES"),
        }
    }

    /// Wide in CI, where another machine, other work beside it and another build profile are.
    fn reach(&self, reach: Reach, wide: f64) -> Reach {
        match reach {
            Reach::AtMost(most) if self.asked.quick => Reach::AtMost(most * wide),
            Reach::AtLeast(least) if self.asked.quick => Reach::AtLeast(least / wide),
            reach => reach,
        }
    }

    fn figure(&mut self, row: &str, what: &str, found: impl IntoIterator<Item = f64>, reach: Reach, digits: usize) {
        let found = Spread::of(found);
        self.figures.push(Figure::new(row, what, found, reach, digits));
    }

    /// Prints the median of some runs, and keeps all.
    fn keep(&mut self, row: &str, client: &str, runs: &[Measured]) {
        let of = |figure: &dyn Fn(&Measured) -> f64, digits| Spread::of(runs.iter().map(figure)).show(digits);
        let told = |holds: bool, found: String| if holds { found } else { String::from("–") };
        let (objects, own) = (runs[0].objects, runs[0].report.is_object());
        let (seconds, rate) = (of(&|run| run.seconds, 2), told(objects > 0, of(&Measured::rate, 0)));
        let (cpu, cost) = (of(&|run| run.cpu, 2), told(objects > 0, of(&Measured::cost, 1)));
        let requests = told(objects > 0, of(&per_object, 4));
        let throttled = told(own, of(&|run| figure(run.reported("throttled")), 0));
        let memory = of(&|run| run.rss, 1);
        println!(
            "| {row} | {client} | {objects} | {seconds} | {rate} | {cpu} | {cost} | {memory} | {requests} | {throttled} |"
        );
        let bytes = |name: &'static str| told(own, of(&|run| figure(run.reported(name)) / f64::from(1 << 20), 2));
        self.traffic.push(format!(
            "| {row} | {client} | {} | {} | {} |",
            kinds(&runs[runs.len() / 2].requests),
            bytes("sent"),
            bytes("received")
        ));
        self.measured.extend(runs.iter().map(|run| (row.to_owned(), run.clone())));
    }

    /// The program, its other build, and floors, one after the other, several times.
    fn beside_floors(&mut self, row: &str, fill: &Fill, floors: &[&str]) {
        let few = Fill { objects: if fill.latency_ms > 0 { 500 } else { 2_000 }, ..fill.clone() };
        let mut own = Vec::new();
        let mut other = Vec::new();
        let mut beside: Vec<Vec<Measured>> = vec![Vec::new(); floors.len()];
        for _ in 0..self.runs() {
            for (name, runs) in floors.iter().zip(&mut beside) {
                runs.push(floor(name, if *name == "naive" { &few } else { fill }));
            }
            own.push(rolled_up(pass(&self.program, fill, &[])));
            if let Some(program) = &self.asked.program {
                other.push(rolled_up(pass(program, fill, &[])));
            }
        }
        self.keep(row, "s3-log-rollup", &own);
        for (name, runs) in floors.iter().zip(&beside) {
            self.keep(row, name, runs);
            self.against_floor(row, name, &own, runs, fill.latency_ms > 0);
        }
        if !other.is_empty() {
            self.keep(row, "--program", &other);
            let ratios = own.iter().zip(&other).map(|(own, other)| other.cost() / own.cost());
            self.figure(row, "CPU of --program against the build beside it", ratios, Reach::AtMost(1.05), 2);
        }
        self.figure(row, "requests a source object", own.iter().map(per_object), Reach::AtMost(1.01), 4);
    }

    fn against_floor(&mut self, row: &str, name: &str, own: &[Measured], floor: &[Measured], slow: bool) {
        let pairs = || own.iter().zip(floor);
        let cost = pairs().map(|(own, floor)| own.cost() / floor.cost());
        let rate = pairs().map(|(own, floor)| own.rate() / floor.rate());
        match name {
            "bare" => {
                let reach = self.reach(Reach::AtMost(0.80), 2.0);
                self.figure(row, "CPU an object, deletes included, against bare GETs", cost, reach, 2);
            }
            "tuned" => {
                let reach = self.reach(Reach::AtMost(1.10), 2.0);
                self.figure(row, "CPU an object, deletes included, against tuned GETs", cost, reach, 2);
            }
            "signed" => {
                let what = "CPU an object, deletes included, against GETs without the SDK's client";
                self.figure(row, what, cost, Reach::Told, 2);
            }
            _ => {
                let reach = self.reach(Reach::AtLeast(if slow { 150.0 } else { 3.0 }), 2.0);
                self.figure(row, "objects a second against the naive tool", rate, reach, 1);
            }
        }
    }

    /// TLS on loopback, beside the same without.
    fn tls(&mut self) {
        let plain = Fill::default();
        let bundle = std::env::temp_dir().join(format!("s3-log-rollup-bench-{}.pem", std::process::id()));
        let tls = Fill { tls: Some(bundle.display().to_string()), ..plain.clone() };
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..self.runs() {
            without.push(rolled_up(pass(&self.program, &plain, &[])));
            with.push(rolled_up(pass(&self.program, &tls, &[])));
        }
        let _ = std::fs::remove_file(bundle);
        self.keep("tls", "without", &without);
        self.keep("tls", "with", &with);
        let ratios = without.iter().zip(&with).map(|(without, with)| with.cost() / without.cost());
        self.figure("tls", "CPU an object with TLS against without", ratios, Reach::Told, 2);
    }

    /// S3's own limits on one partition or several.
    fn at_limits(&mut self, row: &str, fill: &Fill, partitions: usize) -> Vec<Measured> {
        let runs = if fill.objects >= 1_000_000 || self.asked.quick { 1 } else { self.runs() };
        let own: Vec<_> = (0..runs).map(|_| rolled_up(pass(&self.program, fill, &[]))).collect();
        self.keep(row, "s3-log-rollup", &own);
        let throttled = own.iter().map(|run| 100.0 * figure(run.reported("throttled")) / figure(run.asked()));
        let reach = self.reach(Reach::AtMost(1.0), 3.0);
        self.figure(row, "503s, % of requests", throttled, reach, 2);
        let reach = self.reach(Reach::AtMost(64.0), 1.5);
        self.figure(row, "peak MiB", own.iter().map(|run| run.rss), reach, 1);
        let limit = S3_WRITES * count(partitions);
        let (warm, soon) = match partitions {
            1 => (self.reach(Reach::AtLeast(95.0), 2.0), self.reach(Reach::AtLeast(90.0), 2.0)),
            // More than one core can do.
            _ => (Reach::Told, Reach::Told),
        };
        self.figure(row, "% of S3's limit once warm", own.iter().map(|run| 100.0 * warm_rate(run) / limit), warm, 1);
        let best = |run: &Measured| run.deleted.iter().take(WARM).copied().max().unwrap_or_default();
        let reached = own.iter().map(|run| 100.0 * figure(best(run)) / limit);
        self.figure(row, "% of S3's limit in a second of the first ten", reached, soon, 1);
        own
    }

    /// A million log objects, and what each costs more than each of a tenth of them, just before and just after: a machine
    /// may be slower or faster five minutes later.
    fn million(&mut self, row: &str, fill: &Fill) {
        let before = rolled_up(pass(&self.program, fill, &[]));
        let own = self.at_limits(row, &Fill { objects: 1_000_000, ..fill.clone() }, 1);
        let beside = [before, rolled_up(pass(&self.program, fill, &[]))];
        self.keep(row, "before and after it", &beside);
        let cost = beside.iter().map(Measured::cost).sum::<f64>() / count(beside.len());
        let what = "CPU an object, 1,000,000 against 100,000";
        self.figure(row, what, own.iter().map(|run| run.cost() / cost), Reach::AtMost(1.05), 2);
    }

    fn append(&mut self, row: &str, gibibytes: usize) {
        let fill = Fill { objects: 16, append: Some(gibibytes), ..Fill::default() };
        let own: Vec<_> = (0..self.runs()).map(|_| rolled_up(pass(&self.program, &fill, &[]))).collect();
        self.keep(row, "s3-log-rollup", &own);
        let sent = own.iter().map(|run| figure(run.reported("sent")) / f64::from(1 << 20));
        self.figure(row, "MiB of bodies sent to append 1 MiB", sent, Reach::AtMost(6.0), 2);
    }

    fn nothing(&mut self) {
        let fill = Fill { objects: 0, ..Fill::default() };
        let own: Vec<_> = (0..self.runs()).map(|_| pass(&self.program, &fill, &[])).collect();
        self.keep("nothing", "s3-log-rollup", &own);
        let asked = own.iter().map(|run| figure(run.asked()));
        self.figure("nothing", "requests of a pass with nothing to do", asked, Reach::AtMost(3.0), 0);
        let milliseconds = own.iter().map(|run| run.seconds * 1e3);
        let reach = self.reach(Reach::AtMost(100.0), 5.0);
        self.figure("nothing", "ms of a pass with nothing to do", milliseconds, reach, 1);
    }

    /// A dry run.
    fn listing(&mut self, row: &str, objects: usize) {
        let fill = Fill { objects, size: 1, ..Fill::default() };
        let own = [pass(&self.program, &fill, &[("ROLLUP_DRY_RUN", "true")])];
        assert_eq!(own[0].report["found"]["objects"], objects, "{}", own[0].report);
        self.keep(row, "s3-log-rollup", &own);
        self.figure(row, "peak MiB of planning alone", [own[0].rss], Reach::AtMost(32.0), 1);
    }

    fn plan(&mut self) {
        let keys = if self.asked.quick { 2_000_000 } else { 20_000_000 };
        let rates: Vec<f64> = (0..self.runs()).map(|_| plan_rate(keys)).collect();
        let reach = self.reach(Reach::AtLeast(5e6), 3.0);
        self.figure("plan", "keys parsed and planned a second on one core", rates, reach, 0);
    }

    /// Processes that share the work, with all limits divided by 20.
    fn shards(&mut self, row: &str, shards: usize) {
        let fill =
            Fill { objects: 200_000, groups: 64, partitions: 8, latency_ms: 30, limits: Some(20.0), ..Fill::default() };
        let run = clients::sharded(&self.program, &fill, shards);
        let limit = S3_WRITES / 20.0 * 8.0;
        let what = "% of eight partitions' limits once warm";
        self.figure(row, what, [100.0 * warm_rate(&run) / limit], Reach::Told, 1);
        self.keep(row, "s3-log-rollup", &[run]);
    }

    /// What ten times as many objects make of the memory for a plan.
    fn growth(&mut self) {
        let memory = |row: &str| self.measured.iter().find(|(name, _)| name == row).map(|(_, run)| run.rss);
        if let (Some(few), Some(many)) = (memory("listing"), memory("listing-10M")) {
            let what = "peak memory of planning 10,000,000 against 1,000,000";
            self.figure("listing-10M", what, [many / few], Reach::AtMost(1.10), 2);
        }
    }
}

/// Everything was rolled up, or the figures are of something else.
fn rolled_up(run: Measured) -> Measured {
    for done in [&run.report["rolled_up"]["objects"], &run.report["deleted"]] {
        assert_eq!(*done, run.objects, "{}", run.report);
    }
    run
}

/// Requests of one run, the most frequent first.
fn kinds(requests: &BTreeMap<String, u64>) -> String {
    let mut kinds: Vec<_> = requests.iter().collect();
    kinds.sort_by_key(|(_, count)| Reverse(**count));
    kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

fn per_object(run: &Measured) -> f64 {
    figure(run.asked()) / count(run.objects)
}

/// Log objects deleted a second, from when a pass is warm until its last whole second but one.
fn warm_rate(run: &Measured) -> f64 {
    let last = run.deleted.len().saturating_sub(2);
    let warm = run.deleted.get(WARM.min(last.saturating_sub(1))..last).unwrap_or_default();
    if warm.is_empty() { 0.0 } else { figure(warm.iter().sum()) / count(warm.len()) }
}

/// In a process of its own, as all.
fn plan_rate(keys: usize) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let planned = Command::new(program).args(["--plan", &keys.to_string()]).output().expect("this program starts");
    let rate = String::from_utf8(planned.stdout).expect("a number");
    rate.trim().parse().expect("a number")
}
