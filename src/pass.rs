//! One pass: settle what earlier runs left, list, plan, roll up side by side, report.

mod dry;
mod lister;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use self::lister::Lister;
use crate::config::{Concurrency, Config, Mode};
use crate::error::Error;
use crate::fetch;
use crate::key::LogKey;
use crate::layout::RollupName;
use crate::limit::Limit;
use crate::manifest::{self, BatchId};
use crate::pace::Pace;
use crate::parts;
use crate::period::Period;
use crate::plan::{Batch, BatchEnd, Planner, Tally};
use crate::probe;
use crate::protocol::Policy;
use crate::report::{Count, Ending, Report};
use crate::rollup::{Mailbox, OLD_BYTES, Outcome, Rollup, Shared, Trouble};
use crate::shown::shown;
use crate::source::ETag;
use crate::store::{self, Counts, Failure, SdkConfig, Start, Store, Traffic};

/// Rollups worked on side by side.
const SIDE_BY_SIDE: usize = 64;
/// Full batches whose sources are held: one that is deleted, one that is committed, and one that is read meanwhile. With
/// two of them nothing was deleted while the third was read. A source takes 170 bytes.
const BATCHES_HELD: usize = 3;
/// How long commits under way get after SIGTERM. Kubernetes sends SIGKILL 30 s after it by default.
const GRACE: Duration = Duration::from_secs(10);
/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);
/// Sources that a manifest remembers with KEEP at most.
const MOST_KEPT: usize = 1_000_000;
/// How often a batch is planned anew, after somebody else changed the rollup.
const MOST_REPLANS: u8 = 10;

/// The two buckets of a pass, which may be one.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The bucket of the log objects.
    pub source: Store,
    /// The bucket of the rollups.
    pub destination: Store,
}

impl Stores {
    /// The buckets that the settings name, reached as the SDK's configuration says.
    #[must_use]
    pub fn open(config: &Config, sdk: &SdkConfig) -> Self {
        let limit = || match config.concurrency {
            Concurrency::Auto => Limit::adaptive(),
            Concurrency::Fixed(limit) => Limit::fixed(limit.into()),
        };
        let traffic =
            Arc::new(Traffic { reads: limit(), writes: limit(), deletes: Pace::default(), counts: Counts::default() });
        let client = store::client(sdk, config.force_path_style);
        Self {
            source: Store::new(client.clone(), config.source.bucket(), Arc::clone(&traffic)),
            destination: Store::new(client, config.destination.bucket(), traffic),
        }
    }
}

/// Turns true at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn sigterm() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody listens once the pass has ended.
        let _ = stop.send(true);
    });
    Ok(stopped)
}

/// What surrounds a pass.
pub struct Surroundings<'s> {
    /// The time at its start.
    pub now: DateTime<Utc>,
    /// Seeds the batches' ids.
    pub seed: u64,
    /// Turns true at SIGTERM.
    pub stop: watch::Receiver<bool>,
    /// Shows how far it is, ten times a second.
    pub progress: Option<&'s dyn Fn(&Report)>,
}

/// How a pass ended.
#[derive(Debug)]
pub struct Ended {
    /// What it did.
    pub report: Report,
    /// Why it ended early, where it did.
    pub error: Option<Error>,
}

impl Ended {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.error.as_ref().map_or_else(|| self.report.exit_code(), Error::exit_code)
    }
}

/// Manifests that were listed, by rollup.
type Pending = BTreeMap<RollupName, Vec<(BatchId, ETag)>>;

/// Runs one pass.
pub async fn run(config: &Config, stores: Stores, surroundings: Surroundings<'_>) -> Ended {
    let started = Instant::now();
    let (halt, halted) = watch::channel(false);
    let shared = shared(config, &stores, surroundings.seed, halted);
    let pass = Pass {
        config,
        shared: &shared,
        halt,
        surroundings,
        ending: Cell::default(),
        error: RefCell::default(),
        started,
    };
    // Boxed: a caller's own future would otherwise have the layout of everything below.
    Box::pin(pass.run()).await;
    let (ending, error) = (pass.ending.get(), pass.error.take());
    drop(pass);
    let mut report = shared.report.into_inner();
    report.count_traffic(stores.destination.traffic());
    report.seconds = started.elapsed().as_secs_f64();
    report.ending = if error.is_some() { Ending::Error } else { ending };
    report.error = error.as_ref().map(ToString::to_string);
    Ended { report, error }
}

