//! Time that jumps or stands still: clocks set forward and back, a pass that sleeps for an hour between two requests, and
//! lifecycle rules that expire objects while it sleeps or between passes.

use std::pin::pin;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rstest::rstest;
use s3_log_rollup::pass::Ended;
use s3_log_rollup::report::Ending;
use testbed::{Moment, When};

use crate::bench::{Bench, LOGS, OUT, done};
use crate::stage::{LARGE, ONLY_ROLLED_UP, PENDING, SMALL, old_bytes, stage};

const BATCHES: (&str, &str) = ("ROLLUP_BATCH_OBJECTS", "2");
const KEEP: (&str, &str) = ("ROLLUP_KEEP", "true");
const HOUR: Duration = Duration::from_hours(1);

/// Logs that are delivered while a pass sleeps.
const LATE: [(&str, &str); 4] = [
    ("logs/new/2026-01-31-12-00-00-A", "new, later\n"),
    ("logs/pending/2026-01-31-12-00-00-A", "pending, later\n"),
    ("logs/large/2026-01-31-12-00-00-A", "large, later\n"),
    ("logs/another/2026-02-01-12-00-00-A", "another\n"),
];

/// How many requests a pass over the stage sends.
async fn requests(staged: &Bench, settings: &[(&str, &str)]) -> u64 {
    let bench = staged.copy();
    done(&bench.pass(settings).await);
    bench.bed.requests().len() as u64
}

/// One pass that does nothing at all from its `at`-th request on, counted from 0, until `meanwhile` is over. The second
/// says whether it came so far.
async fn asleep(
    bench: &Bench,
    settings: &[(&str, &str)],
    (at, moment): (u64, Moment),
    meanwhile: impl AsyncFnOnce(),
) -> (Ended, bool) {
    let gate = bench.bed.pause(When::any().skip(at), moment);
    let mut pass = pin!(bench.pass(settings));
    tokio::select! {
        biased;
        () = gate.reached() => {}
        ended = &mut pass => return (ended, false),
    }
    // Nobody polls the pass: that is how a process sleeps.
    meanwhile().await;
    gate.release();
    (pass.await, true)
}

