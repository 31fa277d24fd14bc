//! The one way in, shared by the in-process client and the TCP server: every request is classified, recorded,
//! delayed, limited, stopped and disturbed here, around the S3 service itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{Body, S3Result};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{distorted, error};
use crate::backend::{Backend, KeyErrors};
use crate::fault::{FaultKind, Faults, Moment, Stop, When};
use crate::limits::Meter;
use crate::request::{Operation, Query, Recorded, keys_to_delete, number, signed_region};
use crate::rope::Rope;
use crate::schedule::{Turn, Turns};
use crate::world::{World, lock};

/// The connection broke instead of an answer.
#[derive(Debug)]
pub(crate) struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was reset")
    }
}

impl std::error::Error for Reset {}

/// Called with every request that was applied.
pub(crate) type Hook = Arc<dyn Fn(&Recorded) + Send + Sync>;

/// What is kept of requests, and what is in store for those to come.
#[derive(Default)]
pub(crate) struct Control {
    last: u64,
    pub(crate) faults: Faults,
    meter: Meter,
    pub(crate) counts: BTreeMap<Operation, u64>,
    pub(crate) requests: BTreeMap<u64, Recorded>,
    kill: Option<(u64, Moment)>,
    pub(crate) hook: Option<Hook>,
    dice: Option<fastrand::Rng>,
}

/// What awaits one request.
struct Fate {
    fault: Option<(When, FaultKind)>,
    stops: Vec<Stop>,
    kill: Option<Moment>,
    /// Waited before it is applied, and again after.
    delay: Duration,
}

pub(crate) struct Front {
    pub(crate) world: Arc<World>,
    service: S3Service,
    pub(crate) control: Mutex<Control>,
    pub(crate) turns: Mutex<Turns>,
    /// How many clients in process there were.
    pub(crate) clients: AtomicU64,
    killed: watch::Sender<bool>,
}

/// Any access key, with this secret.
struct AnyKey(String);

#[async_trait::async_trait]
impl S3Auth for AnyKey {
    async fn get_secret_key(&self, _access_key: &str) -> S3Result<SecretKey> {
        Ok(self.0.as_str().into())
    }
}

/// Bucket names are free: older ones, and those of other servers, follow other rules.
struct AnyName;

impl NameValidation for AnyName {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty()
    }
}

/// No wait at all takes no timer.
async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

