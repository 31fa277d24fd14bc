//! Wiring: settings, telemetry, the pass, its exit code.

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;

use s3_log_rollup::check;
use s3_log_rollup::config::Config;
use s3_log_rollup::error::Error;
use s3_log_rollup::pass::{self, Stores, Surroundings};
use s3_log_rollup::store;
use s3_log_rollup::telemetry::{self, Telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(argument) = std::env::args_os().nth(1) {
        return answer(&argument.to_string_lossy());
    }
    let config = match Config::from_env(std::env::vars_os()) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors.into(), None),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&Error::Runtime(error), Some(&config)),
    };
    match runtime.block_on(run(&config)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => refuse(&error, Some(&config)),
    }
}

/// The process's exit code.
async fn run(config: &Config) -> Result<u8, Error> {
    let telemetry = Telemetry::start(config.log_format, config.termination_log.clone());
    let stop = pass::sigterm()?;
    let sdk = store::sdk_config().await?;
    let stores = Stores::open(config, &sdk);
    // The operating system's randomness; two runs that share a seed would share batch ids.
    let seed = RandomState::new().hash_one(std::process::id());
    if config.check {
        let checked = check::run(config, &stores, seed, stop).await;
        telemetry.end_check(&checked);
        return Ok(checked.exit_code());
    }
    let progress = |report: &_| telemetry.progress(report);
    let progress: Option<&dyn Fn(&_)> = telemetry.shows_progress().then_some(&progress);
    let surroundings = Surroundings { now: chrono::Utc::now(), seed, stop, progress };
    let ended = pass::run(config, stores, surroundings).await;
    telemetry.end(&ended);
    Ok(ended.exit_code())
}

fn answer(argument: &str) -> ExitCode {
    match argument {
        "--help" | "-h" => println!("{}", Config::help()),
        "--version" | "-V" => println!("s3-log-rollup {}", env!("CARGO_PKG_VERSION")),
        other => return refuse(&Error::Argument(other.to_owned()), None),
    }
    ExitCode::SUCCESS
}

fn refuse(error: &Error, config: Option<&Config>) -> ExitCode {
    telemetry::refuse(error, config.and_then(|config| config.termination_log.as_deref()));
    ExitCode::from(error.exit_code())
}
