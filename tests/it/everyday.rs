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

#[tokio::test(start_paused = true)]
async fn since_and_until_jump_over_what_they_leave_out_and_roll_up_the_rest() {
    let mut bench = Bench::new();
    let spec = Spec { prefix: String::from("logs/"), days: 20, objects: 8000, ..Spec::default() };
    bench.fill(&spec);
    let window = [("ROLLUP_SINCE", "2026-02-10"), ("ROLLUP_UNTIL", "2026-02-12")];
    let ended = bench.pass(&window).await;
    done(&ended);
    assert_eq!(bench.rollups(), ["web/2026-02-10", "web/2026-02-11"]);
    let pages = bench.bed.requests().iter().filter(|r| r.prefix.as_deref() == Some("logs/")).count();
    assert!(pages <= 4, "{pages} pages were listed, all of them are 8");
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn settle_leaves_periods_that_have_not_ended_long_enough_ago() {
    let mut bench = Bench::new();
    bench.bed.set_now("2026-02-02T05:00:00Z".parse().expect("a time"));
    for day in ["01-30", "01-31", "02-01", "02-02"] {
        bench.log(&format!("logs/2026-{day}-10-00-00-A"), "line\n");
    }
    let ended = bench.pass(&[("ROLLUP_SETTLE", "6h")]).await;
    done(&ended);
    assert_eq!(bench.rollups(), ["2026-01-30", "2026-01-31"]);
    assert_eq!(ended.report.left["of a period that is not settled yet"].count.objects, 2);
    bench.once();
}

#[tokio::test(start_paused = true)]
async fn each_level_and_a_template_name_the_rollups_as_documented() {
    for (level, template, name) in [
        ("month", "{group}/{period}", "web/2026-01"),
        ("day", "{group}/{period}", "web/2026-01-31"),
        ("hour", "{group}/{period}", "web/2026-01-31-17"),
        ("10min", "{group}/{period}", "web/2026-01-31-17-20"),
        ("day", "{group}/year={year}/month={month}/day={day}/{period}", "web/year=2026/month=01/day=31/2026-01-31"),
    ] {
        let mut bench = Bench::new();
        bench.log("logs/web/2026-01-31-17-29-59-A", "line\n");
        done(&bench.pass(&[("ROLLUP_LEVEL", level), ("ROLLUP_KEY_TEMPLATE", template)]).await);
        assert_eq!(bench.rollups(), [name]);
        bench.balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn partitioned_keys_are_joined_over_their_date_folders() {
    for format in [testbed::Format::DeliveryTime, testbed::Format::EventTime] {
        let mut bench = Bench::new();
        let spec = Spec { prefix: String::from("logs/"), groups: 2, days: 3, objects: 60, format, ..Spec::default() };
        bench.fill(&spec);
        done(&bench.pass(&[("ROLLUP_LEVEL", "month")]).await);
        assert_eq!(bench.rollups().len(), 4, "two groups, two months: {:?}", bench.rollups());
        bench.balanced();
    }
}
