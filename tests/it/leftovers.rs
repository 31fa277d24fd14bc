//! What killed passes leave beside the rollups goes, and what a live pass needs stays.

use std::future::Future;
use std::time::Duration;

use chrono::TimeDelta;
use rstest::rstest;
use s3_log_rollup::pass::Ended;
use testbed::{FaultKind, Moment, Operation, Settings, When};

use crate::bench::{Bench, LOGS, OUT, done};

const MIB: usize = 1 << 20;
const ROLLUP: &str = "rollup/2026-01-31";
const PROBES: &str = "rollup/_manifests/_probe";

/// A log object of so many bytes.
fn log(bench: &mut Bench, hour: u8, size: usize) {
    let mut body = "x".repeat(size - 1);
    body.push('\n');
    bench.log(&format!("logs/2026-01-31-{hour:02}-00-00-A"), &body);
}

/// The ids of the uploads under the rollup's key.
fn uploads(bench: &Bench) -> Vec<String> {
    let uploads = bench.bed.uploads(OUT).into_iter();
    uploads.filter(|(key, ..)| key == ROLLUP).map(|(_, id, _)| id).collect()
}

/// Runs a pass until this moment, and drops it there.
async fn killed_at(bench: &Bench, when: When, moment: Moment, settings: &[(&str, &str)]) {
    let gate = bench.bed.pause(when, moment);
    tokio::select! {
        biased;
        () = gate.reached() => {}
        _ = bench.pass(settings) => panic!("the pass ended before it was killed"),
    }
}

/// Lets a pass go on until it waits at the gate.
async fn until_reached(gate: &testbed::Gate, pass: &mut (impl Future<Output = Ended> + Unpin)) {
    tokio::select! {
        biased;
        () = gate.reached() => {}
        ended = pass => panic!("the pass ended before the gate: {ended:?}"),
    }
}

fn of_rollup(operation: Operation) -> When {
    When::operation(operation).key(ROLLUP)
}

/// Two batches that are uploads in a chain, on a rollup that is copied.
async fn scenario(bench: &mut Bench) {
    log(bench, 10, 6 * MIB);
    done(&bench.pass(&[]).await);
    log(bench, 11, 6 * MIB);
    log(bench, 12, MIB);
    bench.bed.forget_requests();
}

#[tokio::test(start_paused = true)]
async fn what_a_pass_killed_at_any_request_leaves_is_gone_after_the_next_and_probes_after_a_day() {
    let settings = [("ROLLUP_BATCH_OBJECTS", "1")];
    let mut bench = Bench::new();
    scenario(&mut bench).await;
    done(&bench.pass(&settings).await);
    let requests = bench.bed.requests().len() as u64;
    let (mut kills, mut left, mut probes) = (0, 0, 0);
    for request in 1..=requests {
        for moment in [Moment::Before, Moment::Applied] {
            let mut bench = Bench::new();
            let start = bench.bed.now();
            bench.bed.set_now(start);
            scenario(&mut bench).await;
            bench.bed.kill_at(request, moment);
            tokio::select! {
                biased;
                () = bench.bed.killed() => kills += 1,
                _ = bench.pass(&settings) => continue,
            }
            bench.bed.revive();
            left += uploads(&bench).len();
            done(&bench.pass(&settings).await);
            assert_eq!(uploads(&bench), [""; 0], "killed at request {request}, {moment:?}");
            probes += usize::from(!bench.bed.keys_under(OUT, PROBES).is_empty());
            bench.bed.set_now(start + TimeDelta::hours(25));
            done(&bench.pass(&settings).await);
            bench.balanced();
        }
    }
    println!("{kills} kills at {requests} requests left {left} uploads and {probes} probes");
    assert!(kills >= 2 * requests - 4 && left >= 10 && probes >= 10);
}

