//! Instructions an object, counted by valgrind: the same on a busy machine, so that CI can hold them to a small bound.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::clients::{built, count, figure, surround};
use crate::server::{Fill, Serving};

/// What was counted last, and is held: `--instructions update` writes it.
const BOUNDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");
/// How far a count may be from its bound: what another run, another compiler and other libraries make of it.
const TOLERANCE: f64 = 0.10;
/// Keys planned: the difference leaves the start-up out.
const PLANNED: (usize, usize) = (100_000, 300_000);
/// Log objects of a pass.
const ROLLED_UP: (usize, usize) = (500, 1_500);

/// Counts, and compares with what was committed or writes that.
pub(crate) fn run(update: bool) -> ExitCode {
    let program = std::env::current_exe().expect("this program has a path");
    let plan = |keys: usize| counted(Command::new("valgrind"), &program, &["--plan", &keys.to_string()]);
    let found = BTreeMap::from([
        ("plan, a key", (plan(PLANNED.1) - plan(PLANNED.0)) / count(PLANNED.1 - PLANNED.0)),
        ("pass, a log object", (pass(ROLLED_UP.1) - pass(ROLLED_UP.0)) / count(ROLLED_UP.1 - ROLLED_UP.0)),
    ]);
    let found: BTreeMap<&str, f64> = found.into_iter().map(|(what, count)| (what, count.round())).collect();
    if update {
        let json = serde_json::to_string_pretty(&found).expect("it is plain");
        std::fs::write(BOUNDS, json + "\n").expect("the bounds can be written");
    }
    let bounds = std::fs::read_to_string(BOUNDS).expect("the bounds are committed");
    let bounds: BTreeMap<String, f64> = serde_json::from_str(&bounds).expect("the bounds are JSON");
    let mut held = true;
    println!("| instructions | counted | committed | |\n|---|---|---|---|");
    for (what, found) in found {
        let bound = bounds[what];
        let off = found / bound - 1.0;
        let holds = off.abs() <= TOLERANCE;
        held &= holds;
        let verdict = if holds { "" } else { " **out of bounds**" };
        println!("| {what} | {found:.0} | {bound:.0} | {:+.1} %{verdict} |", 100.0 * off);
    }
    if held {
        return ExitCode::SUCCESS;
    }
    eprintln!("where that is meant: cargo bench --bench pass -- --instructions update, with the profile of .ci/run");
    ExitCode::FAILURE
}

/// Instructions of a pass over so many log objects.
fn pass(objects: usize) -> f64 {
    let serving = Serving::start(&Fill { objects, ..Fill::default() });
    let mut command = Command::new("valgrind");
    surround(&mut command, &serving.endpoint);
    command.env("ROLLUP_CONCURRENCY", "64");
    counted(command, &built(), &[])
}

fn counted(mut valgrind: Command, program: &Path, arguments: &[&str]) -> f64 {
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let run = valgrind.args(tool).arg(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let run = run.unwrap_or_else(|error| panic!("valgrind is needed and does not start: {error}"));
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{} under valgrind: {told}", program.display());
    let counted = told.lines().find_map(|line| line.split("Collected : ").nth(1));
    let counted = counted.unwrap_or_else(|| panic!("valgrind counted nothing: {told}"));
    figure(counted.trim().parse().expect("a number"))
}
