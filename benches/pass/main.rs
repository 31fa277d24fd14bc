//! What a pass costs, beside its floors: every client and every server is a process of its own.
//!
//! ```text
//! cargo bench --bench pass -- [--quick] [--only ROW,…] [--runs N] [--json FILE] [--program FILE] [--endpoint URL]
//! ```
//!
//! Without arguments all rows run against the testbed's server, each three times (those of a million objects and more,
//! once), each run right after its floors, and the ratios are of such neighbours. All of it goes into a file as well, which
//! the last line names, or `--json`. `--list` names the rows. `--quick` runs what CI holds to wide bounds. `--program`
//! measures another binary of this program beside the one that was just built: the static one. `--endpoint` runs the first row against a real server instead, in two buckets that it makes
//! and empties, with the SDK's variables for region and credentials. `--instructions` counts the instructions of a plan
//! and of a pass under valgrind and holds them to `benches/instructions.json`.
//!
//! The floors are a loop of GETs as anyone would write it with the SDK, 256 in flight on its multi-thread runtime
//! (`bare`); the same on one thread with the settings of this program's own client (`tuned`); the same requests signed by
//! the SDK's signer and sent by hyper (`signed`); and the tool that anyone would write first (`naive`): for each rollup
//! a GET of it, a GET of each source one after the other, a PUT of the whole and a DELETE of each. All but the last know
//! the keys, list nothing, write nothing and delete nothing.

mod clients;
mod floors;
mod instructions;
mod plan;
mod rows;
mod server;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

/// The allocator of the program; the floors get it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was asked for on the command line.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    quick: bool,
    only: Vec<String>,
    runs: Option<usize>,
    json: Option<PathBuf>,
    program: Option<PathBuf>,
    endpoint: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server::serve(&rest[0]),
        Some("--floor") => floors::run(&rest[0], &rest[1..]),
        Some("--plan") => plan::run(rest[0].parse().expect("a number of keys")),
        Some("--fill") => server::fill_remote(&rest[0]),
        Some("--list") => rows::list(),
        Some("--instructions") => return instructions::run(rest.first().is_some_and(|word| word == "update")),
        _ => match parse(&arguments) {
            Ok(asked) => return rows::run(&asked),
            Err(why) => {
                eprintln!("{why}: [--quick] [--only ROW,…] [--runs N] [--json FILE] [--program FILE] [--endpoint URL]");
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--quick" {
            asked.quick = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} has no value or is not understood"))?;
        match word.as_str() {
            "--only" => asked.only = value.split(',').map(str::to_owned).collect(),
            "--runs" => asked.runs = Some(value.parse().map_err(|_| format!("{value} is not a number"))?),
            "--json" => asked.json = Some(value.into()),
            "--program" => asked.program = Some(value.into()),
            "--endpoint" => asked.endpoint = Some(value.clone()),
            _ => return Err(format!("{word} is not understood")),
        }
    }
    match asked.only.iter().find(|name| !rows::NAMES.contains(&name.as_str())) {
        Some(unknown) => Err(format!("there is no row {unknown}, see --list")),
        None => Ok(asked),
    }
}