impl Front {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let mut builder = S3ServiceBuilder::new(Backend { world: Arc::clone(&world) });
        if world.settings.check_signatures {
            builder.set_auth(AnyKey(world.settings.secret_key.clone()));
        }
        builder.set_validation(AnyName);
        let dice = world.settings.jitter.map(fastrand::Rng::with_seed);
        let control = Mutex::new(Control { dice, ..Control::default() });
        Self {
            world,
            service: builder.build(),
            control,
            turns: Mutex::default(),
            clients: AtomicU64::new(0),
            killed: watch::Sender::new(false),
        }
    }

    /// From the `count`-th request on, counted from now, nothing is answered any more.
    pub(crate) fn kill_at(&self, count: u64, moment: Moment) {
        let mut control = lock(&self.control);
        control.kill = Some((control.last + count.max(1), moment));
    }

    pub(crate) fn revive(&self) {
        lock(&self.control).kill = None;
        self.killed.send_replace(false);
    }

    pub(crate) async fn killed(&self) {
        let mut killed = self.killed.subscribe();
        killed.wait_for(|killed| *killed).await.map(drop).expect("the sender is a field of self");
    }

    /// Waits for the request's turn.
    async fn turn(&self, request: &Recorded, moment: Moment, late: bool) -> Turn {
        let turn = lock(&self.turns).take_place(request, moment, late);
        // Without a schedule, or when it ends, everything goes on.
        turn.await.unwrap_or(Turn::Go)
    }

    /// `client` is which of the clients in process it is, from 1; 0 over TCP.
    pub(crate) async fn serve(self: &Arc<Self>, request: Request<Body>, client: u64) -> Result<Response<Body>, Reset> {
        let (mut parts, mut body) = request.into_parts();
        let mut record = Recorded { client, ..Recorded::of(0, &parts) };
        if record.operation == Operation::DeleteObjects {
            let whole = body.try_collect::<VecDeque<_>>().await.map_err(|_| Reset)?;
            let whole = Rope::from(whole).bytes();
            record.keys = keys_to_delete(&String::from_utf8_lossy(&whole));
            body = whole.into();
        }
        let mut fate = self.arrive(&mut record);
        if fate.kill == Some(Moment::Before) {
            return self.die().await;
        }
        for stop in fate.stops.iter_mut().filter(|stop| stop.moment == Moment::Before) {
            stop.wait().await;
        }
        wait(fate.delay).await;
        let mut refusal = self.refusal(&parts, &record);
        match self.turn(&record, Moment::Before, false).await {
            Turn::Go => {}
            Turn::Cut => return Err(Reset),
            Turn::Later => {
                let front = Arc::clone(self);
                let late = record.clone();
                let due = async move { front.turn(&late, Moment::Before, true).await == Turn::Go };
                return self.apply_later(parts, body, record, due).await;
            }
            Turn::SlowDown => refusal = Some(error(503, "SlowDown", "Please reduce your request rate.")),
        }
        let (when, fault) = fate.fault.unzip();
        if let Some((code, applied)) = fault.as_ref().and_then(FaultKind::of_keys) {
            let when = when.expect("a fault has a condition");
            parts.extensions.insert(KeyErrors { when, code, applied });
        }

        let head = parts.method == Method::HEAD;
        let token = Query::of(&parts.uri).get("continuation-token");
        let refused = refusal.is_some();
        let mut response = match (refusal, &fault) {
            (Some(refusal), _) => refusal,
            (None, Some(FaultKind::ResetBefore)) => return Err(Reset),
            (None, Some(FaultKind::AppliedLater(delay))) => {
                let delay = *delay;
                let due = async move {
                    wait(delay).await;
                    true
                };
                return self.apply_later(parts, body, record, due).await;
            }
            (None, Some(FaultKind::HangBefore)) => return std::future::pending().await,
            (None, Some(FaultKind::Status(status, code))) => error(*status, code, "a fault of the testbed"),
            (None, Some(FaultKind::OkWithErrorBody(code))) => error(200, code, "a fault of the testbed"),
            (None, _) => self.apply(parts, body, &mut record).await?,
        };
        if fate.kill == Some(Moment::Applied) {
            return self.die().await;
        }
        for stop in fate.stops.iter_mut().filter(|stop| stop.moment == Moment::Applied) {
            stop.wait().await;
        }
        wait(fate.delay).await;
        if self.turn(&record, Moment::Applied, false).await != Turn::Go {
            return Err(Reset);
        }
        if *self.killed.borrow() {
            return self.die().await;
        }
        match fault.filter(|fault| !refused && fault.applies()) {
            Some(FaultKind::LostAnswer) => return Err(Reset),
            Some(FaultKind::HangAfter) => return std::future::pending().await,
            None => {}
            Some(fault) if fault.of_keys().is_some() => {}
            Some(fault) => response = distorted(response, &fault, token.as_deref()).await,
        }
        if head {
            *response.body_mut() = Body::empty();
        }
        let id = HeaderValue::from_str(&format!("{:016X}", record.seq)).expect("digits are a header value");
        response.headers_mut().insert("x-amz-request-id", id);
        self.leave(&record, &response);
        Ok(response)
    }

    /// Breaks the connection now and applies the request, if it comes to that, when its client no longer waits for it.
    async fn apply_later(
        self: &Arc<Self>,
        parts: Parts,
        body: Body,
        mut record: Recorded,
        due: impl Future<Output = bool> + Send + 'static,
    ) -> Result<Response<Body>, Reset> {
        // The rest of a body cannot come over a broken connection.
        let whole = body.try_collect::<VecDeque<_>>().await.map_err(|_| Reset)?;
        let front = Arc::clone(self);
        tokio::spawn(async move {
            if due.await {
                // Nobody is there to be told of an error.
                let _ = front.apply(parts, Rope::from(whole).bytes().into(), &mut record).await;
            }
        });
        Err(Reset)
    }

    async fn die(&self) -> Result<Response<Body>, Reset> {
        self.killed.send_replace(true);
        std::future::pending().await
    }

    /// Numbers and counts a request, and looks up what is in store for it.
    fn arrive(&self, record: &mut Recorded) -> Fate {
        let settings = &self.world.settings;
        let mut control = lock(&self.control);
        control.last += 1;
        record.seq = control.last;
        *control.counts.entry(record.operation).or_default() += 1;
        if settings.keep_requests {
            control.requests.insert(record.seq, record.clone());
        }
        let kill = control.kill.and_then(|(seq, moment)| match record.seq.cmp(&seq) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(moment),
            std::cmp::Ordering::Greater => Some(Moment::Before),
        });
        let share = control.dice.as_mut().map_or(1.0, |dice| 2.0 * dice.f64());
        Fate {
            fault: control.faults.meet(record),
            stops: control.faults.stops(record),
            kill,
            delay: settings.latency.mul_f64(share / 2.0),
        }
    }

    /// Why S3 would not even look at the object: limits, another region, another owner, a denial.
    fn refusal(&self, parts: &Parts, record: &Recorded) -> Option<Response<Body>> {
        let settings = &self.world.settings;
        if let Some(limits) = &settings.limits
            && !lock(&self.control).meter.admits(record, limits, Instant::now())
        {
            return Some(error(503, "SlowDown", "Please reduce your request rate."));
        }
        let bucket = record.bucket.as_deref()?;
        if let Some(region) = self.world.region_of(bucket)
            && signed_region(&parts.headers).unwrap_or(&settings.region) != region
        {
            let mut moved = error(301, "PermanentRedirect", "The bucket you are attempting to access is elsewhere.");
            let region = HeaderValue::from_str(&region).expect("a region is a header value");
            moved.headers_mut().insert("x-amz-bucket-region", region);
            return Some(moved);
        }
        for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            if parts.headers.get(name).is_some_and(|owner| owner.as_bytes() != settings.owner.as_bytes()) {
                return Some(error(403, "AccessDenied", "Access Denied"));
            }
        }
        if record.operation == Operation::DeleteObjects {
            // Denied per key, in the answer's body.
            let summed =
                |name: &str| name == "content-md5" || name.starts_with("x-amz-checksum-") || name == "x-amz-trailer";
            let sum = parts.headers.keys().any(|name| summed(name.as_str()));
            let missing = "Missing required header for this request: Content-MD5";
            return (!sum).then(|| error(400, "InvalidRequest", missing));
        }
        let denied = self.world.denies(record.operation, bucket, record.key.as_deref(), record.prefix.as_deref());
        denied.then(|| error(403, "AccessDenied", "Access Denied"))
    }

    /// Hands the request to the S3 service.
    async fn apply(&self, mut parts: Parts, body: Body, record: &mut Recorded) -> Result<Response<Body>, Reset> {
        if !self.world.settings.check_signatures {
            parts.headers.remove(AUTHORIZATION);
        }
        let response = self.service.call(Request::from_parts(parts, body)).await.map_err(|_| Reset)?;
        record.applied = response.status().is_success();
        record.status = Some(response.status().as_u16());
        if record.applied {
            let hook = {
                let mut control = lock(&self.control);
                if let Some(kept) = control.requests.get_mut(&record.seq) {
                    kept.applied = true;
                }
                control.hook.clone()
            };
            if let Some(hook) = hook {
                hook(record);
            }
        }
        Ok(response)
    }

    /// Completes the record with what was answered.
    fn leave(&self, record: &Recorded, response: &Response<Body>) {
        let length = number(response.headers(), CONTENT_LENGTH.as_str());
        let exact = || s3s::stream::ByteStream::remaining_length(response.body()).exact();
        if let Some(kept) = lock(&self.control).requests.get_mut(&record.seq) {
            kept.status = Some(response.status().as_u16());
            kept.bytes_out = length.or_else(|| exact().map(|length| length as u64)).unwrap_or_default();
        }
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("settings", &self.world.settings).finish_non_exhaustive()
    }
}