#[rstest]
#[case::before_it_is_applied(Moment::Before)]
#[case::after_it_was_applied(Moment::Applied)]
#[tokio::test(start_paused = true)]
async fn a_pass_that_sleeps_an_hour_at_any_request_while_another_does_the_work_loses_and_doubles_nothing(
    #[case] moment: Moment,
) {
    let mut staged = stage().await;
    let requests = requests(&staged, &[BATCHES]).await;
    for (key, body) in LATE {
        staged.ledger.put(LOGS, key, &body.into());
    }
    let mut slept = 0;
    for at in 0..requests {
        let bench = staged.copy();
        let meanwhile = async || {
            for (key, body) in LATE {
                bench.bed.put(LOGS, key, body);
            }
            tokio::time::sleep(HOUR).await;
            done(&bench.pass(&[BATCHES]).await);
            bench.once();
        };
        let (ended, reached) = asleep(&bench, &[BATCHES], (at, moment), meanwhile).await;
        slept += u64::from(reached);
        assert!(
            ended.error.is_none() && ended.exit_code() == 0,
            "at request {at}: {:?} {:#?}",
            ended.error,
            ended.report
        );
        bench.once();
        done(&bench.pass(&[BATCHES]).await);
        assert!(bench.bed.keys(LOGS).is_empty(), "at request {at}: {:?}", bench.bed.keys(LOGS));
        bench.balanced();
    }
    println!("slept at {slept} of {requests} requests, {moment:?}");
    assert!(slept + 2 >= requests, "slept at {slept} of {requests} requests");
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_sleeps_over_its_time_limit_at_any_request_ends_well() {
    let staged = stage().await;
    let settings = [BATCHES, ("ROLLUP_TIME_LIMIT", "50m")];
    let requests = requests(&staged, &settings).await;
    let mut limited = 0;
    for at in 0..requests {
        let bench = staged.copy();
        let (ended, _) = asleep(&bench, &settings, (at, Moment::Before), async || tokio::time::sleep(HOUR).await).await;
        assert!(
            ended.error.is_none() && ended.exit_code() == 0,
            "at request {at}: {:?} {:#?}",
            ended.error,
            ended.report
        );
        limited += u64::from(ended.report.ending == Ending::TimeLimit);
        assert!(bench.bed.uploads(OUT).is_empty(), "at request {at}: {:?}", bench.bed.uploads(OUT));
        done(&bench.pass(&[BATCHES]).await);
        assert!(bench.bed.keys(LOGS).is_empty(), "at request {at}: {:?}", bench.bed.keys(LOGS));
        bench.balanced();
    }
    println!("{limited} of {requests} passes ended at their limit");
    assert!(limited > requests / 2);
}

/// Before any request: before a source is read, between reading and commit, before its delete.
#[rstest]
#[case::every_source(&[BATCHES], |_| true)]
#[case::every_other_source(&[BATCHES], |at| at % 2 == 0)]
#[case::every_source_of_a_pass_that_keeps(&[BATCHES, KEEP], |_| true)]
#[case::every_other_source_of_a_pass_that_keeps(&[BATCHES, KEEP], |at| at % 2 == 1)]
#[tokio::test(start_paused = true)]
async fn sources_that_a_lifecycle_rule_expires_before_any_request_are_in_one_rollup_or_in_none(
    #[case] settings: &[(&str, &str)],
    #[case] expires: fn(usize) -> bool,
) {
    let staged = stage().await;
    let requests = requests(&staged, settings).await;
    for at in 0..requests {
        let mut bench = staged.copy();
        let bed = bench.bed.clone();
        let mut expired = Vec::new();
        let expire = async || {
            for (_, key) in bed.keys(LOGS).into_iter().enumerate().filter(|(number, _)| expires(*number)) {
                expired.extend(bed.object(LOGS, &key).map(|object| object.bytes()));
                bed.remove(LOGS, &key);
            }
        };
        let (ended, _) = asleep(&bench, settings, (at, Moment::Before), expire).await;
        assert!(
            ended.error.is_none() && ended.exit_code() == 0,
            "at request {at}: {:?} {:#?}",
            ended.error,
            ended.report
        );
        for body in &expired {
            bench.ledger.expire(body);
        }
        done(&bench.pass(&[BATCHES]).await);
        assert!(bench.bed.keys(LOGS).is_empty(), "at request {at}: {:?}", bench.bed.keys(LOGS));
        bench.balanced();
    }
}

/// Between passes, as the assumptions allow it. What is in no rollup any more because of that, but still in a source that
/// had not been deleted, is rolled up once more.
#[rstest]
#[case::a_settled_one(&[SMALL])]
#[case::another_tools(&[LARGE])]
#[case::one_whose_sources_are_still_there(&[PENDING])]
#[case::all(&[SMALL, LARGE, PENDING])]
#[tokio::test(start_paused = true)]
async fn rollups_that_a_lifecycle_rule_expires_between_passes_take_no_source_with_them(#[case] rollups: &[&str]) {
    for keep in [false, true] {
        let mut bench = stage().await;
        if keep {
            done(&bench.pass(&[BATCHES, KEEP]).await);
        }
        for rollup in rollups {
            bench.bed.remove(OUT, rollup);
            let lines = ONLY_ROLLED_UP.iter().filter(|(key, _)| key == rollup);
            for (_, body) in lines {
                bench.ledger.expire(&(*body).into());
            }
            if *rollup == LARGE {
                bench.ledger.expire(&old_bytes().into());
            }
        }
        let ended = bench.pass(&[BATCHES]).await;
        done(&ended);
        assert!(bench.bed.keys(LOGS).is_empty(), "{:?}", bench.bed.keys(LOGS));
        bench.balanced();
    }
}

/// The log of one day in a season of jumps.
struct Day {
    key: String,
    /// From when on its period is settled.
    settled: DateTime<Utc>,
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_and_forth_around_settle_decides_only_when_a_log_is_rolled_up() {
    for seed in 0..40 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let start: DateTime<Utc> = "2026-02-01T00:00:00Z".parse().expect("a time");
        let mut days: Vec<Day> = Vec::new();
        for round in 0..8 {
            // LastModified follows the jumping clock, or has nothing to do with it.
            let jump = TimeDelta::seconds(dice.i64(-3 * 86_400..=3 * 86_400));
            let edge = TimeDelta::days(dice.i64(-2..=2)) + TimeDelta::hours(6) - TimeDelta::seconds(dice.i64(0..=1));
            let now = start + if dice.bool() { jump } else { edge };
            bench.bed.set_now(if dice.bool() { now } else { start - TimeDelta::days(20_000) });
            for late in 0..3 {
                let day = start + TimeDelta::days(dice.i64(-4..=2));
                let key = format!("logs/{}-10-{late:02}-00-{round}", day.format("%Y-%m-%d"));
                bench.log(&key, &format!("seed {seed}, round {round}, {late}\n"));
                days.push(Day { key, settled: day + TimeDelta::days(1) + TimeDelta::hours(6) });
            }
            bench.bed.set_now(now);
            done(&bench.pass(&[("ROLLUP_SETTLE", "6h")]).await);
            days.retain(|day| day.settled > now);
            let mut left: Vec<_> = days.iter().map(|day| day.key.clone()).collect();
            left.sort();
            assert_eq!(bench.bed.keys(LOGS), left, "seed {seed}, round {round}, {now}");
            bench.balanced();
        }
        done(&bench.pass(&[]).await);
        assert!(bench.bed.keys(LOGS).is_empty(), "seed {seed}");
        bench.balanced();
    }
}
