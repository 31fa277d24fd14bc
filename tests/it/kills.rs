//! A pass that is killed at every request it sends, before it is applied, before its answer and after its answer; and
//! every pair of such kills. What is left is taken up by the next pass.

use std::sync::atomic::{AtomicU64, Ordering};

use testbed::{Moment, Operation, Recorded, Settings, Turn};

use crate::bench::{Bench, LOGS, OUT, done};
use crate::invariants::{Log, Watch};
use crate::passes::{Passes, each, play};

const MIB: usize = 1 << 20;
/// Of all pairs of kills, one in so many is tried where not all are asked for.
const SLICE: u64 = 8;

type Setting = (&'static str, &'static str);

/// The settings of the pairs.
const SMALL: [Setting; 1] = [("ROLLUP_BATCH_OBJECTS", "1")];

/// When a pass dies, seen from one of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Before,
    Applied,
    Answered,
}

const MOMENTS: [At; 3] = [At::Before, At::Applied, At::Answered];

/// Dies at the request that is applied as the n-th, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kill {
    request: usize,
    at: At,
}

impl Kill {
    /// All kills of a run, in order.
    fn number(number: u64) -> Self {
        let number = usize::try_from(number).expect("few enough");
        Self { request: number / MOMENTS.len() + 1, at: MOMENTS[number % MOMENTS.len()] }
    }
}

/// A run of one pass, turn by turn.
struct Run {
    /// In the order in which they were applied.
    requests: Vec<Recorded>,
    killed: bool,
}

/// What arrives when so many requests were applied.
type Arrival = (usize, Log);

/// Runs a pass in the order of its requests, and with the batch ids, that follow from `seed`; it dies where `kill` says.
async fn run(
    bench: &Bench,
    watch: &Watch,
    settings: &[Setting],
    seed: u64,
    kill: Option<Kill>,
    arrivals: &[Arrival],
) -> Run {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut passes = Passes::default();
    let steps = bench.bed.schedule();
    let pass = passes.start(bench, settings, dice.u64(..));
    let mut requests: Vec<Recorded> = Vec::new();
    let (mut arrived, mut answered) = (0, 0);
    loop {
        tokio::select! {
            biased;
            Some((_, ended)) = passes.ended() => {
                if let Some(ended) = &ended {
                    done(ended);
                }
                // After its last answer a pass may end before it can be killed.
                let last = kill == Some(Kill { request: answered, at: At::Answered });
                arrivals[arrived..].iter().for_each(|(_, log)| watch.put(log));
                return Run { requests, killed: ended.is_none() || last };
            }
            () = steps.settled() => {}
        }
        if let Some((_, log)) = arrivals.get(arrived).filter(|(at, _)| *at <= requests.len()) {
            arrived += 1;
            watch.put(log);
        }
        let dies = |at, request| kill == Some(Kill { request, at });
        if dies(At::Answered, answered) || dies(At::Applied, requests.len()) {
            passes.kill(pass);
            continue;
        }
        let waiting = steps.waiting();
        let place = dice.usize(..waiting.len());
        let chosen = &waiting[place].request;
        if waiting[place].moment == Moment::Before {
            if dies(At::Before, requests.len() + 1) {
                passes.kill(pass);
                continue;
            }
            requests.push(chosen.clone());
        } else {
            answered = 1 + requests.iter().position(|request| request.seq == chosen.seq).expect("it was applied");
        }
        steps.turn(place, Turn::Go);
    }
}

/// The same requests were made up to the kill: otherwise a kill point would be missed or tried twice.
fn replayed(run: &Run, whole: &Run, kill: Kill) -> Result<(), String> {
    let same = run.requests.iter().zip(&whole.requests).all(|(one, other)| {
        (one.operation, &one.key, &one.keys, &one.prefix) == (other.operation, &other.key, &other.keys, &other.prefix)
    });
    let reached = kill.request - usize::from(kill.at == At::Before);
    match (run.killed, same && run.requests.len() >= reached) {
        (true, true) => Ok(()),
        (killed, _) => Err(format!("{kill:?} did not replay: killed {killed}, {} requests", run.requests.len())),
    }
}

fn log(key: &str, padding: usize) -> Log {
    Log { key: format!("logs/{key}"), lines: 1, padding, newline: true }
}