fn shared(config: &Config, stores: &Stores, seed: u64, stop: watch::Receiver<bool>) -> Shared {
    let buffer = u32::try_from(config.buffer).unwrap_or(u32::MAX);
    let smallest = u32::try_from(fetch::SMALLEST_BUDGET).unwrap_or(u32::MAX);
    Shared {
        source: stores.source.clone(),
        source_prefix: config.source.prefix().to_owned(),
        destination: stores.destination.clone(),
        destination_prefix: config.destination.prefix().to_owned(),
        policy: Policy {
            keep: config.mode.keeps_sources(),
            overwrite: config.mode == Mode::Overwrite,
            min_part: parts::SMALLEST,
            max_kept: MOST_KEPT,
            max_replans: MOST_REPLANS,
        },
        checksummed_copies: Cell::new(true),
        buffer: Arc::new(Semaphore::new(buffer as usize)),
        turn: Arc::new(Semaphore::new(1)),
        old: Arc::new(Semaphore::new(OLD_BYTES as usize)),
        replaced: RefCell::default(),
        window: (buffer / 2).max(smallest).min(buffer),
        random: RefCell::new(fastrand::Rng::with_seed(seed)),
        report: RefCell::new(Report { dry_run: config.dry_run, ..Report::default() }),
        stop,
        warned_of_versions: Cell::new(false),
        uploads_unlisted: Cell::new(false),
        room: Notify::new(),
    }
}

struct Pass<'p> {
    config: &'p Config,
    shared: &'p Shared,
    /// Tells all rollups to begin nothing new.
    halt: watch::Sender<bool>,
    surroundings: Surroundings<'p>,
    ending: Cell<Ending>,
    /// What ends the pass: the first of it.
    error: RefCell<Option<Error>>,
    started: Instant,
}

