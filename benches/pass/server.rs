//! The testbed in a process of its own, filled as asked, which says at its end what it saw.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde::{Deserialize, Serialize};
use testbed::{Generator, Limits, Operation, Settings, Spec, Testbed};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The bucket of the log objects.
pub(crate) const LOGS: &str = "bench-logs";
/// The bucket of the rollups.
pub(crate) const OUT: &str = "bench-rollups";
/// Objects of a row against a server that is not the testbed.
pub(crate) const REMOTE: usize = 20_000;

/// What the server holds, and how it behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fill {
    pub(crate) objects: usize,
    /// Bytes of each.
    pub(crate) size: usize,
    pub(crate) groups: usize,
    pub(crate) days: usize,
    pub(crate) latency_ms: u64,
    /// S3's limits, divided by this.
    pub(crate) limits: Option<f64>,
    /// The limits are of each of so many partitions, over which the groups are spread evenly.
    pub(crate) partitions: usize,
    /// A rollup of so many GiB, and 1 MiB of logs for it.
    pub(crate) append: Option<usize>,
    /// TLS 1.3 in front, with this file for the certificate of its authority.
    pub(crate) tls: Option<String>,
}

impl Default for Fill {
    fn default() -> Self {
        Self {
            objects: 20_000,
            size: 300,
            groups: 3,
            days: 4,
            latency_ms: 0,
            limits: None,
            partitions: 1,
            append: None,
            tls: None,
        }
    }
}

impl Fill {
    /// The keys of the log objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> + use<> {
        let Self { objects, groups, days, .. } = *self;
        let names = self.groups();
        (0..objects).map(move |number| {
            let (group, day) = (number % groups, number / groups % days);
            let second = number / groups / days % 86_400;
            let (month, day) = (day / 28 % 12 + 1, day % 28 + 1);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let name = &names[group];
            format!("logs/{name}/2026-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}-{number:016X}")
        })
    }

    /// Names of groups such that each partition has as many of them as the others.
    fn groups(&self) -> Vec<String> {
        let limits = Limits::s3().partitions(self.partitions);
        let of_partition = |partition: usize| {
            let names = (0..).map(|name: usize| format!("group-{name}"));
            names.filter(move |name| limits.partition_of(&format!("logs/{name}/x")) == partition)
        };
        let mut partitions: Vec<_> = (0..self.partitions).map(of_partition).collect();
        let groups = (0..self.groups).map(|group| partitions[group % self.partitions].next());
        groups.map(|name| name.expect("there is no last name")).collect()
    }

    fn settings(&self) -> Settings {
        Settings {
            latency: Duration::from_millis(self.latency_ms),
            limits: self.limits.map(|divisor| Limits::s3().divided_by(divisor).partitions(self.partitions)),
            check_signatures: false,
            keep_requests: false,
            ..Settings::default()
        }
    }

    fn put_into(&self, bed: &Testbed) {
        let body = bytes::Bytes::from(format!("{}\n", "x".repeat(self.size.max(1) - 1)));
        if let Some(gibibytes) = self.append {
            let line = format!("{}\n", "x".repeat((1 << 20) - 1));
            bed.put_virtual(OUT, "rollup/2026-01-31", line.clone(), gibibytes << 10);
            for second in 0..16 {
                bed.put(LOGS, &format!("logs/2026-01-31-00-00-{second:02}-A"), line[..65536].to_owned());
            }
            return;
        }
        for key in self.keys() {
            bed.put(LOGS, &key, body.clone());
        }
    }
}

/// What the server saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Log objects deleted in each second since the first request.
    pub(crate) deleted: Vec<u64>,
    /// Requests by kind.
    pub(crate) requests: BTreeMap<String, u64>,
}

/// A server process; it ends with this.
pub(crate) struct Serving {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) endpoint: String,
}

impl Serving {
    pub(crate) fn start(fill: &Fill) -> Self {
        let fill = serde_json::to_string(fill).expect("it is plain");
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--serve", &fill])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut endpoint = String::new();
        output.read_line(&mut endpoint).expect("the server says where it listens");
        Self { child, input, output, endpoint: endpoint.trim().to_owned() }
    }

    /// Ends it.
    pub(crate) fn seen(mut self) -> Seen {
        drop(self.input.take());
        let mut seen = String::new();
        self.output.read_to_string(&mut seen).expect("the server says what it saw");
        serde_json::from_str(&seen).expect("it is JSON")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input is closed.
pub(crate) fn serve(fill: &str) {
    let fill: Fill = serde_json::from_str(fill).expect("what another process of this program wrote");
    let bed = Testbed::new(fill.settings());
    bed.create_bucket(LOGS);
    bed.create_bucket(OUT);
    fill.put_into(&bed);
    let seen = watch(&bed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = bed.serve("127.0.0.1:0").await.expect("a free port");
        match &fill.tls {
            Some(bundle) => println!("https://{}", tls(server.addr, bundle).await),
            None => println!("{}", server.url()),
        }
        std::io::stdout().flush().expect("somebody listens");
        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = closed.await;
    });
    let mut seen = seen.lock().expect("nobody panicked").clone();
    seen.requests = bed.counts().into_iter().map(|(operation, count)| (operation.to_string(), count)).collect();
    println!("{}", serde_json::to_string(&seen).expect("it is plain"));
    // Freeing millions of objects takes its time.
    std::process::exit(0);
}

fn watch(bed: &Testbed) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (seen_by, first) = (Arc::clone(&seen), Mutex::new(None::<Instant>));
    bed.on_request(move |request| {
        let first = *first.lock().expect("nobody panicked").get_or_insert_with(Instant::now);
        if request.operation == Operation::DeleteObjects {
            let second = usize::try_from(first.elapsed().as_secs()).expect("a short time");
            let deleted = &mut seen_by.lock().expect("nobody panicked").deleted;
            let seconds = deleted.len().max(second + 1);
            deleted.resize(seconds, 0);
            deleted[second] += request.keys.len() as u64;
        }
    });
    seen
}

/// TLS in front of the server, in its process. The authority's certificate goes into the file.
async fn tls(server: SocketAddr, bundle: &str) -> SocketAddr {
    let mut authority = CertificateParams::new([]).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    std::fs::write(bundle, authority.self_signed(&key).expect("signed").pem()).expect("the file can be written");
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([String::from("127.0.0.1")]).expect("a name");
    let leaf = leaf.signed_by(&key, &issuer).expect("signed");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let (inside, server) = (acceptor.accept(stream).await, TcpStream::connect(server).await);
                if let (Ok(mut inside), Ok(mut server)) = (inside, server) {
                    let _ = server.set_nodelay(true);
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut server).await;
                }
            });
        }
    });
    address
}

/// Makes and fills the buckets of a server that is not the testbed.
pub(crate) fn fill_remote(endpoint: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = super::floors::client(Some(endpoint)).await;
        for bucket in [LOGS, OUT] {
            // It is there from the last time.
            let _ = client.create_bucket().bucket(bucket).send().await;
        }
        empty(&client, OUT).await;
        let spec = Spec { prefix: String::from("logs/"), objects: REMOTE, groups: 3, days: 4, ..Spec::default() };
        let bodies: Vec<_> = Generator::new(fastrand::u64(..)).objects(&spec).collect();
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
