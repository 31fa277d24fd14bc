//! Which batch is read first: one after the other, so that the deletes of each run under the reads of the next.

use std::pin::pin;
use std::time::Duration;

use testbed::{Moment, Operation, Settings, Spec, When};

use crate::bench::{Bench, LOGS, OUT, done};

const FEW: (&str, &str) = ("ROLLUP_CONCURRENCY", "16");

/// Three rollups, each of more log objects than may be asked for at once.
fn three_rollups() -> Bench {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 900, groups: 3, days: 1, ..Spec::default() });
    bench
}

#[tokio::test(start_paused = true)]
async fn the_first_rollup_is_written_and_its_sources_are_deleted_while_the_next_is_read() {
    let bench = three_rollups();
    done(&bench.pass(&[FEW]).await);
    let requests = bench.bed.requests();
    let deleted = requests.iter().position(|request| request.operation == Operation::DeleteObjects);
    let is_read = |request: &testbed::Recorded| {
        request.operation == Operation::GetObject && request.bucket.as_deref() == Some(LOGS)
    };
    let read_after = requests[deleted.expect("sources were deleted")..].iter().filter(|request| is_read(request));
    assert!(read_after.count() > 300, "sources were deleted when nearly all were read");
}

#[tokio::test(start_paused = true)]
async fn a_log_object_whose_answer_does_not_come_holds_up_its_own_rollup_alone() {
    let bench = three_rollups();
    let first = bench.bed.keys(LOGS).swap_remove(0);
    let gate = bench.bed.pause(When::operation(Operation::GetObject).key(&first), Moment::Before);
    let mut pass = pin!(bench.pass(&[FEW]));
    tokio::select! {
        biased;
        ended = &mut pass => panic!("the pass did not wait for {first}: {ended:?}"),
        () = tokio::time::sleep(Duration::from_secs(20)) => {}
    }
    assert_eq!(bench.bed.keys(OUT).iter().filter(|key| !key.contains("/_")).count(), 2, "the other two are written");
    assert_eq!(bench.bed.keys(LOGS).len(), 300, "and their sources deleted");
    gate.release();
    done(&pass.await);
    assert_eq!(bench.bed.keys(LOGS), [""; 0]);
}
