//! Faults and pauses on demand: which request they meet, how often, and what happens to it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::request::{Operation, Recorded};

/// Decides by the key.
type KeyTest = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Which requests a fault or a pause meets: the first one, unless [`times`](Self::times) or
/// [`always`](Self::always) says otherwise.
#[derive(Clone)]
#[must_use]
pub struct When {
    operation: Option<Operation>,
    bucket: Option<String>,
    prefix: Option<String>,
    key: Option<KeyTest>,
    skip: u64,
    times: u64,
}

impl When {
    /// Any request.
    pub fn any() -> Self {
        Self { operation: None, bucket: None, prefix: None, key: None, skip: 0, times: 1 }
    }

    /// Requests of one operation.
    pub fn operation(operation: Operation) -> Self {
        Self { operation: Some(operation), ..Self::any() }
    }

    /// Only requests to this bucket.
    pub fn bucket(self, bucket: impl Into<String>) -> Self {
        Self { bucket: Some(bucket.into()), ..self }
    }

    /// Only listings of exactly this prefix.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: Some(prefix.into()), ..self }
    }

    /// Only requests for this key; of `DeleteObjects`, those that name it.
    pub fn key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.key_where(move |other| other == key)
    }

    /// Only requests for a key that starts so.
    pub fn key_prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.key_where(move |key| key.starts_with(&prefix))
    }

    /// Only requests for a key that ends so.
    pub fn key_suffix(self, suffix: impl Into<String>) -> Self {
        let suffix = suffix.into();
        self.key_where(move |key| key.ends_with(&suffix))
    }

    /// Only requests for a key that passes the test.
    pub fn key_where(self, test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { key: Some(Arc::new(test)), ..self }
    }

    /// Lets the first `count` such requests pass.
    pub fn skip(self, count: u64) -> Self {
        Self { skip: count, ..self }
    }

    /// Meets `count` such requests.
    pub fn times(self, count: u64) -> Self {
        Self { times: count, ..self }
    }

    /// Meets every such request.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Whether the request is of this kind, however many there were before it.
    #[must_use]
    pub fn fits(&self, request: &Recorded) -> bool {
        self.operation.is_none_or(|operation| operation == request.operation)
            && self.bucket.as_ref().is_none_or(|bucket| Some(bucket) == request.bucket.as_ref())
            && self.prefix.as_ref().is_none_or(|prefix| Some(prefix) == request.prefix.as_ref())
            && self.key.as_ref().is_none_or(|test| request.all_keys().any(|key| test(key)))
    }

    /// Whether a key of `DeleteObjects` is one that the fault is about.
    pub(crate) fn fits_key(&self, key: &str) -> bool {
        self.key.as_ref().is_none_or(|test| test(key))
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("When");
        shown.field("operation", &self.operation).field("bucket", &self.bucket).field("prefix", &self.prefix);
        shown.field("key", &self.key.is_some()).field("skip", &self.skip).field("times", &self.times).finish()
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// Answered with an error, not applied: `(503, "SlowDown")`, `(409, "ConditionalRequestConflict")`, …
    Status(u16, &'static str),
    /// Applied, then answered with an error.
    StatusAfter(u16, &'static str),
    /// The connection breaks before the request is applied.
    ResetBefore,
    /// Applied, then the connection breaks instead of an answer.
    LostAnswer,
    /// The connection breaks at once, and the request is applied this much later, whatever its client does meanwhile.
    AppliedLater(Duration),
    /// The answer's body ends halfway in a broken connection; its headers promise all of it.
    TruncatedBody,
    /// Half of the answer's body, with headers that promise no more.
    ShortBody,
    /// The answer's body and its first half again, with headers that say so.
    LongBody,
    /// A bit of the answer's body is wrong; the checksum and the length are those of the right one.
    WrongChecksum,
    /// A bit of the answer's body is wrong, and no checksum is named.
    WrongBit,
    /// The answer names another `ETag` than the object's.
    WrongETag,
    /// Answered 200 with an `<Error>` of this code in the body, not applied.
    OkWithErrorBody(&'static str),
    /// Applied, then answered 200 with an `<Error>` of this code in the body.
    OkWithErrorBodyAfter(&'static str),
    /// Never answered, not applied.
    HangBefore,
    /// Applied, never answered.
    HangAfter,
    /// The answer's body comes at this many bytes a second.
    Slow(u64),
    /// The answer's body comes a byte at a time, each so much after the one before.
    Trickle(Duration),
    /// A listing whose next page begins where this one did: with the same token, if there was one.
    RepeatPage,
    /// A listing that says it is complete when it is not.
    EndEarly,
    /// `DeleteObjects` answers this code for every key that fits, and leaves those objects as they are.
    KeyError(&'static str),
    /// `DeleteObjects` answers this code for every key that fits, after it deleted them.
    KeyErrorAfter(&'static str),
    /// `DeleteObjects` leaves every object that fits as it is, and its answer does not name it.
    KeyUnnamed,
}

impl FaultKind {
    /// Of a fault of single keys: which code they are answered with, if they are, and whether they are deleted.
    pub(crate) fn of_keys(&self) -> Option<(Option<&'static str>, bool)> {
        match self {
            Self::KeyError(code) => Some((Some(code), false)),
            Self::KeyErrorAfter(code) => Some((Some(code), true)),
            Self::KeyUnnamed => Some((None, false)),
            _ => None,
        }
    }

    /// Whether the request is to be applied at all.
    pub(crate) fn applies(&self) -> bool {
        !matches!(self, Self::Status(..) | Self::ResetBefore | Self::OkWithErrorBody(_) | Self::HangBefore)
    }
}

/// Counts the requests that fit and says which of them are met.
#[derive(Debug)]
struct Trigger {
    when: When,
    seen: u64,
}

impl Trigger {
    fn meets(&mut self, request: &Recorded) -> bool {
        if !self.when.fits(request) {
            return false;
        }
        self.seen += 1;
        self.seen > self.when.skip && self.seen - self.when.skip <= self.when.times
    }
}

/// A fault that was set. It stays set when this is dropped.
#[derive(Clone, Debug)]
pub struct Fault {
    hits: Arc<AtomicU64>,
    cleared: Arc<watch::Sender<bool>>,
}

impl Fault {
    /// How many requests it met.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Ends the fault.
    pub fn clear(&self) {
        self.cleared.send_replace(true);
    }
}

/// At which moment of a request something stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before it is applied.
    Before,
    /// After it was applied, before its answer.
    Applied,
}

/// Requests wait at a gate until it is released. Dropping the gate releases it.
#[derive(Debug)]
pub struct Gate {
    arrived: watch::Receiver<u64>,
    open: watch::Sender<bool>,
}

impl Gate {
    /// Waits until a request stands at the gate.
    ///
    /// # Panics
    /// When the testbed is gone.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until `count` requests arrived at the gate.
    ///
    /// # Panics
    /// When the testbed is gone.
    pub async fn reached_by(&self, count: u64) {
        let arrived = self.arrived.clone().wait_for(|arrived| *arrived >= count).await.map(drop);
        arrived.expect("the testbed lives as long as its gates");
    }

    /// How many requests arrived at the gate so far.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        *self.arrived.borrow()
    }

    /// Lets every request pass, those to come as well.
    pub fn release(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Debug)]
struct Pause {
    trigger: Trigger,
    moment: Moment,
    arrived: watch::Sender<u64>,
    open: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Armed {
    trigger: Trigger,
    kind: FaultKind,
    handle: Fault,
}

/// A request's place at a gate.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) moment: Moment,
    arrived: watch::Sender<u64>,
    open: watch::Receiver<bool>,
}

impl Stop {
    /// Arrives at the gate and waits until it opens. A gate that is gone is open.
    pub(crate) async fn wait(&mut self) {
        self.arrived.send_modify(|count| *count += 1);
        let _ = self.open.wait_for(|open| *open).await;
    }
}

/// All faults and pauses that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Vec<Armed>,
    pauses: Vec<Pause>,
}

impl Faults {
    pub(crate) fn arm(&mut self, when: When, kind: FaultKind) -> Fault {
        let handle = Fault { hits: Arc::default(), cleared: Arc::new(watch::Sender::new(false)) };
        self.armed.push(Armed { trigger: Trigger { when, seen: 0 }, kind, handle: handle.clone() });
        handle
    }

    pub(crate) fn pause(&mut self, when: When, moment: Moment) -> Gate {
        let arrived = watch::Sender::new(0);
        let (open, opened) = watch::channel(false);
        let gate = Gate { arrived: arrived.subscribe(), open };
        self.pauses.push(Pause { trigger: Trigger { when, seen: 0 }, moment, arrived, open: opened });
        gate
    }

    pub(crate) fn clear(&mut self) {
        self.armed.clear();
    }

    /// The fault that this request meets: of several, the one set first.
    pub(crate) fn meet(&mut self, request: &Recorded) -> Option<(When, FaultKind)> {
        self.armed.retain(|armed| !*armed.handle.cleared.borrow());
        let mut met = None;
        for armed in &mut self.armed {
            if armed.trigger.meets(request) && met.is_none() {
                armed.handle.hits.fetch_add(1, Ordering::Relaxed);
                met = Some((armed.trigger.when.clone(), armed.kind.clone()));
            }
        }
        met
    }

    /// The gates at which this request waits.
    pub(crate) fn stops(&mut self, request: &Recorded) -> Vec<Stop> {
        self.pauses.retain(|pause| !*pause.open.borrow());
        let met = self.pauses.iter_mut().filter_map(|pause| {
            let stop = || Stop { moment: pause.moment, arrived: pause.arrived.clone(), open: pause.open.clone() };
            pause.trigger.meets(request).then(stop)
        });
        met.collect()
    }
}
