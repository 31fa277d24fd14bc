//! Passes that overlap, in the order that a seed decides: who goes next, which connections break, which requests come
//! late, who is killed, when logs arrive.

use std::collections::{BTreeMap, VecDeque};
use std::ops::AddAssign;
use std::sync::Mutex;
use std::time::Duration;

use testbed::{Moment, Recorded, Schedule, Settings, Turn, Waiting};

use crate::bench::{Bench, LOGS, OUT};
use crate::invariants::{Log, Watch};
use crate::passes::{Passes, each, play};

/// Seeds played where `SCHEDULES` says nothing.
const SCHEDULES: u64 = 2_000;
/// Turns after which a schedule is taken for endless.
const MOST_TURNS: u64 = 50_000;
/// Passes that may start in one schedule.
const MOST_PASSES: u64 = 5;
const GROUPS: [&str; 2] = ["", "web/"];
/// Groups that share their rollups, on both sides of where a second shard begins, and another one.
const APART: [&str; 3] = ["/web/", "web/", "/a/"];

/// What happened in schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    schedules: u64,
    passes: u64,
    requests: u64,
    states: u64,
    killed: u64,
    cut: u64,
    late: u64,
    slowed: u64,
    slept: u64,
    /// Commits, and manifests, whose condition failed.
    refused: u64,
    multipart: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.passes += other.passes;
        self.requests += other.requests;
        self.states += other.states;
        self.killed += other.killed;
        self.cut += other.cut;
        self.late += other.late;
        self.slowed += other.slowed;
        self.slept += other.slept;
        self.refused += other.refused;
        self.multipart += other.multipart;
    }
}

/// What a seed decides before the first request.
struct Plan {
    passes: usize,
    batch: String,
    concurrency: &'static str,
    /// Of a hundred passes, so many keep their sources.
    keep: u32,
    /// Of a thousand turns, so many are no plain ones.
    faults: u32,
    /// Of a thousand turns, so many kill a pass.
    kills: u32,
    /// Some of the passes are one of two shards.
    shards: bool,
    /// Somebody else's large rollups, which every append copies.
    filler: bool,
    logs: Vec<Log>,
    late: VecDeque<Log>,
}

impl Plan {
    fn new(dice: &mut fastrand::Rng) -> Self {
        let shards = dice.u32(..4) == 0;
        let groups = if shards { &APART[..] } else { &GROUPS[..dice.usize(1..=2)] };
        let large = dice.u32(..128) == 0;
        let mut log = |at: usize| Log {
            key: format!("logs/{}2026-01-31-{:02}-00-00-{at}", groups[dice.usize(..groups.len())], dice.u32(..24)),
            lines: if dice.u32(..12) == 0 { 0 } else { dice.usize(1..=2) },
            padding: if large && at == 0 { 5 << 20 } else { dice.usize(..20) },
            newline: dice.bool(),
        };
        let logs: Vec<_> = (0..8).map(&mut log).collect();
        let late: VecDeque<_> = (8..12).map(&mut log).collect();
        Self {
            passes: dice.usize(2..=3),
            batch: dice.u32(1..=3).to_string(),
            concurrency: ["1", "2", "4", "auto"][dice.usize(..4)],
            keep: [0, 0, 0, 30, 50, 100][dice.usize(..6)],
            faults: [0, 10, 40][dice.usize(..3)],
            kills: [0, 5, 20][dice.usize(..3)],
            shards,
            filler: dice.u32(..3) == 0,
            logs: logs.into_iter().take(dice.usize(2..=8)).collect(),
            late: late.into_iter().take(dice.usize(..=4)).collect(),
        }
    }
}

/// A schedule under way.
struct Play<'b> {
    bench: &'b Bench,
    watch: &'b Watch,
    plan: Plan,
    dice: fastrand::Rng,
    passes: Passes<'b>,
    /// Killed at the next turn.
    dying: Option<u64>,
    /// How much each pass, and each late request, wants its turn: the highest goes.
    urges: BTreeMap<(u64, u64), u32>,
    tally: Tally,
    told: Option<Vec<String>>,
}