impl Pass<'_> {
    async fn run(&self) {
        let mut lister = self.lister();
        tokio::select! {
            biased;
            // First, since the work may always have something to do.
            () = self.watch() => {}
            () = self.show_progress() => {}
            outcome = self.work(&mut lister) => {
                if let Err(error) = outcome {
                    self.end(error);
                }
            }
        }
        let mut report = self.shared.report.borrow_mut();
        lister.report(&mut report);
        if self.ending.get() != Ending::Done {
            let planned = lister.planner.tally().planned.objects;
            report.backlog = Some(planned.saturating_sub(report.rolled_up.objects));
        }
    }

    async fn work(&self, lister: &mut Lister<'_>) -> Result<(), Error> {
        if self.config.dry_run {
            return self.dry_run(lister).await;
        }
        let (pending, abandoned) = self.list_manifests().await?;
        if !abandoned.is_empty() {
            let Shared { destination, destination_prefix, .. } = self.shared;
            probe::remove_abandoned(destination, destination_prefix, &abandoned, self.surroundings.now).await;
        }
        if !pending.is_empty() {
            self.probe().await?;
            self.settle(&pending, &mut lister.given_up).await?;
        }
        lister.begin_apart(self.config.shard).await?;
        self.roll_up(lister, &pending).await;
        Ok(())
    }

    /// Waits for SIGTERM, the time limit or an error, has everybody begin nothing new, and ends when the commits under
    /// way have had their time.
    async fn watch(&self) {
        let mut stop = self.surroundings.stop.clone();
        let mut halted = self.shared.stop.clone();
        let deadline = self.config.time_limit.and_then(|limit| self.started.checked_add(limit));
        tokio::select! {
            biased;
            Ok(_) = halted.wait_for(|halted| *halted) => {}
            Ok(_) = stop.wait_for(|stop| *stop) => self.ending.set(Ending::Stopped),
            () = until(deadline) => self.ending.set(Ending::TimeLimit),
        }
        self.halt.send_replace(true);
        if self.ending.get() == Ending::TimeLimit && stop.wait_for(|stop| *stop).await.is_ok() {
            self.ending.set(Ending::Stopped);
        }
        if self.ending.get() == Ending::TimeLimit {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
        tracing::warn!("requests under way did not end within {} s and were dropped", GRACE.as_secs());
    }

    async fn show_progress(&self) {
        let Some(show) = self.surroundings.progress else { return std::future::pending().await };
        loop {
            tokio::time::sleep(TICK).await;
            let mut report = self.shared.report.borrow_mut();
            report.count_traffic(self.shared.destination.traffic());
            show(&report);
        }
    }

    /// Ends the pass: nothing new is begun. The first error counts.
    fn end(&self, error: impl Into<Error>) {
        self.error.borrow_mut().get_or_insert(error.into());
        self.halt.send_replace(true);
    }

    fn is_halted(&self) -> bool {
        *self.halt.borrow()
    }

    fn lister(&self) -> Lister<'_> {
        let planner = Planner::new(self.config.planning(), self.surroundings.now);
        Lister::new(&self.shared.source, self.config.source.prefix(), planner)
    }

    async fn probe(&self) -> Result<(), Error> {
        let id = BatchId::fresh(&mut self.shared.random.borrow_mut());
        let Shared { destination, destination_prefix, .. } = self.shared;
        let capabilities = probe::probe(destination, destination_prefix, id, self.config.assume_no_overlap).await?;
        self.shared.checksummed_copies.set(capabilities.checksummed_copies);
        Ok(())
    }

    /// The manifests that are there, and what probes of killed passes left.
    async fn list_manifests(&self) -> Result<(Pending, Vec<store::Object>), Failure> {
        let Shared { destination, destination_prefix, .. } = self.shared;
        let prefix = format!("{destination_prefix}{}", manifest::FOLDER);
        let mut pending = Pending::new();
        let mut abandoned = Vec::new();
        let mut start = Start::First;
        loop {
            let page = destination.list(&prefix, &start).await?;
            for object in page.objects {
                if let Some((rollup, batch)) = manifest::parse_key(destination_prefix, &object.key)
                    && let Some(rollup) = RollupName::parse(rollup)
                {
                    pending.entry(rollup).or_default().push((batch, object.etag));
                } else if probe::is_abandoned(destination_prefix, &object, self.surroundings.now) {
                    abandoned.push(object);
                }
            }
            match page.next.map(Start::Token) {
                Some(next) if next == start => return Err(destination.does_not_advance(&prefix)),
                Some(next) => start = next,
                None => return Ok((pending, abandoned)),
            }
        }
    }

    /// Steps 1 to 3 for every rollup with manifests, whatever its layout, before any source is read: a run with
    /// another level or template may have put sources into its rollups that are still there. Another shard's rollups
    /// of the same layout are that shard's: their sources are in no rollup of this one.
    async fn settle(&self, pending: &Pending, given_up: &mut HashSet<RollupName>) -> Result<(), Error> {
        let own_layout = |name: &RollupName| self.config.layout.owns(name);
        let (own, other): (Vec<_>, Vec<_>) = pending.iter().partition(|(name, _)| own_layout(name));
        let own = own.into_iter().filter(|(name, _)| self.config.shard.takes(name));
        if let Some((name, _)) = other.first() {
            tracing::warn!(
                "manifests of another level or template are pending, such as {}'s: they are settled first. Never run \
                 two layouts side by side",
                shown(name.as_str())
            );
        }
        let rollups = own.chain(other).map(|(name, listed)| {
            let mailbox = Rc::new(Mailbox::default());
            mailbox.set_passed(true);
            Rollup::new(self.shared, name.clone(), listed, mailbox).run()
        });
        let mut settling = futures::stream::iter(rollups).buffer_unordered(SIDE_BY_SIDE);
        while let Some(outcome) = settling.next().await {
            let unsettled = self.unsettled(&outcome);
            self.conclude(outcome, given_up)?;
            if let Some(error) = unsettled {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sources that are in a rollup and could not be deleted would be read again where this run puts them into
    /// another one.
    fn unsettled(&self, outcome: &Outcome) -> Option<Error> {
        let Outcome { name, trouble, undeleted, .. } = outcome;
        if self.config.mode.keeps_sources() {
            return None;
        }
        let moved = undeleted.iter().filter(|source| !self.belongs(&source.key, name)).count();
        let why = match trouble {
            Some(trouble) if !self.config.layout.owns(name) => trouble.to_string(),
            _ if moved > 0 => format!("{moved} of them"),
            _ => return None,
        };
        let rollup = shown(&name.key(&self.shared.destination_prefix)).to_string();
        Some(Error::Unsettled { rollup, why })
    }

    /// Would this run put the source into that rollup?
    fn belongs(&self, key: &str, name: &RollupName) -> bool {
        let Config { source, layout, .. } = self.config;
        let log = LogKey::parse(source.prefix(), key);
        let rollup = log.and_then(|log| layout.rollup(log.group(), &Period::of(layout.level(), log.at())));
        rollup.as_ref() == Some(name)
    }

    /// Takes note of how the work on a rollup ended.
    fn conclude(&self, outcome: Outcome, given_up: &mut HashSet<RollupName>) -> Result<(), Failure> {
        let Some(trouble) = outcome.trouble else { return Ok(()) };
        let key = outcome.name.key(&self.shared.destination_prefix);
        tracing::error!(rollup = %shown(&key), "the rollup is given up in this pass: {trouble}");
        self.shared.report.borrow_mut().fail(&key, &trouble.to_string());
        given_up.insert(outcome.name);
        match trouble {
            Trouble::Store(failure) if failure.hopeless() => Err(failure),
            _ => Ok(()),
        }
    }

    async fn roll_up(&self, lister: &mut Lister<'_>, pending: &Pending) {
        let mut work = Work {
            pass: self,
            pending,
            active: HashMap::new(),
            running: FuturesUnordered::new(),
            probed: !pending.is_empty(),
        };
        let mut halted = self.shared.stop.clone();
        loop {
            if !self.is_halted()
                && let Err(error) = work.hand_on(lister).await
            {
                self.end(error);
            }
            if work.running.is_empty() && (self.is_halted() || lister.is_done()) {
                return;
            }
            tokio::select! {
                biased;
                Some(outcome) = work.running.next() => {
                    if let Err(failure) = work.conclude(outcome, &mut lister.given_up) {
                        self.end(failure);
                    }
                }
                page = lister.page(), if !self.is_halted() && lister.wants_page() => match page {
                    Ok(page) => lister.page = Some(page),
                    Err(failure) => self.end(failure),
                },
                () = self.shared.room.notified() => {}
                Ok(_) = halted.wait_for(|halted| *halted), if !self.is_halted() => {}
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The rollups that are being worked on.
struct Work<'w> {
    pass: &'w Pass<'w>,
    pending: &'w Pending,
    active: HashMap<RollupName, Rc<Mailbox>>,
    running: FuturesUnordered<LocalBoxFuture<'w, Outcome>>,
    probed: bool,
}

impl Work<'_> {
    /// Hands on what was listed, as far as there is room; the store is probed before the first batch.
    async fn hand_on(&mut self, lister: &mut Lister<'_>) -> Result<(), Error> {
        loop {
            while let Some(batch) = lister.ready.front() {
                if lister.given_up.contains(&batch.rollup) {
                    self.leave(batch);
                    lister.ready.pop_front();
                    continue;
                }
                if !self.has_room(batch) {
                    return Ok(());
                }
                if !self.probed {
                    self.probed = true;
                    self.pass.probe().await?;
                }
                if let Some(batch) = lister.ready.pop_front() {
                    self.put(batch);
                }
            }
            match lister.page.take() {
                Some(page) => {
                    lister.plan(&page)?;
                    let Tally { listed, .. } = lister.planner.tally();
                    self.pass.shared.report.borrow_mut().found = Count { objects: listed.objects, bytes: listed.bytes };
                }
                None => break,
            }
        }
        if lister.is_done() {
            self.active.values().for_each(|mailbox| mailbox.set_passed(true));
        }
        Ok(())
    }

    /// A further batch of a rollup that was given up in this pass stays.
    fn leave(&self, batch: &Batch) {
        let mut report = self.pass.shared.report.borrow_mut();
        for source in &batch.sources {
            report.leave("of a rollup that failed", &source.key, source.size);
        }
    }

    /// One batch waits for each rollup at most, and all rollups together hold a few batches.
    fn has_room(&self, batch: &Batch) -> bool {
        let objects = batch.sources.len() + batch.empty.len();
        let held: usize = self.active.values().map(|mailbox| mailbox.held()).sum();
        if held > 0 && held + objects > BATCHES_HELD * self.pass.config.batch_objects {
            return false;
        }
        match self.active.get(&batch.rollup) {
            Some(mailbox) => mailbox.waiting() == 0,
            None => self.active.len() < SIDE_BY_SIDE,
        }
    }

    fn put(&mut self, batch: Batch) {
        let passed = batch.end == BatchEnd::Passed;
        let mailbox = match self.active.get(&batch.rollup) {
            Some(mailbox) if !mailbox.has_ended() => Rc::clone(mailbox),
            _ => self.begin(&batch.rollup),
        };
        mailbox.put(batch);
        mailbox.set_passed(passed);
    }

    fn begin(&mut self, name: &RollupName) -> Rc<Mailbox> {
        let mailbox = Rc::new(Mailbox::default());
        let listed = self.pending.get(name).map_or(&[][..], Vec::as_slice);
        let rollup = Rollup::new(self.pass.shared, name.clone(), listed, Rc::clone(&mailbox));
        self.running.push(Box::pin(rollup.run()));
        self.active.insert(name.clone(), Rc::clone(&mailbox));
        mailbox
    }

    fn conclude(&mut self, outcome: Outcome, given_up: &mut HashSet<RollupName>) -> Result<(), Failure> {
        if self.active.get(&outcome.name).is_some_and(|mailbox| Rc::ptr_eq(mailbox, &outcome.mailbox)) {
            self.active.remove(&outcome.name);
        }
        for batch in outcome.mailbox.take_back() {
            self.leave(&batch);
        }
        self.pass.conclude(outcome, given_up)
    }
}
