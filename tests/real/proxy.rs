//! Stands between the program and the server: stops the world at a chosen request, and cuts, delays and tears
//! connections as a bad network does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What a request is for: what matters most comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    List,
    Read,
    Head,
    Probe,
    Upload,
    DeleteManifest,
    DeleteSources,
    Manifest,
    Commit,
}

impl Phase {
    /// Of the bytes that a request begins with; `None` for those of a body, where no carriage return is.
    fn of(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = str::from_utf8(&bytes[..end]).ok()?.strip_suffix(" HTTP/1.1")?;
        let (method, target) = line.split_once(' ')?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let manifest = path.contains("/_manifests/");
        Some(match method {
            "GET" if asks("list-type") => Self::List,
            "GET" => Self::Read,
            "HEAD" => Self::Head,
            _ if path.contains("/_manifests/_probe") => Self::Probe,
            "PUT" if manifest => Self::Manifest,
            "PUT" if !asks("partNumber") => Self::Commit,
            "POST" if asks("delete") => Self::DeleteSources,
            "POST" if asks("uploadId") => Self::Commit,
            "DELETE" if manifest => Self::DeleteManifest,
            "PUT" | "POST" | "DELETE" => Self::Upload,
            _ => return None,
        })
    }

    fn writes(self) -> bool {
        self > Self::Head
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Head => "head",
            Self::Probe => "probe",
            Self::Upload => "upload",
            Self::DeleteManifest => "delete of a manifest",
            Self::DeleteSources => "delete of sources",
            Self::Manifest => "manifest",
            Self::Commit => "commit",
        })
    }
}

/// Which requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    All,
    Writes,
    Of(Phase),
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("request"),
            Self::Writes => f.write_str("write"),
            Self::Of(phase) => phase.fmt(f),
        }
    }
}

/// A request, counted from the start of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) counted: Counted,
    /// From 1.
    pub(crate) number: u64,
    /// The server has applied it and its answer is lost; else it never gets there.
    pub(crate) applied: bool,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.applied { "after" } else { "before" };
        write!(f, "{when} {} {}", self.counted, self.number)
    }
}

/// What the proxy does beside handing everything on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// Where the world stops.
    pub(crate) moment: Option<Moment>,
    /// The seed of a network that cuts, delays and tears.
    pub(crate) weather: Option<u64>,
}

/// How many pieces of traffic met which fate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Harm {
    pub(crate) cut: u64,
    pub(crate) torn: u64,
    pub(crate) late: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicU64,
    requests: AtomicU64,
    writes: AtomicU64,
    reached: Notify,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    by_phase: BTreeMap<Phase, u64>,
    /// By connection: what was sent on it and is not answered.
    in_flight: HashMap<u64, Phase>,
    harm: Harm,
}

impl Seen {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics with it")
    }

    /// Takes note of a request, and tells whether the world stops there.
    fn stops_at(&self, connection: u64, phase: Phase, moment: Option<Moment>) -> bool {
        let number = {
            let mut book = self.book();
            book.in_flight.insert(connection, phase);
            let of_phase = book.by_phase.entry(phase).or_default();
            *of_phase += 1;
            *of_phase
        };
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let writes = self.writes.fetch_add(phase.writes().into(), Ordering::Relaxed) + u64::from(phase.writes());
        moment.is_some_and(|moment| match moment.counted {
            Counted::All => moment.number == requests,
            Counted::Writes => phase.writes() && moment.number == writes,
            Counted::Of(counted) => phase == counted && moment.number == number,
        })
    }
}

/// A proxy on loopback, gone when dropped, with every connection through it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Hands everything on to `endpoint` (`http://host:port`), but for what the plan says.
    pub(crate) async fn start(endpoint: &str, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::<Seen>::default();
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let serving = tokio::spawn(serve(listener, server, Arc::clone(&seen), plan));
        Self { address, seen, serving }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn harm(&self) -> Harm {
        self.seen.book().harm
    }

    /// Requests that were sent and are not answered.
    pub(crate) fn in_flight(&self) -> BTreeMap<Phase, u64> {
        let mut phases = BTreeMap::new();
        for phase in self.seen.book().in_flight.values() {
            *phases.entry(*phase).or_default() += 1;
        }
        phases
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

async fn serve(listener: TcpListener, server: String, seen: Arc<Seen>, plan: Plan) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("the listener listens");
        let number = seen.connections.fetch_add(1, Ordering::Relaxed);
        // A server that is down refuses, and so does the proxy then.
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a TCP stream");
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let connection = |direction| Connection {
            number,
            seen: Arc::clone(&seen),
            moment: plan.moment,
            weather: Weather::of(plan.weather, 2 * number + direction),
        };
        let doomed = Arc::new(AtomicBool::new(false));
        let requests = connection(0).requests(from_client, to_server, Arc::clone(&doomed));
        let answers = connection(1).answers(from_server, to_client, doomed);
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            // Either way both ends are closed.
            tokio::select! {
                () = requests => {}
                () = answers => {}
            }
            seen.book().in_flight.remove(&number);
        });
    }
}

/// The dice of one direction of one connection.
struct Weather(Option<fastrand::Rng>);