#[tokio::test(start_paused = true)]
async fn a_pass_killed_between_its_commit_and_its_aborts_leaves_the_aborts_to_the_next() {
    let mut bench = Bench::new();
    log(&mut bench, 10, 6 * MIB);
    killed_at(&bench, of_rollup(Operation::UploadPart), Moment::Applied, &[]).await;
    killed_at(&bench, of_rollup(Operation::AbortMultipartUpload), Moment::Before, &[]).await;
    assert_eq!(uploads(&bench).len(), 1);
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_ends_the_uploads_all_the_same() {
    let mut bench = Bench::new();
    log(&mut bench, 10, 6 * MIB);
    killed_at(&bench, of_rollup(Operation::UploadPart), Moment::Applied, &[]).await;
    bench.bed.fault(of_rollup(Operation::CompleteMultipartUpload), FaultKind::LostAnswer);
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[rstest]
#[case(Operation::CreateMultipartUpload, Moment::Applied)]
#[case(Operation::UploadPart, Moment::Before)]
#[case(Operation::UploadPart, Moment::Applied)]
#[case(Operation::CompleteMultipartUpload, Moment::Before)]
#[tokio::test(start_paused = true)]
async fn an_upload_of_a_live_pass_stays_until_another_has_committed_and_then_its_pass_plans_anew(
    #[case] operation: Operation,
    #[case] moment: Moment,
) {
    let mut bench = Bench::new();
    log(&mut bench, 10, 12 * MIB);
    let first = bench.bed.pause(of_rollup(operation), moment);
    let mut a = Box::pin(bench.pass(&[]));
    until_reached(&first, &mut a).await;
    let live = uploads(&bench);
    assert_eq!(live.len(), 1);
    let second = bench.bed.pause(of_rollup(Operation::CompleteMultipartUpload), Moment::Before);
    let mut b = Box::pin(bench.pass(&[]));
    until_reached(&second, &mut b).await;
    assert!(uploads(&bench).contains(&live[0]), "it was aborted while it could have been completed");
    second.release();
    done(&b.await);
    assert_eq!(uploads(&bench), [""; 0], "it stays although it can never be completed");
    first.release();
    let ended = a.await;
    done(&ended);
    assert_eq!(ended.report.rolled_up.objects, 0);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_live_upload_that_another_pass_has_seen_is_completed_when_it_comes_first() {
    let mut bench = Bench::new();
    log(&mut bench, 10, 12 * MIB);
    let first = bench.bed.pause(of_rollup(Operation::CompleteMultipartUpload), Moment::Before);
    let mut a = Box::pin(bench.pass(&[]));
    until_reached(&first, &mut a).await;
    let second = bench.bed.pause(of_rollup(Operation::CompleteMultipartUpload), Moment::Before);
    let mut b = Box::pin(bench.pass(&[]));
    until_reached(&second, &mut b).await;
    first.release();
    let ended = a.await;
    done(&ended);
    assert_eq!(ended.report.rolled_up.objects, 1);
    second.release();
    done(&b.await);
    bench.balanced();
}

/// A chain whose second batch is about to be completed while its third is being sent, and a pass beside it that has
/// listed both uploads and is about to complete its own on the same base.
#[rstest]
#[case::the_chain_goes_on(true)]
#[case::the_chain_is_broken(false)]
#[tokio::test(start_paused = true)]
async fn uploads_that_a_live_chain_reads_ahead_into_outlive_a_pass_that_does_not_commit(#[case] chain_first: bool) {
    let settings = [("ROLLUP_BATCH_OBJECTS", "1")];
    let mut bench = Bench::new();
    for hour in 10..13 {
        log(&mut bench, hour, 6 * MIB);
    }
    let first = bench.bed.pause(of_rollup(Operation::CompleteMultipartUpload).skip(1), Moment::Before);
    let mut a = Box::pin(bench.pass(&settings));
    until_reached(&first, &mut a).await;
    // The third batch is read and sent meanwhile.
    let sent = tokio::time::timeout(Duration::from_secs(5), &mut a).await;
    assert!(sent.is_err());
    let chain = uploads(&bench);
    assert_eq!(chain.len(), 2);
    let second = bench.bed.pause(of_rollup(Operation::CompleteMultipartUpload), Moment::Before);
    let mut b = Box::pin(bench.pass(&settings));
    until_reached(&second, &mut b).await;
    assert!(chain.iter().all(|id| uploads(&bench).contains(id)));
    if chain_first {
        first.release();
        let ended = a.await;
        done(&ended);
        assert_eq!(ended.report.rolled_up.objects, 3, "the chain was broken");
        second.release();
        done(&b.await);
    } else {
        second.release();
        done(&b.await);
        first.release();
        done(&a.await);
    }
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn passes_side_by_side_of_which_some_are_killed_leave_no_upload_behind_the_next_commit() {
    let mut left = 0;
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = Settings { latency: Duration::from_millis(30), jitter: Some(seed), ..Settings::default() };
        let mut bench = Bench::with(settings);
        for hour in 0..22 {
            log(&mut bench, hour, MIB);
        }
        let batches = [("ROLLUP_BATCH_OBJECTS", "6")];
        let life = |random: &mut fastrand::Rng| Duration::from_millis(random.u64(300..2500));
        let (a, b) = (life(&mut random), life(&mut random));
        let (a, b, c) = tokio::join!(
            tokio::time::timeout(a, bench.pass(&batches)),
            tokio::time::timeout(b, bench.pass(&batches)),
            bench.pass(&[]),
        );
        for ended in [a.ok(), b.ok(), Some(c)].iter().flatten() {
            assert_eq!(ended.exit_code(), 0, "seed {seed}: {:?} {:#?}", ended.error, ended.report.failures);
        }
        log(&mut bench, 22, MIB);
        let before = uploads(&bench).len();
        left += before;
        done(&bench.pass(&[]).await);
        assert_eq!(uploads(&bench), [""; 0], "seed {seed}: of {before} uploads");
        bench.bed.set_now(bench.bed.now() + TimeDelta::hours(25));
        done(&bench.pass(&[]).await);
        assert!(bench.bed.keys(LOGS).is_empty(), "seed {seed}");
        bench.balanced();
    }
    println!("{left} uploads were left and aborted");
    assert!(left > 2);
}

#[rstest]
#[case(FaultKind::Status(403, "AccessDenied"))]
#[case(FaultKind::Status(501, "NotImplemented"))]
#[case(FaultKind::Status(503, "SlowDown"))]
#[case(FaultKind::OkWithErrorBody("InternalError"))]
#[case(FaultKind::HangBefore)]
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_list_uploads_fails_nothing_and_none_is_aborted(#[case] fault: FaultKind) {
    let mut bench = Bench::new();
    log(&mut bench, 10, 6 * MIB);
    killed_at(&bench, of_rollup(Operation::UploadPart), Moment::Applied, &[]).await;
    let left = uploads(&bench);
    bench.bed.fault(When::operation(Operation::ListMultipartUploads).always(), fault);
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert!(ended.report.seconds < 30.0, "it took {} s", ended.report.seconds);
    assert_eq!(uploads(&bench), left);
    bench.once();
}

#[tokio::test(start_paused = true)]
async fn uploads_are_listed_once_a_rollup_and_pass_and_never_for_a_rollup_that_is_put_whole() {
    let mut bench = Bench::new();
    for hour in 10..14 {
        log(&mut bench, hour, 6 * MIB);
    }
    done(&bench.pass(&[("ROLLUP_BATCH_OBJECTS", "1")]).await);
    assert_eq!(bench.bed.count(Operation::ListMultipartUploads), 1);
    let mut bench = Bench::new();
    for hour in 10..14 {
        log(&mut bench, hour, MIB);
    }
    done(&bench.pass(&[("ROLLUP_BATCH_OBJECTS", "1")]).await);
    assert_eq!(bench.bed.count(Operation::ListMultipartUploads), 0);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn the_probe_of_a_live_pass_and_what_only_looks_like_one_stay() {
    let mut bench = Bench::new();
    log(&mut bench, 10, MIB);
    let probing = When::operation(Operation::CompleteMultipartUpload).key_prefix(PROBES);
    let gate = bench.bed.pause(probing, Moment::Before);
    let mut a = Box::pin(bench.pass(&[]));
    until_reached(&gate, &mut a).await;
    let strange = format!("{PROBES}-notes.txt");
    bench.bed.put_with(OUT, &strange, "mine", |object| object.last_modified -= TimeDelta::days(9));
    done(&bench.pass(&[]).await);
    gate.release();
    done(&a.await);
    assert_eq!(bench.bed.keys_under(OUT, "rollup/_"), [strange.as_str()]);
    assert_eq!(bench.bed.uploads(OUT), []);
    bench.once();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_aborts_its_uploads() {
    let mut bench = Bench::new();
    log(&mut bench, 10, MIB);
    let part = When::operation(Operation::UploadPart).key_prefix(PROBES);
    bench.bed.fault(part, FaultKind::Status(403, "AccessDenied"));
    assert_eq!(bench.pass(&[]).await.exit_code(), 3);
    assert_eq!(bench.bed.uploads(OUT), []);
    assert_eq!(bench.bed.keys(OUT), [""; 0]);
}