impl Play<'_> {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(what());
        }
    }

    fn start(&mut self) {
        let keep = if self.dice.u32(..100) < self.plan.keep { "true" } else { "false" };
        let seed = self.dice.u64(..);
        let shard = if self.plan.shards { [None, Some("0"), Some("1"), Some("1")][self.dice.usize(..4)] } else { None };
        let Plan { batch, concurrency, .. } = &self.plan;
        let mut settings =
            vec![("ROLLUP_KEEP", keep), ("ROLLUP_BATCH_OBJECTS", batch), ("ROLLUP_CONCURRENCY", concurrency)];
        settings
            .extend(shard.into_iter().flat_map(|index| [("ROLLUP_SHARD_COUNT", "2"), ("ROLLUP_SHARD_INDEX", index)]));
        let client = self.passes.start(self.bench, &settings, seed);
        self.tally.passes += 1;
        self.tell(|| format!("pass {client} starts, KEEP {keep}, shard {shard:?}"));
    }

    /// Until every pass has ended and every late request was applied.
    async fn run(&mut self, steps: &Schedule) -> Result<(), String> {
        (0..self.plan.passes).for_each(|_| self.start());
        for _ in 0..MOST_TURNS {
            if self.passes.clients().is_empty() && steps.waiting().is_empty() {
                // The last of the late requests is on its way still.
                tokio::time::sleep(Duration::from_millis(1)).await;
                return self.watch.holds();
            }
            tokio::select! {
                biased;
                Some((client, ended)) = self.passes.ended() => {
                    self.tell(|| format!("pass {client} ends: {:?}", ended.as_ref().map(s3_log_rollup::pass::Ended::exit_code)));
                    if let Some(ended) = ended && (ended.error.is_some() || ended.exit_code() > 1) {
                        return Err(format!("pass {client} ended with {:?}", ended.error));
                    }
                }
                () = steps.settled() => self.turn(steps).await,
            }
            self.watch.holds()?;
        }
        Err(format!("there is no end after {MOST_TURNS} turns"))
    }

    async fn turn(&mut self, steps: &Schedule) {
        if self.dice.u32(..15) == 0
            && let Some(log) = self.plan.late.pop_front()
        {
            self.tell(|| format!("{} arrives", log.key));
            self.watch.put(&log);
        }
        let running = self.passes.clients();
        if let Some(client) = self.dying.take().filter(|client| running.contains(client)) {
            return self.kill(client);
        }
        if !running.is_empty() && self.dice.u32(..1000) < self.plan.kills {
            let client = running[self.dice.usize(..running.len())];
            self.dying = Some(client);
            return self.send_on(client, steps);
        }
        if self.dice.u32(..1000) < self.plan.faults.min(2) {
            // Longer than any answer is waited for.
            self.tally.slept += 1;
            self.tell(|| String::from("nothing happens for two hours"));
            return tokio::time::sleep(Duration::from_hours(2)).await;
        }
        let waiting = steps.waiting();
        let place = self.choose(&waiting);
        let Some(chosen) = waiting.get(place) else { return };
        let turn = self.turn_of(chosen);
        let Recorded { seq, client, operation, key, prefix, keys, status, .. } = &chosen.request;
        self.tell(|| {
            format!("{client} {seq} {operation:?} {key:?} {prefix:?} {keys:?} {:?} {status:?} {turn:?}", chosen.moment)
        });
        steps.turn(place, turn);
    }

    /// Mostly the one that wants it most; the wishes change now and then, so that one pass is far ahead of another.
    fn choose(&mut self, waiting: &[Waiting]) -> usize {
        if self.dice.u32(..5) == 0 {
            return self.dice.usize(..waiting.len());
        }
        let change = self.dice.usize(..16);
        let mut highest = (0, 0);
        for (place, Waiting { request, late, .. }) in waiting.iter().enumerate() {
            let who = (request.client, if *late { request.seq } else { 0 });
            let urge = *self.urges.entry(who).or_insert_with(|| self.dice.u32(1..));
            if place == change {
                self.urges.insert(who, self.dice.u32(1..));
            }
            highest = highest.max((urge, place));
        }
        highest.1
    }

    fn turn_of(&mut self, chosen: &Waiting) -> Turn {
        if chosen.late || self.dice.u32(..1000) >= self.plan.faults {
            return Turn::Go;
        }
        let turns = match chosen.moment {
            Moment::Before if chosen.request.operation.is_write() => &[Turn::Cut, Turn::SlowDown, Turn::Later][..],
            Moment::Before => &[Turn::Cut, Turn::SlowDown],
            Moment::Applied => &[Turn::Cut],
        };
        let turn = turns[self.dice.usize(..turns.len())];
        match turn {
            Turn::Cut => self.tally.cut += 1,
            Turn::SlowDown => self.tally.slowed += 1,
            Turn::Later => self.tally.late += 1,
            Turn::Go => {}
        }
        turn
    }

    /// Some of the requests that a dying pass has on their way arrive all the same.
    fn send_on(&mut self, client: u64, steps: &Schedule) {
        for (place, waiting) in steps.waiting().iter().enumerate().rev() {
            let own = waiting.request.client == client && !waiting.late && waiting.moment == Moment::Before;
            if own && waiting.request.operation.is_write() && self.dice.bool() {
                self.tell(|| format!("request {} comes late", waiting.request.seq));
                self.tally.late += 1;
                steps.turn(place, Turn::Later);
            }
        }
    }

    /// Often a new pass starts in its place.
    fn kill(&mut self, client: u64) {
        self.tally.killed += 1;
        self.tell(|| format!("pass {client} is killed"));
        self.passes.kill(client);
        if self.tally.passes < MOST_PASSES && self.dice.u32(..3) > 0 {
            self.start();
        }
    }
}