/// What becomes of a piece of traffic.
enum Fate {
    Passes,
    Late(Duration),
    Cut,
    /// So many bytes of it get through, then comes the cut.
    Torn(usize),
}

impl Weather {
    fn of(seed: Option<u64>, number: u64) -> Self {
        Self(seed.map(|seed| fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    /// A request and its answer are two to four pieces, so of a hundred requests one or two fail.
    fn fate(&mut self, length: usize) -> Fate {
        let Some(dice) = &mut self.0 else { return Fate::Passes };
        match dice.u32(..2_000) {
            0..6 => Fate::Cut,
            6..12 => Fate::Torn(dice.usize(..length)),
            12..50 => Fate::Late(Duration::from_millis(dice.u64(1..=50))),
            // Behind much that is sent after it.
            50 => Fate::Late(Duration::from_millis(dice.u64(500..=2_000))),
            _ => Fate::Passes,
        }
    }
}

/// One direction of a connection.
struct Connection {
    number: u64,
    seen: Arc<Seen>,
    moment: Option<Moment>,
    weather: Weather,
}

impl Connection {
    /// A client sends the next request of a connection after the answer to the last, so each begins with a read of its
    /// own.
    async fn requests(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, doomed: Arc<AtomicBool>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..length];
            if let Some(phase) = Phase::of(bytes)
                && self.seen.stops_at(self.number, phase, self.moment)
            {
                if self.moment.is_none_or(|moment| !moment.applied) {
                    self.seen.reached.notify_one();
                    return std::future::pending().await;
                }
                doomed.store(true, Ordering::Relaxed);
            }
            if self.hand_on(bytes, &mut to).await.is_err() {
                return;
            }
        }
    }

    async fn answers(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, doomed: Arc<AtomicBool>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            // An interim answer only asks for the body.
            if !buffer.starts_with(b"HTTP/1.1 100 ") {
                if doomed.load(Ordering::Relaxed) {
                    self.seen.reached.notify_one();
                    return std::future::pending().await;
                }
                self.seen.book().in_flight.remove(&self.number);
            }
            if self.hand_on(&buffer[..length], &mut to).await.is_err() {
                return;
            }
        }
    }

    /// An error when the connection is to end.
    async fn hand_on(&mut self, bytes: &[u8], to: &mut OwnedWriteHalf) -> Result<(), ()> {
        let through = match self.weather.fate(bytes.len()) {
            Fate::Passes => bytes.len(),
            Fate::Late(time) => {
                self.seen.book().harm.late += 1;
                tokio::time::sleep(time).await;
                bytes.len()
            }
            Fate::Cut => {
                self.seen.book().harm.cut += 1;
                return Err(());
            }
            Fate::Torn(through) => {
                self.seen.book().harm.torn += 1;
                through
            }
        };
        let written = to.write_all(&bytes[..through]).await;
        if written.is_err() || through < bytes.len() { Err(()) } else { Ok(()) }
    }
}

#[rstest]
#[case(b"GET /logs/?list-type=2&prefix=raw%2F HTTP/1.1\r\n", Some(Phase::List))]
#[case(b"GET /logs/raw/a?x-id=GetObject HTTP/1.1\r\n", Some(Phase::Read))]
#[case(b"HEAD /rollups/r/a HTTP/1.1\r\n", Some(Phase::Head))]
#[case(b"PUT /rollups/r/_manifests/_probe-1?x-id=PutObject HTTP/1.1\r\n", Some(Phase::Probe))]
#[case(b"POST /rollups/r/_manifests/_probe-1?uploadId=1 HTTP/1.1\r\n", Some(Phase::Probe))]
#[case(b"PUT /rollups/r/_manifests/a/1?x-id=PutObject HTTP/1.1\r\n", Some(Phase::Manifest))]
#[case(b"PUT /rollups/r/a?x-id=PutObject HTTP/1.1\r\n", Some(Phase::Commit))]
#[case(b"POST /rollups/r/a?uploadId=1 HTTP/1.1\r\n", Some(Phase::Commit))]
#[case(b"POST /rollups/r/a?uploads HTTP/1.1\r\n", Some(Phase::Upload))]
#[case(b"PUT /rollups/r/a?x-id=UploadPart&partNumber=1&uploadId=1 HTTP/1.1\r\n", Some(Phase::Upload))]
#[case(b"DELETE /rollups/r/a?x-id=AbortMultipartUpload&uploadId=1 HTTP/1.1\r\n", Some(Phase::Upload))]
#[case(b"POST /logs/?delete HTTP/1.1\r\n", Some(Phase::DeleteSources))]
#[case(b"DELETE /rollups/r/_manifests/a/1?x-id=DeleteObject HTTP/1.1\r\n", Some(Phase::DeleteManifest))]
#[case(b"PUT /web/index.html HTTP/1.1\" 200 -\n", None)]
fn a_request_is_known_by_its_first_line_and_a_line_of_a_log_is_none(
    #[case] bytes: &[u8],
    #[case] expected: Option<Phase>,
) {
    assert_eq!(Phase::of(bytes), expected);
}
