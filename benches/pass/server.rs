//! The testbed in a process of its own, filled as asked.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use testbed::{Generator, Settings, Spec, Testbed};

/// The bucket of the log objects.
pub(crate) const LOGS: &str = "bench-logs";
/// The bucket of the rollups.
pub(crate) const OUT: &str = "bench-rollups";

/// What the server holds.
#[derive(Clone)]
pub(crate) struct Fill {
    pub(crate) objects: usize,
    pub(crate) groups: usize,
    pub(crate) days: u32,
    pub(crate) latency_ms: u64,
    /// A rollup of 1 GiB and 1 MiB of logs for it.
    pub(crate) append: bool,
}

impl Default for Fill {
    fn default() -> Self {
        Self { objects: 0, groups: 3, days: 4, latency_ms: 0, append: false }
    }
}

/// A server process; it ends with this.
pub(crate) struct Serving {
    child: Child,
    pub(crate) endpoint: String,
}

impl Serving {
    pub(crate) fn start(fill: &Fill) -> Self {
        let Fill { objects, groups, days, latency_ms, append } = fill;
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--serve", &objects.to_string(), &groups.to_string(), &days.to_string()])
            .args([latency_ms.to_string(), append.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut endpoint = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut endpoint).expect("the server says where it listens");
        Self { child, endpoint: endpoint.trim().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(objects: usize, groups: usize, days: u32) -> Spec {
    Spec { prefix: String::from("logs/"), objects, groups, days, ..Spec::default() }
}

/// Serves until standard input is closed.
pub(crate) fn serve(arguments: &[String]) {
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let size = |at: usize| usize::try_from(number(at)).expect("a count");
    let settings = Settings {
        latency: Duration::from_millis(number(3)),
        check_signatures: false,
        keep_requests: false,
        ..Settings::default()
    };
    let bed = Testbed::new(settings);
    bed.create_bucket(LOGS);
    bed.create_bucket(OUT);
    let days = u32::try_from(number(2)).expect("a count");
    let mut generator = Generator::new(7);
    generator.fill(&bed, LOGS, &spec(size(0), size(1), days));
    if arguments[4] == "true" {
        let line = format!("{}\n", "x".repeat((1 << 20) - 1));
        bed.put_virtual(OUT, "rollup/2026-01-31", line.clone(), 1024);
        for second in 0..16 {
            bed.put(LOGS, &format!("logs/2026-01-31-00-00-{second:02}-A"), line[..65536].to_owned());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = bed.serve("127.0.0.1:0").await.expect("a free port");
        println!("{}", server.url());
        std::io::stdout().flush().expect("somebody listens");
        std::future::pending::<()>().await;
    });
}

/// Makes and fills the buckets of a server that is not the testbed.
pub(crate) fn fill_remote(endpoint: &str, objects: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = super::naive::client(Some(endpoint)).await;
        for bucket in [LOGS, OUT] {
            // It is there from the last time.
            let _ = client.create_bucket().bucket(bucket).send().await;
        }
        empty(&client, OUT).await;
        let bodies: Vec<_> = Generator::new(fastrand::u64(..)).objects(&spec(objects, 3, 4)).collect();
        stream::iter(bodies)
            .for_each_concurrent(64, |(key, body)| async {
                let put = client.put_object().bucket(LOGS).key(key).body(body.into());
                put.send().await.expect("the server takes a log object");
            })
            .await;
    });
}

async fn empty(client: &aws_sdk_s3::Client, bucket: &str) {
    let listed = client.list_objects_v2().bucket(bucket).send().await.expect("the bucket can be listed");
    for object in listed.contents() {
        let key = object.key().expect("an object has a key");
        client.delete_object().bucket(bucket).key(key).send().await.expect("an object can be deleted");
    }
}
