//! `ROLLUP_CHECK`: tries every permission that a run with the same settings needs, and what the store must be able to
//! do, and leaves nothing behind.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::config::Config;
use crate::error::Error;
use crate::key::{Location, LogKey};
use crate::manifest::{BatchId, FOLDER, PROBE};
use crate::pass::Stores;
use crate::plan::Storage;
use crate::probe;
use crate::report::TERMINATION_MESSAGE;
use crate::source::ETag;
use crate::store::{Attributes, Condition, Failure, Kind, Object, Start, Store};

/// How long the check of one side takes at most, both being checked at once: a test in a cluster wants an answer within a
/// minute, and the retries of one request alone may take 20 s.
const LIMIT: Duration = Duration::from_secs(45);
/// Bytes of the probe object.
const PROBED: &[u8] = b"s3-log-rollup checks what it may do\n";

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// One for each thing that a run needs.
    pub findings: Vec<Finding>,
    stopped: bool,
}

/// One thing that a run needs.
#[derive(Debug)]
pub struct Finding {
    /// A permission and where it is needed, or what the store must do.
    pub what: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of trying.
#[derive(Debug)]
pub enum Outcome {
    /// It works; with what was seen, where that says something.
    Works(String),
    /// It does not.
    Fails(Error),
    /// It was not tried, for this reason.
    Untried(&'static str),
}

/// The check as its termination message says it.
#[derive(Debug, Serialize)]
struct Message {
    check: &'static str,
    works: usize,
    fails: Vec<String>,
    untried: Vec<String>,
}

impl Checked {
    /// 0 where nothing fails; else what a run would end with: 3, where a permission, a bucket or credentials are
    /// missing; 2 for the settings; 1 where trying again may help. 143 after SIGTERM.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.stopped {
            return 143;
        }
        // The gravest says what to do first.
        let codes = self.findings.iter().filter_map(|finding| match &finding.outcome {
            Outcome::Fails(Error::Store(failure)) if failure.kind == Kind::Denied => Some(3),
            Outcome::Fails(error) => Some(error.exit_code()),
            _ => None,
        });
        codes.max().unwrap_or(0)
    }

    /// What a person wants to know, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let failed = self.findings.iter().filter(|finding| matches!(finding.outcome, Outcome::Fails(_))).count();
        match (self.stopped, failed) {
            (true, _) => String::from("The check was stopped by SIGTERM."),
            (_, 0) => String::from("The check found nothing wrong: a run with these settings can do what it must."),
            (_, failed) => format!("The check failed: {failed} of {} would stop a run.", self.findings.len()),
        }
    }

    /// One line of JSON, of at most 4 KiB.
    ///
    /// # Panics
    /// Never: it has only string keys.
    #[must_use]
    pub fn termination_message(&self) -> String {
        let mut message = Message { check: "passed", works: 0, fails: Vec::new(), untried: Vec::new() };
        if self.exit_code() != 0 {
            message.check = "failed";
        }
        for Finding { what, outcome } in &self.findings {
            match outcome {
                Outcome::Works(_) => message.works += 1,
                Outcome::Fails(error) => message.fails.push(format!("{what}: {error}")),
                Outcome::Untried(why) => message.untried.push(format!("{what}: {why}")),
            }
        }
        let encode = |message: &Message| serde_json::to_string(message).expect("string keys only");
        while encode(&message).len() > TERMINATION_MESSAGE
            && message.untried.pop().or_else(|| message.fails.pop()).is_some()
        {}
        encode(&message)
    }
}