fn bench() -> (Bench, Watch) {
    let bench = Bench::with(Settings { check_signatures: false, ..Settings::default() });
    bench.bed.set_now("2026-02-01T00:00:00Z".parse().expect("a time"));
    let watch = Watch::new(&bench.bed);
    (bench, watch)
}

/// A kill somewhere, the next pass, and with KEEP one without.
async fn killed_once(base: &Bench, known: &Watch, keep: bool, whole: &Run, kill: Kill) -> Result<(), String> {
    let bench = base.copy();
    let watch = known.fork(&bench.bed);
    let settings = settings(keep);
    let run = run(&bench, &watch, &settings, 1, Some(kill), &arrivals()).await;
    replayed(&run, whole, kill)?;
    watch.holds()?;
    done(&bench.pass(&settings).await);
    watch.complete(keep)?;
    watch.no_uploads()?;
    if keep {
        bench.ledger.check_testbed_kept(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/")).map_err(|it| it.to_string())?;
        done(&bench.pass(&[]).await);
        watch.complete(false)?;
    }
    let balance = bench.ledger.check_testbed(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/"));
    balance.map(drop).map_err(|imbalance| imbalance.to_string())
}

fn settings(keep: bool) -> [Setting; 2] {
    [("ROLLUP_KEEP", if keep { "true" } else { "false" }), ("ROLLUP_BATCH_OBJECTS", "2")]
}

/// Late logs: one while the pass looks at what is there, one when it is at work.
fn arrivals() -> Vec<Arrival> {
    vec![(1, log("2026-01-31-08-00-00-L", 5)), (40, log("web/2026-01-31-08-00-00-L", 5))]
}

/// A rollup that grows over 5 MiB and is copied from then on, one that stays below, one that is created; in one of them
/// kept sources of an earlier pass.
async fn scenario(bench: &mut Bench, watch: &Watch, keep: bool) {
    let before = [log("2026-01-31-10-00-00-A", 4 * MIB), log("web/2026-01-31-10-00-00-A", 9)];
    let after = [
        log("2026-01-31-11-00-00-B", MIB),
        log("2026-01-31-12-00-00-C", 3),
        log("2026-01-31-13-00-00-D", 3),
        log("2026-01-31-14-00-00-E", 3),
        log("web/2026-01-31-11-00-00-B", 9),
        log("api/2026-01-31-11-00-00-B", 9),
        Log { lines: 0, ..log("api/2026-01-31-12-00-00-C", 0) },
    ];
    let late = arrivals().into_iter().map(|(_, log)| log);
    for log in before.iter().chain(&after).cloned().chain(late) {
        bench.ledger.put(LOGS, &log.key, &log.body().into());
    }
    for log in &before {
        watch.put(log);
    }
    done(&bench.pass(&settings(keep)).await);
    for log in &after {
        watch.put(log);
    }
}

fn has(run: &Run, operation: Operation, key: &str) -> bool {
    run.requests.iter().any(|r| r.operation == operation && r.key.as_deref().is_none_or(|k| k == key))
}

#[test]
fn a_pass_killed_at_any_request_is_taken_up_by_the_next() {
    for keep in [false, true] {
        let (mut base, known) = bench();
        let whole = play(0, async {
            scenario(&mut base, &known, keep).await;
            let bench = base.copy();
            let watch = known.fork(&bench.bed);
            run(&bench, &watch, &settings(keep), 1, None, &arrivals()).await
        });
        assert!(has(&whole, Operation::UploadPartCopy, "rollup/2026-01-31"), "an append above 5 MiB");
        assert!(has(&whole, Operation::UploadPart, "rollup/2026-01-31"), "an append that grows over 5 MiB");
        assert!(has(&whole, Operation::PutObject, "rollup/web/2026-01-31"), "an append below 5 MiB");
        assert!(has(&whole, Operation::PutObject, "rollup/api/2026-01-31"), "a new rollup");
        assert_eq!(has(&whole, Operation::DeleteObjects, ""), !keep, "deletes");
        let requests = whole.requests.len() as u64;
        assert!(requests >= 55, "the scenario has only {requests} requests");
        let kills = AtomicU64::new(0);
        let case = |number| {
            let kill = Kill::number(number);
            let outcome = play(number, killed_once(&base, &known, keep, &whole, kill));
            kills.fetch_add(1, Ordering::Relaxed);
            outcome.map_err(|why| format!("KEEP {keep}, {kill:?}, {}: {why}", told(&whole, kill)))
        };
        each(3 * requests, case, |number| format!("kill {number} of {}", 3 * requests));
        println!("KEEP {keep}: {} kills at {requests} requests", kills.load(Ordering::Relaxed));
        assert_eq!(kills.into_inner(), 3 * requests);
    }
}

/// The request that a kill is about.
fn told(run: &Run, kill: Kill) -> String {
    let request = run.requests.get(kill.request - 1);
    request.map_or_else(String::new, |r| format!("{:?} {}", r.operation, r.key.as_deref().unwrap_or_default()))
}

/// Two logs for a rollup that is there, each in a batch of its own.
async fn small(bench: &mut Bench, watch: &Watch) {
    let logs = ["09", "10", "11"].map(|hour| log(&format!("2026-01-31-{hour}-00-00-A"), 5));
    for log in &logs {
        bench.ledger.put(LOGS, &log.key, &log.body().into());
    }
    watch.put(&logs[0]);
    done(&bench.pass(&[]).await);
    logs[1..].iter().for_each(|log| watch.put(log));
}

/// Every second kill after one first kill, or one in `slice` of them; how many there were.
async fn killed_twice(base: &Bench, known: &Watch, whole: &Run, first: Kill, slice: u64) -> Result<u64, String> {
    let once = base.copy();
    let watch = known.fork(&once.bed);
    replayed(&run(&once, &watch, &SMALL, 1, Some(first), &[]).await, whole, first)?;
    watch.holds()?;
    let second_whole = {
        let bench = once.copy();
        run(&bench, &watch.fork(&bench.bed), &SMALL, 2, None, &[]).await
    };
    let mut kills = 0;
    let offset = u64::try_from(first.request).expect("few enough");
    for number in (0..3 * second_whole.requests.len() as u64).filter(|number| (number + offset) % slice == 0) {
        let second = Kill::number(number);
        let say = |why: String| format!("then {second:?}, {}: {why}", told(&second_whole, second));
        let twice = once.copy();
        let watch = watch.fork(&twice.bed);
        replayed(&run(&twice, &watch, &SMALL, 2, Some(second), &[]).await, &second_whole, second).map_err(say)?;
        watch.holds().map_err(say)?;
        done(&twice.pass(&[]).await);
        watch.complete(false).and_then(|()| watch.no_uploads()).map_err(say)?;
        let balance = twice.ledger.check_testbed(&twice.bed, (OUT, "rollup/"), (LOGS, "logs/"));
        balance.map_err(|imbalance| say(imbalance.to_string()))?;
        kills += 1;
    }
    Ok(kills)
}

fn pairs(slice: u64) {
    let (mut base, known) = bench();
    let whole = play(0, async {
        small(&mut base, &known).await;
        let bench = base.copy();
        run(&bench, &known.fork(&bench.bed), &SMALL, 1, None, &[]).await
    });
    let requests = whole.requests.len() as u64;
    assert!(requests >= 30, "the scenario has only {requests} requests");
    let (firsts, kills) = (AtomicU64::new(0), AtomicU64::new(0));
    let case = |number| {
        let first = Kill::number(number);
        let outcome = play(number, killed_twice(&base, &known, &whole, first, slice));
        firsts.fetch_add(1, Ordering::Relaxed);
        kills.fetch_add(*outcome.as_ref().unwrap_or(&0), Ordering::Relaxed);
        outcome.map(drop).map_err(|why| format!("{first:?}, {}, {why}", told(&whole, first)))
    };
    each(3 * requests, case, |number| format!("first kill {number} of {}", 3 * requests));
    let (firsts, kills) = (firsts.into_inner(), kills.into_inner());
    println!("{kills} pairs of kills, one in {slice}, after {firsts} first kills at {requests} requests");
    assert_eq!(firsts, 3 * requests);
    // Another pass has at least its two listings to be killed at, and most have as many requests as the first.
    assert!(kills * slice >= firsts * 2 * requests, "only {kills} pairs");
}

#[test]
fn a_pass_killed_twice_is_taken_up_by_the_next() {
    pairs(SLICE);
}

#[test]
#[ignore = "all of them take minutes: cargo test --release --test it every_pair -- --ignored --nocapture"]
fn every_pair_of_kills_is_taken_up_by_the_next_pass() {
    pairs(1);
}