/// What a schedule has left behind.
struct Played {
    tally: Tally,
    requests: Vec<Recorded>,
    told: Vec<String>,
    outcome: Result<(), String>,
}

async fn schedule(seed: u64, tell: bool) -> Played {
    let mut dice = fastrand::Rng::with_seed(seed);
    let plan = Plan::new(&mut dice);
    let mut bench = Bench::with(Settings { check_signatures: false, ..Settings::default() });
    bench.bed.set_now("2026-02-01T00:00:00Z".parse().expect("a time"));
    let watch = Watch::new(&bench.bed);
    if plan.filler {
        for group in GROUPS {
            watch.put_filler(&format!("{group}2026-01-31"));
        }
    }
    for log in plan.logs.iter().chain(&plan.late) {
        bench.ledger.put(LOGS, &log.key, &log.body().into());
    }
    for log in &plan.logs {
        watch.put(log);
    }
    let told = tell.then(Vec::new);
    let mut game = Play {
        bench: &bench,
        watch: &watch,
        plan,
        dice,
        passes: Passes::default(),
        dying: None,
        urges: BTreeMap::new(),
        tally: Tally { schedules: 1, ..Tally::default() },
        told,
    };
    let steps = bench.bed.schedule();
    let mut outcome = game.run(&steps).await;
    drop(steps);
    if outcome.is_ok() {
        outcome = clean_up(&mut game).await;
    }
    let Play { mut tally, told, .. } = game;
    let requests = bench.bed.requests();
    tally.requests = requests.len() as u64;
    tally.states = watch.checked();
    let commits = requests.iter().filter(|r| r.key.as_deref().is_some_and(|key| !key.contains("/_")));
    tally.refused = commits.clone().filter(|r| r.operation.is_write() && r.status == Some(412)).count() as u64;
    tally.multipart = commits.filter(|r| r.operation == testbed::Operation::UploadPartCopy).count() as u64;
    Played { tally, requests, told: told.unwrap_or_default(), outcome }
}

/// One clean pass, and everything is where it should be.
async fn clean_up(play: &mut Play<'_>) -> Result<(), String> {
    play.plan.late.drain(..).for_each(|log| play.watch.put(&log));
    last_pass(play).await?;
    if play.plan.filler {
        // Uploads to rollups that did not change any more may be left: the next commit to each ends them.
        for group in GROUPS {
            let key = format!("logs/{group}2026-01-31-23-59-59-Z");
            play.watch.put(&Log { key, lines: 1, padding: 0, newline: true });
        }
        last_pass(play).await?;
        // The filler's one line is longer than everything else; what is watched knows each log object by its name.
        return play.watch.no_uploads();
    }
    let balance = play.bench.ledger.check_testbed(&play.bench.bed, (OUT, "rollup/"), (LOGS, "logs/"));
    balance.map(drop).map_err(|imbalance| imbalance.to_string())
}

async fn last_pass(play: &Play<'_>) -> Result<(), String> {
    let ended = play.bench.pass(&[]).await;
    if ended.exit_code() != 0 {
        return Err(format!("the last pass ended with {}: {:?} {:?}", ended.exit_code(), ended.error, ended.report));
    }
    play.watch.complete(false)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn passes_that_overlap_break_no_invariant_in_any_order_of_their_requests() {
    let total = Mutex::new(Tally::default());
    let play_one = |seed, tell| {
        let played = play(seed, schedule(seed, tell));
        played.told.iter().for_each(|line| println!("{line}"));
        *total.lock().expect("no case panics with the lock") += played.tally;
        played.outcome.map_err(|why| format!("seed {seed}: {why}"))
    };
    if let Some(seed) = number("SEED") {
        play_one(seed, true).expect("the schedule of this seed breaks nothing");
        println!("seed {seed}: {:#?}", total.lock());
        return;
    }
    let count = number("SCHEDULES").unwrap_or(SCHEDULES);
    let replay = |seed| format!("play it alone: SEED={seed} cargo test --test it in_any_order -- --nocapture");
    each(count, |seed| play_one(seed, false), replay);
    let total = total.into_inner().expect("no case panics with the lock");
    println!("{total:#?}");
    let Tally { schedules, killed, cut, late, slowed, slept, refused, multipart, .. } = total;
    assert_eq!(schedules, count);
    let least = [killed, cut, late, slowed, refused, multipart].into_iter().min();
    assert!(least >= Some(count / 10), "something hardly ever happens: {total:#?}");
    assert!(slept > 0 || count < 1_000, "no pass ever slept: {total:#?}");
}

#[test]
fn a_seed_replays_request_for_request() {
    for seed in 0..40 {
        let (first, second) = (play(seed, schedule(seed, true)), play(seed, schedule(seed, true)));
        for (one, other) in first.told.iter().zip(&second.told) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert!(first.requests == second.requests, "seed {seed}: the same turns made other requests");
        assert_eq!(first.tally, second.tally, "seed {seed}");
    }
}