/// Checks both sides at once. `seed` makes the name of the probe object; `stop` turns true at SIGTERM.
pub async fn run(config: &Config, stores: &Stores, seed: u64, mut stop: watch::Receiver<bool>) -> Checked {
    let id = BatchId::fresh(&mut fastrand::Rng::with_seed(seed));
    let mut source = Side::new(&stores.source, &config.source);
    let mut destination = Side::new(&stores.destination, &config.destination);
    let stopped = {
        let source = source.within_limit(async |side| side.check_source(config, id).await);
        let destination = destination.within_limit(async |side| side.check_destination(config, id).await);
        // Boxed: a caller's own future would otherwise have the layout of everything below.
        let mut both = Box::pin(futures::future::join(source, destination));
        tokio::select! {
            biased;
            _ = &mut both => false,
            Ok(_) = stop.wait_for(|stop| *stop) => true,
        }
    };
    source.findings.append(&mut destination.findings);
    Checked { findings: source.findings, stopped }
}

/// One of the two buckets.
struct Side<'c> {
    store: &'c Store,
    location: &'c Location,
    findings: Vec<Finding>,
}

impl<'c> Side<'c> {
    fn new(store: &'c Store, location: &'c Location) -> Self {
        Self { store, location, findings: Vec::new() }
    }

    async fn within_limit(&mut self, check: impl AsyncFnOnce(&mut Self)) {
        if tokio::time::timeout(LIMIT, check(self)).await.is_err() {
            let why = format!("no end after {} s: the endpoint does not answer, or too slowly", LIMIT.as_secs());
            self.find("the rest of the check", Outcome::Fails(Error::Timeout(why)));
        }
    }

    fn find(&mut self, what: &str, outcome: Outcome) {
        self.findings.push(Finding { what: format!("{what} on {}", self.location), outcome });
    }

    fn untried(&mut self, whats: &[&str], why: &'static str) {
        for what in whats {
            self.find(what, Outcome::Untried(why));
        }
    }

