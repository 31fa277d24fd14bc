//! What becomes of single sources: left out whole, replaced, not deleted; no more and no less.

use std::time::Duration;

use testbed::{FaultKind, Moment, Operation, Settings, When};
use tokio::sync::watch;

use crate::bench::{Bench, LOGS, OUT, done};

const MIB: usize = 1 << 20;
const LARGE: &str = "logs/2026-01-31-10-00-15-L";
const KEEP: (&str, &str) = ("ROLLUP_KEEP", "true");

/// Small sources, one a second.
pub(crate) fn small(bench: &mut Bench, seconds: std::ops::Range<u32>) {
    for second in seconds {
        bench.log(&format!("logs/2026-01-31-10-00-{second:02}-A"), &format!("line {second}\n"));
    }
}

/// A source of three pieces of 1 MiB, in lines of 64 bytes.
fn large(bench: &mut Bench) {
    let lines: Vec<String> = (0..3 * MIB / 64).map(|number| format!("{number:063}\n")).collect();
    bench.log(LARGE, &lines.concat());
}

fn reads(key: &str) -> When {
    When::operation(Operation::GetObject).bucket(LOGS).key(key)
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_first_piece_is_refused_is_left_out_whole() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    large(&mut bench);
    bench.bed.fault(reads(LARGE), FaultKind::Status(403, "AccessDenied"));
    let ended = bench.pass(&[]).await;
    assert_eq!(ended.exit_code(), 1);
    assert_eq!(ended.report.left["unreadable"].examples, [LARGE]);
    assert_eq!(bench.text("2026-01-31").lines().count(), 10);
    bench.once();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn throttling_that_outlasts_the_retries_ends_the_batch_and_leaves_no_source_out() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    bench.bed.fault(reads("logs/2026-01-31-10-00-13-A").always(), FaultKind::Status(503, "SlowDown"));
    let ended = bench.pass(&[]).await;
    assert_eq!((ended.exit_code(), ended.report.rollups.failed), (1, 1));
    assert!(!ended.report.left.contains_key("unreadable"));
    assert_eq!((bench.rollups().len(), bench.bed.keys(LOGS).len()), (0, 10));
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_source_replaced_between_its_read_and_its_delete_stays_for_the_next_pass() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    let key = "logs/2026-01-31-10-00-15-A";
    let gate = bench.bed.pause(When::operation(Operation::DeleteObjects), Moment::Before);
    let replace = async {
        gate.reached().await;
        bench.bed.put(LOGS, key, "another line\n");
        gate.release();
    };
    let (ended, ()) = tokio::join!(bench.pass(&[]), replace);
    done(&ended);
    assert_eq!(bench.bed.keys(LOGS), [key]);
    assert_eq!(bench.bed.keys_under(OUT, "rollup/_"), [""; 0]);
    done(&bench.pass(&[]).await);
    assert!(bench.text("2026-01-31").ends_with("line 19\nanother line\n"));
    assert!(bench.text("2026-01-31").contains("line 15\n"));
    assert_eq!(bench.bed.keys(LOGS), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn of_many_sources_exactly_those_that_could_not_be_deleted_are_named_and_remembered() {
    let mut bench = Bench::new();
    for second in 0..600 {
        let at = format!("10-{:02}-{:02}", second / 60, second % 60);
        bench.log(&format!("logs/2026-01-31-{at}-A"), &format!("line {second}\n"));
    }
    let key = "logs/2026-01-31-10-09-10-A";
    let deletes = When::operation(Operation::DeleteObjects).key(key).always();
    bench.bed.fault(deletes, FaultKind::KeyError("InternalError"));
    let ended = bench.pass(&[]).await;
    assert_eq!(ended.exit_code(), 1);
    assert_eq!(ended.report.left["rolled up but not deleted"].examples, [key]);
    assert_eq!(bench.bed.keys(LOGS), [key]);
    bench.bed.clear_faults();
    let again = bench.pass(&[]).await;
    done(&again);
    assert_eq!(again.report.rolled_up.objects, 0);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_a_delete_passes_over_in_silence_is_not_taken_for_gone() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    let key = "logs/2026-01-31-10-00-15-A";
    bench.bed.fault(When::operation(Operation::DeleteObjects).key(key).always(), FaultKind::KeyUnnamed);
    let ended = bench.pass(&[]).await;
    assert_eq!(ended.exit_code(), 1);
    assert_eq!(ended.report.left["rolled up but not deleted"].examples, [key]);
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_source_of_which_nobody_can_say_what_it_is_now_is_remembered() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    let key = "logs/2026-01-31-10-00-15-A";
    let deletes = When::operation(Operation::DeleteObjects).key(key).always();
    bench.bed.fault(deletes, FaultKind::KeyError("PreconditionFailed"));
    bench.bed.fault(When::operation(Operation::HeadObject).key(key).always(), FaultKind::Status(500, "InternalError"));
    let ended = bench.pass(&[]).await;
    assert_eq!(ended.exit_code(), 1);
    assert_eq!(ended.report.left["rolled up but not deleted"].examples, [key]);
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn with_keep_even_empty_sources_stay() {
    let mut bench = Bench::new();
    small(&mut bench, 10..12);
    bench.log("logs/2026-01-31-10-00-13-A", "");
    done(&bench.pass(&[KEEP]).await);
    assert_eq!(bench.bed.keys(LOGS).len(), 3);
    done(&bench.pass(&[]).await);
    assert_eq!(bench.bed.keys(LOGS), [""; 0]);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn what_another_source_prefix_left_in_a_shared_rollup_is_carried_until_its_own_run() {
    let mut bench = Bench::new();
    let from = |prefix: &'static str| [("ROLLUP_SOURCE", prefix)];
    let (one, other) = (from("s3://acme-logs/logs/one/"), from("s3://acme-logs/logs/other/"));
    bench.log("logs/one/2026-01-31-10-00-00-A", "one\n");
    bench.log("logs/other/2026-01-31-10-00-00-A", "other\n");
    let deletes = When::operation(Operation::DeleteObjects).always();
    bench.bed.fault(deletes, FaultKind::KeyError("InternalError"));
    assert_eq!(bench.pass(&one).await.exit_code(), 1);
    bench.bed.clear_faults();
    done(&bench.pass(&other).await);
    assert_eq!(bench.bed.keys(LOGS), ["logs/one/2026-01-31-10-00-00-A"]);
    let ended = bench.pass(&one).await;
    done(&ended);
    assert_eq!((ended.report.rolled_up.objects, ended.report.deleted), (0, 1));
    assert_eq!(bench.text("2026-01-31"), "one\nother\n");
    assert_eq!(bench.bed.keys(LOGS), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_its_manifest_nothing_is_committed() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    let puts = When::operation(Operation::PutObject).key_prefix("rollup/_manifests/2026");
    bench.bed.fault(puts.always(), FaultKind::Status(503, "SlowDown"));
    let ended = bench.pass(&[]).await;
    assert_eq!((ended.exit_code(), ended.report.rollups.failed), (1, 1));
    assert_eq!((bench.rollups().len(), bench.bed.keys(LOGS).len()), (0, 10));
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_rollup_that_changes_under_every_attempt_fails_and_says_so() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    let commits = When::operation(Operation::PutObject).key("rollup/2026-01-31");
    bench.bed.fault(commits.always(), FaultKind::Status(412, "PreconditionFailed"));
    let ended = bench.pass(&[]).await;
    assert_eq!((ended.exit_code(), ended.report.rollups.failed), (1, 1));
    assert!(ended.report.failures[0].why.contains("at every attempt"), "{:?}", ended.report.failures);
    assert!(bench.bed.count(Operation::PutObject) < 50);
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_missing_rollup_is_missing_though_a_longer_key_begins_with_its_name() {
    let mut bench = Bench::new();
    small(&mut bench, 10..20);
    bench.bed.put(OUT, "rollup/2026-01-31-notes", "not a rollup\n");
    bench.bed.hide_missing(OUT);
    done(&bench.pass(&[]).await);
    assert_eq!(bench.text("2026-01-31").lines().count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_pass_stopped_while_it_begins_an_upload_leaves_none_behind() {
    for moment in [Moment::Before, Moment::Applied] {
        let mut bench = Bench::new();
        for second in 10..22 {
            bench.log(&format!("logs/2026-01-31-10-00-{second}-A"), &format!("{}\n", "x".repeat(MIB)));
        }
        let (stop, stopped) = watch::channel(false);
        let begun = When::operation(Operation::CreateMultipartUpload).key("rollup/2026-01-31");
        let gate = bench.bed.pause(begun, moment);
        let stopping = async {
            gate.reached().await;
            stop.send_replace(true);
            tokio::time::sleep(Duration::from_secs(1)).await;
            gate.release();
        };
        let (ended, ()) = tokio::join!(bench.pass_until(&[], stopped), stopping);
        assert_eq!(ended.exit_code(), 143);
        assert_eq!(bench.bed.uploads(OUT), []);
        done(&bench.pass(&[]).await);
        bench.balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_asked_for_than_the_buffer_holds() {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    bench.log(LARGE, &format!("{}\n", "x".repeat(40 * MIB)));
    let gate = bench.bed.pause(reads(LARGE).always(), Moment::Before);
    let counting = async {
        gate.reached().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let asked = gate.arrivals();
        gate.release();
        asked
    };
    let settings = [("ROLLUP_BUFFER", "8MiB"), ("ROLLUP_CONCURRENCY", "64")];
    let (ended, asked) = tokio::join!(bench.pass(&settings), counting);
    done(&ended);
    assert!((1..=8).contains(&asked), "{asked} pieces of 1 MiB were asked for at once");
    bench.balanced();
}
