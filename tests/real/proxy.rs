//! Stands between the program and the server, and stops the world at a chosen write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A request that changes something, counted from the start of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// From 1.
    pub(crate) write: u64,
    /// The server has applied it and its answer is lost; else it never gets there.
    pub(crate) applied: bool,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicU64,
    writes: AtomicU64,
    reached: Notify,
}

/// A proxy on loopback, gone when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Hands everything on to `endpoint` (`http://host:port`) until the moment, if there is one.
    pub(crate) async fn start(endpoint: &str, moment: Option<Moment>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::<Seen>::default();
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let serving = tokio::spawn(serve(listener, server, Arc::clone(&seen), moment));
        Self { address, seen, serving }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn writes(&self) -> u64 {
        self.seen.writes.load(Ordering::Relaxed)
    }

    /// Waits for the moment.
    pub(crate) async fn reached(&self) {
        self.seen.reached.notified().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, server: String, seen: Arc<Seen>, moment: Option<Moment>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("the listener listens");
        seen.connections.fetch_add(1, Ordering::Relaxed);
        let server = TcpStream::connect(&server).await.expect("the server listens");
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a TCP stream");
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let doomed = Arc::new(AtomicBool::new(false));
        connections.spawn(requests(from_client, to_server, Arc::clone(&seen), moment, Arc::clone(&doomed)));
        connections.spawn(answers(from_server, to_client, Arc::clone(&seen), doomed));
    }
}

/// A client sends the next request of a connection after the answer to the last, so each begins with a read of its own;
/// no body that this program sends begins with a method's name.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: Arc<Seen>,
    moment: Option<Moment>,
    doomed: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        if [&b"PUT "[..], b"POST ", b"DELETE "].iter().any(|method| bytes.starts_with(method)) {
            let write = seen.writes.fetch_add(1, Ordering::Relaxed) + 1;
            match moment.filter(|moment| moment.write == write) {
                Some(Moment { applied: false, .. }) => {
                    seen.reached.notify_one();
                    return std::future::pending().await;
                }
                Some(Moment { applied: true, .. }) => doomed.store(true, Ordering::Relaxed),
                None => {}
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seen: Arc<Seen>, doomed: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // An interim answer only asks for the body.
        if doomed.load(Ordering::Relaxed) && !buffer.starts_with(b"HTTP/1.1 100 ") {
            seen.reached.notify_one();
            return std::future::pending().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
