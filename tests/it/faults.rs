//! What goes wrong, and what a user reads of it.

use std::time::Duration;

use rstest::rstest;
use s3_log_rollup::manifest::{Scope, encode};
use s3_log_rollup::pass::Ended;
use s3_log_rollup::report::Ending;
use testbed::{BucketOptions, FaultKind, Moment, Operation, Quirks, Settings, Spec, When};
use tokio::sync::watch;

use crate::bench::{Bench, LOGS, OUT, done};
use crate::sources::small;

fn ten_logs(bench: &mut Bench) {
    small(bench, 10..20);
}

/// It ended with this exit code, and the error says all of this.
#[track_caller]
fn refused(ended: &Ended, exit_code: u8, says: &[&str]) {
    let error = ended.error.as_ref().map(ToString::to_string).unwrap_or_default();
    assert_eq!(ended.exit_code(), exit_code, "{error} {:#?}", ended.report);
    for what in says {
        assert!(error.contains(what), "{error:?} does not say {what:?}");
    }
}

#[rstest]
#[case::source(LOGS)]
#[case::destination(OUT)]
#[tokio::test(start_paused = true)]
async fn a_missing_bucket_is_named_and_ends_the_pass_with_3(#[case] missing: &str) {
    let bed = testbed::Testbed::default();
    bed.create_bucket(if missing == LOGS { OUT } else { LOGS });
    let bench = Bench { bed, ..Bench::new() };
    let ended = bench.pass(&[]).await;
    refused(&ended, 3, &["NoSuchBucket", missing, "check the bucket's name"]);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_of_another_region_is_named_with_its_region() {
    let bed = testbed::Testbed::default();
    bed.create_bucket_with(LOGS, BucketOptions { region: Some(String::from("eu-west-1")), ..BucketOptions::default() });
    bed.create_bucket(OUT);
    let bench = Bench { bed, ..Bench::new() };
    refused(&bench.pass(&[]).await, 3, &[LOGS, "eu-west-1", "AWS_REGION"]);
}

#[rstest]
#[case::list_of_sources(Operation::ListObjectsV2, LOGS, "s3:ListBucket")]
#[case::list_of_manifests(Operation::ListObjectsV2, OUT, "s3:ListBucket")]
#[case::put(Operation::PutObject, OUT, "s3:PutObject")]
#[case::delete_of_sources(Operation::DeleteObject, LOGS, "s3:DeleteObject")]
#[tokio::test(start_paused = true)]
async fn a_denied_list_write_or_delete_ends_the_pass_with_3_and_names_the_action(
    #[case] denied: Operation,
    #[case] bucket: &str,
    #[case] action: &str,
) {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.bed.deny(denied, bucket, "");
    refused(&bench.pass(&[]).await, 3, &["AccessDenied", bucket, action]);
    bench.bed.allow_again();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_may_not_be_read_is_left_and_named_and_the_others_are_done() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.bed.deny(Operation::GetObject, LOGS, "logs/2026-01-31-10-00-13-A");
    let ended = bench.pass(&[]).await;
    refused(&ended, 1, &[]);
    assert_eq!(ended.report.left["unreadable"].examples, ["logs/2026-01-31-10-00-13-A"]);
    assert_eq!(ended.report.rolled_up.objects, 9);
    bench.bed.allow_again();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_403_that_hides_a_missing_rollup_is_taken_for_missing_only_where_a_listing_says_so() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.bed.hide_missing(OUT);
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_rollup_that_may_not_be_read_is_never_taken_for_missing() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.log("logs/web/2026-01-31-10-00-00-A", "another group\n");
    bench.bed.put(OUT, "rollup/2026-01-31", "what is there already\n");
    bench.bed.deny(Operation::GetObject, OUT, "rollup/2026-01-31");
    let ended = bench.pass(&[]).await;
    refused(&ended, 1, &[]);
    assert_eq!(ended.report.rollups.failed, 1);
    assert!(ended.report.failures[0].why.contains("s3:GetObject"), "{:?}", ended.report.failures);
    assert_eq!(bench.text("2026-01-31"), "what is there already\n");
    assert_eq!(bench.text("web/2026-01-31"), "another group\n");
    assert_eq!(bench.bed.keys(LOGS).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_ends_the_pass_with_1_after_the_retries() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.bed.fault(When::any().always(), FaultKind::ResetBefore);
    refused(&bench.pass(&[]).await, 1, &["ListObjectsV2", OUT, "check the network"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_named() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.bed.fault(When::any().always(), FaultKind::Status(403, "RequestTimeTooSkewed"));
    refused(&bench.pass(&[]).await, 3, &["RequestTimeTooSkewed", "clock"]);
}

#[rstest]
#[case(FaultKind::TruncatedBody)]
#[case(FaultKind::ShortBody)]
#[case(FaultKind::LongBody)]
#[case(FaultKind::WrongChecksum)]
#[case(FaultKind::Status(500, "InternalError"))]
#[case(FaultKind::Slow(1))]
#[tokio::test(start_paused = true)]
async fn a_broken_body_is_read_again_and_a_lasting_one_is_left(#[case] kind: FaultKind) {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.log("logs/2026-01-31-10-00-30-A", &"slow ".repeat(200));
    let reads = || When::operation(Operation::GetObject).bucket(LOGS).key("logs/2026-01-31-10-00-30-A");
    bench.bed.fault(reads().always(), kind.clone());
    let ended = bench.pass(&[]).await;
    refused(&ended, 1, &[]);
    bench.once();
    bench.bed.clear_faults();
    bench.bed.fault(reads().times(3), kind);
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[rstest]
#[case(FaultKind::OkWithErrorBody("InternalError"))]
#[case(FaultKind::OkWithErrorBodyAfter("InternalError"))]
#[case(FaultKind::Status(409, "ConditionalRequestConflict"))]
#[case(FaultKind::HangAfter)]
#[case(FaultKind::HangBefore)]
#[tokio::test(start_paused = true)]
async fn a_complete_that_answers_with_an_error_or_never_is_settled_by_what_the_rollup_says(#[case] kind: FaultKind) {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", &format!("{}\n", "x".repeat(6 << 20)));
    ten_logs(&mut bench);
    bench.bed.fault(When::operation(Operation::CompleteMultipartUpload).key("rollup/2026-01-31"), kind);
    done(&bench.pass(&[("ROLLUP_BATCH_OBJECTS", "4")]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_never_advances_ends_the_pass() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 1500, ..Spec::default() });
    bench.bed.fault(When::operation(Operation::ListObjectsV2).bucket(LOGS).skip(1).always(), FaultKind::RepeatPage);
    let ended = bench.pass(&[]).await;
    assert!(ended.exit_code() <= 1, "{:?}", ended.error);
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_listed_twice_doubles_nothing() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 1500, ..Spec::default() });
    bench.bed.fault(When::operation(Operation::ListObjectsV2).bucket(LOGS), FaultKind::RepeatPage);
    let ended = bench.pass(&[("ROLLUP_BATCH_OBJECTS", "100")]).await;
    assert!(ended.error.is_none(), "{:?}", ended.error);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn what_a_listing_that_ended_early_did_not_show_is_done_by_the_next_pass() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 1500, ..Spec::default() });
    bench.bed.fault(When::operation(Operation::ListObjectsV2).bucket(LOGS), FaultKind::EndEarly);
    done(&bench.pass(&[]).await);
    assert_eq!(bench.bed.keys(LOGS).len(), 500);
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[rstest]
#[case::newer(b"{\"version\":2}".to_vec(), "version 2")]
#[case::cut(b"{\"version\":1,\"rollup\":\"2026-".to_vec(), "damaged")]
#[case::altered(b"{\"version\":1,\"rollup\":\"2026-01-31\",\"base\":null,\"merged\":[]}".to_vec(), "checksum")]
#[case::another_rollups(encode("x", None, Scope { bucket: LOGS, prefix: "logs/" }, &[], &[], &[]), "belongs to the rollup")]
#[tokio::test(start_paused = true)]
async fn a_manifest_that_cannot_be_used_fails_its_rollup_alone_and_nothing_is_deleted(
    #[case] manifest: Vec<u8>,
    #[case] says: &str,
) {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    done(&bench.pass(&[("ROLLUP_KEEP", "true")]).await);
    let key = bench.bed.keys_under(OUT, "rollup/_manifests/").remove(0);
    bench.bed.put(OUT, &key, manifest);
    bench.log("logs/2026-01-31-11-00-00-A", "late\n");
    bench.log("logs/web/2026-01-31-10-00-00-A", "another group\n");
    let ended = bench.pass(&[]).await;
    refused(&ended, 1, &[]);
    assert_eq!(ended.report.failures[0].rollup, "rollup/2026-01-31");
    assert!(ended.report.failures[0].why.contains(says), "{:?}", ended.report.failures);
    assert_eq!(bench.bed.keys(LOGS).len(), 11);
    assert_eq!(bench.text("2026-01-31").lines().count(), 10);
    assert_eq!(bench.text("web/2026-01-31"), "another group\n");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_is_refused_unless_runs_never_overlap() {
    let quirks = Quirks { ignore_write_conditions: true, ..Quirks::default() };
    let mut bench = Bench::with(Settings { quirks, ..Settings::default() });
    ten_logs(&mut bench);
    let ended = bench.pass(&[]).await;
    refused(&ended, 2, &[OUT, "If-None-Match", "ROLLUP_ASSUME_NO_OVERLAP"]);
    assert_eq!(bench.bed.keys(OUT), [""; 0]);
    assert_eq!(bench.bed.keys(LOGS).len(), 10);
    done(&bench.pass(&[("ROLLUP_ASSUME_NO_OVERLAP", "true")]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_source_replaced_between_list_and_get_is_left_for_the_next_pass() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    let key = "logs/2026-01-31-10-00-15-A";
    let gate = bench.bed.pause(When::operation(Operation::GetObject).key(key), Moment::Before);
    let replace = async {
        gate.reached().await;
        bench.bed.put(LOGS, key, "another line\n");
        gate.release();
    };
    let (ended, ()) = tokio::join!(bench.pass(&[]), replace);
    done(&ended);
    assert_eq!(ended.report.left["replaced since they were listed"].count.objects, 1);
    assert_eq!(bench.bed.keys(LOGS), [key]);
    done(&bench.pass(&[]).await);
    assert!(bench.text("2026-01-31").ends_with("another line\n"));
    assert!(!bench.text("2026-01-31").contains("line 15"));
}

#[tokio::test(start_paused = true)]
async fn archived_sources_are_left_and_named_and_nothing_fails_for_them() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        bench.bed.put_with(LOGS, &format!("logs/2026-01-31-10-00-30-{class}0").replace('_', ""), "old\n", |object| {
            object.storage_class = Some(class.to_owned());
        });
    }
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(ended.report.left["archived, to be restored first"].count.objects, 2);
    assert_eq!(bench.bed.keys(LOGS).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rollup_that_is_archived_fails_alone_and_says_what_to_do() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    bench.log("logs/web/2026-01-31-10-00-00-A", "another group\n");
    bench.bed.put_with(OUT, "rollup/2026-01-31", "old\n", |object| {
        object.storage_class = Some(String::from("DEEP_ARCHIVE"));
    });
    let ended = bench.pass(&[]).await;
    refused(&ended, 1, &[]);
    assert!(ended.report.failures[0].why.contains("restore it"), "{:?}", ended.report.failures);
    assert_eq!(bench.text("web/2026-01-31"), "another group\n");
    assert_eq!(bench.bed.keys(LOGS).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_no_log_keys_are_left_counted_and_named() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    for key in ["logs/notes.txt", "logs/2019-02-30-10-00-00-A", "logs/a b+c%/\n/x"] {
        bench.bed.put(LOGS, key, "not a log\n");
    }
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(ended.report.left["not named like a log object"].count.objects, 3);
    assert_eq!(ended.report.left["not named like a log object"].examples.len(), 3);
    assert_eq!(bench.bed.keys(LOGS).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn groups_with_strange_names_keep_them() {
    let mut bench = Bench::new();
    for group in ["a b/", "a+b/", "100%/", "new\nline/", "käse/", "(.*)[x]/", "q?u=1&x/"] {
        bench.log(&format!("logs/{group}2026-01-31-10-00-00-A"), &format!("line of {group:?}\n"));
    }
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(bench.rollups().len(), 7);
    assert_eq!(bench.text("new\nline/2026-01-31"), "line of \"new\\nline/\"\n");
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn event_time_keys_at_level_hour_end_the_pass_with_2_and_nothing_of_the_group_is_written() {
    let mut bench = Bench::new();
    let spec =
        Spec { prefix: String::from("logs/"), objects: 50, format: testbed::Format::EventTime, ..Spec::default() };
    bench.fill(&spec);
    let ended = bench.pass(&[("ROLLUP_LEVEL", "hour")]).await;
    refused(&ended, 2, &["no time of day", "ROLLUP_LEVEL"]);
    assert_eq!(bench.rollups(), [""; 0]);
    done(&bench.pass(&[("ROLLUP_LEVEL", "month")]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_sends_no_write_and_says_what_a_run_would_do() {
    let mut bench = Bench::new();
    let spec = Spec { prefix: String::from("logs/"), groups: 2, days: 3, objects: 100, empty: 2, ..Spec::default() };
    bench.fill(&spec);
    let dry = bench.pass(&[("ROLLUP_DRY_RUN", "true")]).await;
    done(&dry);
    assert!(bench.bed.requests().iter().all(|r| !r.operation.is_write()), "{:?}", bench.bed.counts());
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(dry.report.rolled_up, ended.report.rolled_up);
    assert_eq!(dry.report.rollups, ended.report.rollups);
    assert_eq!(dry.report.deleted, ended.report.deleted);
    let estimate = dry.report.estimate.expect("a dry run has one");
    assert_eq!(estimate.requests["GetObject"], 100);
    assert!(estimate.dollars > 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_does_not_count_what_a_kept_rollup_holds_already() {
    let mut bench = Bench::new();
    ten_logs(&mut bench);
    done(&bench.pass(&[("ROLLUP_KEEP", "true")]).await);
    bench.log("logs/2026-01-31-11-00-00-A", "late\n");
    for keep in ["true", "false"] {
        let dry = bench.pass(&[("ROLLUP_DRY_RUN", "true"), ("ROLLUP_KEEP", keep)]).await;
        done(&dry);
        assert_eq!(dry.report.rolled_up.objects, 1, "KEEP {keep}");
        assert_eq!(dry.report.deleted, if keep == "true" { 0 } else { 11 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_sigterm_at_any_request_ends_at_a_safe_point_and_a_second_run_goes_on() {
    let settings = [("ROLLUP_BATCH_OBJECTS", "4")];
    let scenario = || {
        let mut bench = Bench::with(Settings { latency: Duration::from_millis(20), ..Settings::default() });
        bench.log("logs/2026-01-31-10-00-00-0", &format!("{}\n", "x".repeat(5 << 20)));
        ten_logs(&mut bench);
        bench
    };
    let bench = scenario();
    done(&bench.pass(&settings).await);
    let requests = bench.bed.requests().len() as u64;
    let mut stopped = 0;
    for request in 0..requests {
        let bench = scenario();
        let (stop, stops) = watch::channel(false);
        let gate = bench.bed.pause(When::any().skip(request), Moment::Before);
        let sigterm = async {
            gate.reached().await;
            stop.send_replace(true);
            tokio::time::sleep(Duration::from_millis(1)).await;
            gate.release();
        };
        let ended = tokio::select! {
            ended = bench.pass_until(&settings, stops) => ended,
            ended = async { sigterm.await; std::future::pending::<Ended>().await } => ended,
        };
        assert!(ended.error.is_none(), "{:?}", ended.error);
        stopped += u64::from(ended.exit_code() == 143);
        assert!(ended.report.seconds < 11.0, "{}", ended.report.seconds);
        assert!(bench.bed.uploads(OUT).is_empty(), "stopped at request {request}: {:?}", bench.bed.uploads(OUT));
        bench.once();
        done(&bench.pass(&settings).await);
        bench.balanced();
    }
    println!("{stopped} of {requests} were stopped");
    assert!(stopped > requests / 2);
}

#[tokio::test(start_paused = true)]
async fn at_its_time_limit_a_pass_ends_well_and_reports_the_backlog() {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(500), ..Settings::default() });
    let spec = Spec { prefix: String::from("logs/"), days: 30, objects: 600, ..Spec::default() };
    bench.fill(&spec);
    let settings = [("ROLLUP_TIME_LIMIT", "9s"), ("ROLLUP_CONCURRENCY", "8"), ("ROLLUP_BATCH_OBJECTS", "5")];
    let ended = bench.pass(&settings).await;
    done(&ended);
    assert_eq!(ended.report.ending, Ending::TimeLimit);
    assert!(ended.report.backlog.is_some_and(|backlog| backlog > 0), "{:#?}", ended.report);
    bench.once();
    assert_eq!(bench.bed.keys_under(OUT, "rollup/_manifests/"), [""; 0]);
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_beyond_what_a_clock_can_count_limits_nothing() {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", "line\n");
    let ended = bench.pass(&[("ROLLUP_TIME_LIMIT", "500000000000y")]).await;
    done(&ended);
    assert_eq!(ended.report.ending, Ending::Done);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn slow_down_halves_the_requests_in_flight_and_fails_nothing() {
    let limits = testbed::Limits::s3().divided_by(10.0);
    let settings = Settings { latency: Duration::from_millis(30), limits: Some(limits), ..Settings::default() };
    let mut bench = Bench::with(settings);
    bench.fill(&Spec { prefix: String::from("logs/"), groups: 2, days: 2, objects: 2000, ..Spec::default() });
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert!(ended.report.throttled > 0);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn deletes_that_fail_for_some_keys_are_named_and_done_by_the_next_pass() {
    for code in ["InternalError", "AccessDenied", "PreconditionFailed"] {
        let mut bench = Bench::new();
        ten_logs(&mut bench);
        let keys = When::operation(Operation::DeleteObjects).key("logs/2026-01-31-10-00-15-A").always();
        bench.bed.fault(keys, FaultKind::KeyError(code));
        let ended = bench.pass(&[]).await;
        assert_eq!(bench.bed.keys(LOGS), ["logs/2026-01-31-10-00-15-A"], "{code}");
        assert_eq!(ended.exit_code(), if code == "AccessDenied" { 3 } else { 1 }, "{code}");
        assert_eq!(ended.report.left["rolled up but not deleted"].count.objects, 1, "{code}");
        assert_eq!(bench.text("2026-01-31").lines().count(), 10, "{code}");
        bench.bed.clear_faults();
        done(&bench.pass(&[]).await);
        bench.balanced();
    }
}
