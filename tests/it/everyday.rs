//! What every user does.

use testbed::Spec;

use crate::bench::{Bench, LOGS, done};

#[tokio::test(start_paused = true)]
async fn a_pass_joins_the_objects_of_each_group_and_day_and_deletes_them() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), groups: 3, days: 4, objects: 300, empty: 3, ..Spec::default() });
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(bench.rollups().len(), 12);
    assert!(bench.bed.keys(LOGS).is_empty());
    assert_eq!(ended.report.rollups.created, 12);
    assert_eq!(ended.report.rolled_up.objects, 300);
    assert_eq!(ended.report.deleted, 303);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn late_logs_are_appended_to_their_rollup() {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", "first\n");
    done(&bench.pass(&[]).await);
    bench.log("logs/2026-01-31-09-00-00-B", "late, without a newline");
    bench.log("logs/2026-01-31-11-00-00-C", "later\n");
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(bench.text("2026-01-31"), "first\nlate, without a newline\nlater\n");
    assert_eq!((ended.report.rollups.created, ended.report.rollups.appended), (0, 1));
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn nothing_to_do_is_a_success_that_asks_two_requests() {
    let bench = Bench::new();
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(bench.bed.requests().len(), 2);
    assert_eq!(ended.report.summary(), "Nothing to do: 0 objects found, none to roll up.");
}