    /// Takes note of an answer, and hands on what came with it.
    fn note<T>(&mut self, what: &str, answer: Result<T, impl Into<Error>>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.find(what, Outcome::Works(String::new()));
                Some(answer)
            }
            Err(error) => {
                self.find(what, Outcome::Fails(error.into()));
                None
            }
        }
    }

    async fn check_source(&mut self, config: &Config, id: BatchId) {
        let objects = match self.store.list(self.location.prefix(), &Start::First).await {
            Ok(page) => {
                let seen = seen(self.location.prefix(), &page.objects);
                self.find(LIST, Outcome::Works(seen));
                page.objects
            }
            Err(failure) => return self.find(LIST, Outcome::Fails(failure.into())),
        };
        self.read_a_source(&objects, id).await;
        if config.mode.keeps_sources() {
            self.find(DELETE, Outcome::Untried("ROLLUP_KEEP is set"));
        } else if config.dry_run {
            self.find(DELETE, Outcome::Untried("ROLLUP_DRY_RUN is set"));
        } else {
            // Of a key that is not there, and only if it were another object than it could be: nothing can be hit.
            let deleted = self.store.delete(&self.absent(id), Some(&ETag::none())).await;
            self.note(DELETE, unless_missing(deleted));
        }
    }

    /// The smallest log object that can be read; without one, whether a key that is not there may be read.
    async fn read_a_source(&mut self, objects: &[Object], id: BatchId) {
        let readable = objects.iter().filter(|object| object.storage == Storage::Readable && object.size > 0);
        let logs = readable.filter(|object| LogKey::parse(self.location.prefix(), &object.key).is_some());
        let Some(Object { key, etag, size, .. }) = logs.min_by_key(|object| object.size) else {
            return match self.store.get(&self.absent(id), None, None, 0).await {
                Err(failure) if failure.kind == Kind::Denied => {
                    self.find(
                        READ,
                        Outcome::Untried("there is no log object to read, and a missing one may look denied"),
                    );
                }
                read => drop(self.note(READ, unless_missing(read.map(drop)))),
            };
        };
        let read = self.store.get(key, Some(etag), Some((0, 1)), *size).await;
        // Gone since it was listed: another run took it.
        self.note(READ, unless_missing(read.map(drop)));
    }

    async fn check_destination(&mut self, config: &Config, id: BatchId) {
        let folder = format!("{}{FOLDER}", self.location.prefix());
        let listed = self.store.list(&folder, &Start::First).await;
        let listed = self.note(LIST, listed).is_some();
        if config.dry_run {
            return self.untried(&[UPLOADS, ABORT, DELETE, PUT, READ, CONDITIONS], "ROLLUP_DRY_RUN is set");
        }
        let uploads = self.store.uploads(&folder).await;
        self.note(UPLOADS, uploads);
        let key = format!("{folder}{PROBE}-{id}");
        // Whether what is written could be removed again is asked first, with what is not there.
        let aborted = self.store.abort(&key, &id.to_string()).await;
        let aborted = self.note(ABORT, unless_missing(aborted));
        let deleted = self.store.delete(&key, None).await;
        let deleted = self.note(DELETE, deleted);
        if aborted.is_none() || deleted.is_none() {
            return self.untried(&[PUT, READ, CONDITIONS], "it could not be removed again");
        }
        if !self.write_and_read(&key, id, listed).await {
            return self.untried(&[CONDITIONS], "what comes before it fails");
        }
        let probed = probe::probe(self.store, self.location.prefix(), id, config.assume_no_overlap).await;
        self.note(CONDITIONS, probed);
    }

    /// Is an object that was written there, with its bytes and its metadata, on which the commits rest?
    async fn write_and_read(&mut self, key: &str, id: BatchId, listed: bool) -> bool {
        let body = Bytes::from_static(PROBED);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body);
        let batch = id.to_string();
        let named = Some((&Attributes::default(), batch.as_str()));
        let put = self.store.put(key, &body, crc, &Condition::Absent, named).await;
        if self.note(PUT, put).is_none() {
            return false;
        }
        let read = self.read_back(key, &batch, listed).await;
        let deleted = self.store.delete(key, None).await;
        let read = self.note(READ, read);
        if let Err(failure) = deleted {
            self.find("removing the probe", Outcome::Fails(failure.into()));
        }
        read.is_some()
    }

    async fn read_back(&self, key: &str, batch: &str, listed: bool) -> Result<(), Error> {
        let wrong = |what| {
            let (bucket, key) = (self.store.bucket().to_owned(), key.to_owned());
            Err(Error::Unfaithful { bucket, key, what })
        };
        let head = self.store.head(key).await?;
        if head.batch.as_deref() != Some(batch) {
            return wrong("its metadata, on which every commit rests, is not given back");
        }
        if self.store.get(key, Some(&head.etag), None, head.size).await? != PROBED {
            return wrong("other bytes are given back than were written");
        }
        if listed && !self.store.find(key).await? {
            return wrong("it is not listed right after it was written");
        }
        Ok(())
    }

    /// A key that is not there, and that nobody takes for a log object's.
    fn absent(&self, id: BatchId) -> String {
        format!("{}_check-{id}", self.location.prefix())
    }
}

const LIST: &str = "s3:ListBucket";
const READ: &str = "s3:GetObject";
const DELETE: &str = "s3:DeleteObject";
const PUT: &str = "s3:PutObject";
const UPLOADS: &str = "s3:ListBucketMultipartUploads";
const ABORT: &str = "s3:AbortMultipartUpload";
const CONDITIONS: &str = "conditional writes";

/// What the first page of the listing shows.
fn seen(prefix: &str, objects: &[Object]) -> String {
    let logs = objects.iter().filter(|object| LogKey::parse(prefix, &object.key).is_some()).count();
    match (objects.len(), logs) {
        (0, _) => String::from("nothing is there yet"),
        (all, 0) => format!("none of the first {all} objects is a log object: is it the right prefix?"),
        (all, logs) => format!("{logs} of the first {all} objects are log objects"),
    }
}

/// Nothing was there to be read, deleted or aborted, and so nothing was: but it was allowed.
fn unless_missing(answer: Result<(), Failure>) -> Result<(), Failure> {
    match answer {
        Err(failure) if matches!(failure.kind, Kind::Missing | Kind::Condition | Kind::Conflict | Kind::Refused) => {
            Ok(())
        }
        answer => answer,
    }
}
