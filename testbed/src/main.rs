//! The testbed as a server on the loopback interface, until Ctrl-C.

use std::process::ExitCode;
use std::time::Duration;

use testbed::{Generator, Limits, SECRET_KEY, Settings, Spec, Testbed};

const USAGE: &str = "\
Usage: testbed [--port N] [--latency-ms N] [--s3-limits] [--buckets A,B] [--fill N]

  --port N         the TCP port on 127.0.0.1 (default: any free one)
  --latency-ms N   how long every request takes (default: 0)
  --s3-limits      answer 503 SlowDown above 3,500 writes or 5,500 reads a second
  --buckets A,B    the buckets to begin with (default: logs)
  --fill N         generated log objects under raw/ of the first bucket
                   (default: 0)";

/// Where generated log objects stand: a few folders and days below it.
const RAW: &str = "raw/";

struct Options {
    port: u16,
    settings: Settings,
    buckets: Vec<String>,
    fill: usize,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            port: 0,
            settings: Settings { keep_requests: false, ..Settings::default() },
            buckets: vec!["logs".to_owned()],
            fill: 0,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--port" => options.port = number(&value()?)?,
                "--latency-ms" => options.settings.latency = Duration::from_millis(number(&value()?)?),
                "--s3-limits" => options.settings.limits = Some(Limits::s3()),
                "--buckets" => options.buckets = value()?.split(',').map(str::to_owned).collect(),
                "--fill" => options.fill = number(&value()?)?,
                _ => return Err(format!("unknown argument {flag}")),
            }
        }
        Ok(options)
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text} is not a number in range"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let bed = Testbed::new(options.settings);
    for bucket in &options.buckets {
        bed.create_bucket(bucket);
    }
    if let Some(bucket) = options.buckets.first().filter(|_| options.fill > 0) {
        let objects = options.fill;
        let spec = Spec { prefix: RAW.to_owned(), groups: 4, days: 5, objects, ..Spec::default() };
        Generator::new(1).fill(&bed, bucket, &spec);
    }
    let server = match bed.serve(("127.0.0.1", options.port)).await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("cannot listen on port {}: {error}", options.port);
            return ExitCode::FAILURE;
        }
    };
    println!("AWS_ENDPOINT_URL={} AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY={SECRET_KEY}", server.url());
    println!("buckets: {}; path-style addresses", options.buckets.join(", "));
    if options.fill > 0 {
        println!("log objects: {} at s3://{}/{RAW}", options.fill, options.buckets[0]);
    }
    match tokio::signal::ctrl_c().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
