//! The testbed as a program: the server in memory, and what it takes to try the rollup on any S3 server, as a pod or by
//! hand: buckets, generated logs, the ledger, and an endpoint that gives credentials for a token.

mod arguments;
mod bucket;
mod door;
mod endpoint;
mod logs;
mod policy;
mod role;
mod serve;

use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "\
Usage: testbed COMMAND …

  serve          an S3 server in memory on a port, until Ctrl-C
  make-buckets   NAME…: the buckets that are not there yet
  generate       S3_URL --logs SEED:OBJECTS[,…]: puts log objects
  check          --source S3_URL --destination S3_URL --logs SEED:OBJECTS[,…]
                 whether every line of them is there exactly once
  list           S3_URL: sizes and keys
  assume-role    credentials as an environment, narrowed by --policy JSON
  policies       the IAM policies in a text from standard input as one, or its
                 --actions, each with its statement's number, or it --without one
  sts            answers AssumeRoleWithWebIdentity and EKS Pod Identity

serve:
  --address A      where it listens (default: 127.0.0.1)
  --port N         the TCP port (default: any free one)
  --latency-ms N   how long every request takes (default: 0)
  --s3-limits      answer 503 SlowDown above 3,500 writes or 5,500 reads a second
  --buckets A,B    the buckets to begin with (default: logs)
  --fill N         generated log objects under raw/ of the first bucket
                   (default: 0)

generate, check: the same words give the same logs again
  --groups N       folders below the prefix (default: 3)
  --days N         days, from 2026-01-31 (default: 2)

check:
  --expect rolled-up    no log object and no manifest is left (the default)
           kept         the log objects are all there as well
           untouched    they are all there, and nothing is in the destination
           unfinished   while passes run: nothing lost, nothing in rollups twice

sts:
  --address A      where it listens (default: 0.0.0.0)
  --port N         the TCP port (default: 8080)
  --namespace N    whose service accounts' tokens are taken
  --expire-s N     seconds after which the credentials are said to expire
                   (default: 900)

All but serve and policies take AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY from the environment; the last two must be good for
AssumeRole on the same endpoint where credentials are given.";

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The words of the command line are wrong.
    Usage(String),
    /// It was tried.
    Failed(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    match run(&command, words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(wrong)) => {
            eprintln!("{wrong}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: &str, words: impl Iterator<Item = String>) -> Result<(), Failure> {
    let parse = |flags, switches| Arguments::parse(words, flags, switches).map_err(Failure::Usage);
    match command {
        "serve" => serve::serve(&parse(&["address", "port", "latency-ms", "buckets", "fill"], &["s3-limits"])?).await,
        "make-buckets" => bucket::make(&parse(&[], &[])?).await,
        "generate" => logs::generate(&parse(&["logs", "groups", "days"], &[])?).await,
        "check" => logs::check(&parse(&["source", "destination", "logs", "groups", "days", "expect"], &[])?).await,
        "list" => bucket::list(&parse(&[], &[])?).await,
        "assume-role" => role::print(&parse(&["policy"], &[])?).await,
        "policies" => policy::print(&parse(&["without"], &["actions"])?),
        "sts" => endpoint::serve(&parse(&["address", "port", "namespace", "expire-s"], &[])?).await,
        "" => Err(Failure::Usage(String::from("a command is missing"))),
        _ => Err(Failure::Usage(format!("{command} is no command"))),
    }
}

/// Until Ctrl-C or SIGTERM, which a container's first process gets no other answer to than its own.
async fn until_stopped() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| Failure::Failed(format!("signals cannot be waited for: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(failed),
        _ = terminate.recv() => Ok(()),
    }
}
