//! `ROLLUP_CHECK`, and that a run needs exactly the permissions that the check tries.

use std::sync::Arc;

use rstest::rstest;
use s3_log_rollup::check::{self, Checked, Outcome};
use s3_log_rollup::pass::Stores;
use testbed::{BucketOptions, FaultKind, Moment, Operation, Policy, Quirks, Recorded, Settings, Spec, When};
use tokio::sync::watch;

use crate::bench::{Bench, LOGS, OUT, config, done};
use crate::binary::{program, reach, run};

const MIB: usize = 1 << 20;

/// What README and chart tell an operator to allow.
fn policy(keep: bool) -> Policy {
    let delete = if keep { "" } else { r#", "s3:DeleteObject""# };
    let listing = |bucket: &str, prefix: &str, actions: &str| {
        format!(
            r#"{{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::{bucket}",
                 "Condition": {{"StringLike": {{"s3:prefix": "{prefix}*"}}}}}},
               {{"Effect": "Allow", "Action": [{actions}], "Resource": "arn:aws:s3:::{bucket}/{prefix}*"}}"#
        )
    };
    let source = listing(LOGS, "logs/", &format!(r#""s3:GetObject"{delete}"#));
    let objects = r#""s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload""#;
    let destination = listing(OUT, "rollup/", objects);
    let uploads = format!(
        r#"{{"Effect": "Allow", "Action": "s3:ListBucketMultipartUploads", "Resource": "arn:aws:s3:::{OUT}"}}"#
    );
    let document = |statements| format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
    let documents = [document(source), document(format!("{destination}, {uploads}"))];
    Policy::parse(documents.iter().map(String::as_str)).expect("the testbed understands it")
}

pub(crate) async fn checked(bench: &Bench, settings: &[(&str, &str)]) -> Checked {
    let (_stop, stop) = watch::channel(false);
    let config = config(settings);
    check::run(&config, &Stores::open(&config, &bench.sdk()), fastrand::u64(..), stop).await
}

fn with_logs() -> Bench {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), groups: 2, objects: 40, ..Spec::default() });
    bench
}

/// What stands in both buckets, uploads too.
fn everything(bench: &Bench) -> (Vec<String>, Vec<String>, usize) {
    (bench.bed.keys(LOGS), bench.bed.keys(OUT), bench.bed.uploads(OUT).len() + bench.bed.uploads(LOGS).len())
}

fn failures(checked: &Checked) -> Vec<String> {
    let failing = checked.findings.iter().filter_map(|finding| match &finding.outcome {
        Outcome::Fails(error) => Some(format!("{}: {error}", finding.what)),
        _ => None,
    });
    failing.collect()
}

/// What a policy has denied. A key that is not there looks denied where only some prefixes may be listed: S3's way, and the
/// program's to bear.
pub(crate) fn denied(bench: &Bench) -> Vec<Recorded> {
    let reads = |request: &Recorded| matches!(request.operation, Operation::HeadObject | Operation::GetObject);
    bench.bed.requests().into_iter().filter(|request| request.status == Some(403) && !reads(request)).collect()
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn the_documented_permissions_are_enough_for_the_check_and_it_tries_every_one(#[values(false, true)] keep: bool) {
    let bench = with_logs();
    let before = everything(&bench);
    let policy = Arc::new(policy(keep));
    bench.bed.allow_only(Some(Arc::clone(&policy)));
    let checked = checked(&bench, &[("ROLLUP_KEEP", if keep { "true" } else { "false" })]).await;
    assert_eq!((failures(&checked), checked.exit_code()), (vec![], 0));
    assert_eq!(policy.unused(), [""; 0]);
    assert_eq!(everything(&bench), before);
}

#[tokio::test(start_paused = true)]
async fn each_permission_that_is_missing_is_named_with_its_bucket_and_nothing_is_left_behind() {
    let all = policy(false);
    for permission in all.permissions() {
        let bench = with_logs();
        let before = everything(&bench);
        bench.bed.allow_only(Some(Arc::new(all.without(&permission))));
        let checked = checked(&bench, &[]).await;
        let failures = failures(&checked);
        assert_eq!(checked.exit_code(), 3, "without {permission}: {failures:?}");
        let (action, resource) = permission.split_once(" on arn:aws:s3:::").expect("as the testbed writes it");
        let bucket = resource.split('/').next().expect("a bucket");
        let about = |failure: &&String| failure.starts_with(&format!("{action} on s3://{bucket}/"));
        let named = failures.iter().find(about).unwrap_or_else(|| panic!("without {permission}: {failures:?}"));
        assert!(named.contains("allow s3:"), "{named}");
        assert_eq!(everything(&bench), before, "without {permission}");
        let message: serde_json::Value = serde_json::from_str(&checked.termination_message()).expect("JSON");
        assert_eq!(message["check"], "failed");
    }
}

/// Creates, appends below and above the smallest part, leaves an upload behind that a later pass must find and abort.
#[rstest]
#[tokio::test(start_paused = true)]
async fn runs_need_every_documented_permission_and_no_other(#[values(false, true)] keep: bool) {
    let mut bench = Bench::new();
    let policy = Arc::new(policy(keep));
    bench.bed.allow_only(Some(Arc::clone(&policy)));
    let settings = [("ROLLUP_KEEP", if keep { "true" } else { "false" })];
    for (hour, size) in [(1, 100), (2, 100), (3, 6 * MIB)] {
        bench.log(&format!("logs/2026-01-31-{hour:02}-00-00-A"), &("x".repeat(size) + "\n"));
        done(&bench.pass(&settings).await);
    }
    bench.log("logs/2026-01-31-04-00-00-A", "four\n");
    let gate =
        bench.bed.pause(When::operation(Operation::CompleteMultipartUpload).key("rollup/2026-01-31"), Moment::Before);
    tokio::select! {
        biased;
        () = gate.reached() => {}
        _ = bench.pass(&settings) => panic!("the pass ended before it was killed"),
    }
    done(&bench.pass(&settings).await);
    assert!(bench.bed.uploads(OUT).is_empty());
    let (rollups, logs) = ((OUT, "rollup/"), (LOGS, "logs/"));
    let balance = if keep {
        bench.ledger.check_testbed_kept(&bench.bed, rollups, logs)
    } else {
        bench.ledger.check_testbed(&bench.bed, rollups, logs)
    };
    balance.expect("every line is there once");
    assert_eq!(policy.unused(), [""; 0]);
    assert_eq!(denied(&bench), []);
}

#[tokio::test(start_paused = true)]
async fn a_check_of_a_dry_run_changes_nothing_and_needs_no_permission_to_write() {
    let bench = with_logs();
    bench.bed.deny(Operation::PutObject, OUT, "");
    bench.bed.deny(Operation::DeleteObject, LOGS, "");
    let checked = checked(&bench, &[("ROLLUP_DRY_RUN", "true")]).await;
    assert_eq!((failures(&checked), checked.exit_code()), (vec![], 0));
    assert!(bench.bed.requests().iter().all(|request| !request.operation.is_write()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_source_is_no_failure() {
    let bench = Bench::new();
    bench.bed.allow_only(Some(Arc::new(policy(false))));
    assert_eq!(failures(&checked(&bench, &[]).await), [""; 0]);
}

#[rstest]
#[case::of_another_kind("logs/readme.txt", "not a log\n")]
#[case::empty("logs/2026-01-31-10-00-00-A", "")]
#[tokio::test(start_paused = true)]
async fn a_source_without_a_log_object_to_read_is_no_failure(#[case] key: &str, #[case] body: &'static str) {
    let bench = Bench::new();
    bench.bed.put(LOGS, key, body);
    bench.bed.allow_only(Some(Arc::new(policy(false))));
    assert_eq!(failures(&checked(&bench, &[]).await), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_another_region_and_an_endpoint_that_is_down_are_named_by_the_check() {
    let bed = testbed::Testbed::default();
    bed.create_bucket_with(OUT, BucketOptions { region: Some(String::from("eu-west-1")), ..BucketOptions::default() });
    let bench = Bench { bed, ..Bench::new() };
    let found = checked(&bench, &[]).await;
    let failed = failures(&found).join("\n");
    assert_eq!(found.exit_code(), 3);
    assert!(
        failed.contains("NoSuchBucket") && failed.contains(LOGS) && failed.contains("AWS_REGION=eu-west-1"),
        "{failed}"
    );

    let down = with_logs();
    down.bed.fault(When::any().always(), FaultKind::HangBefore);
    let began = tokio::time::Instant::now();
    let found = checked(&down, &[]).await;
    assert_eq!(found.exit_code(), 1);
    assert!(began.elapsed().as_secs() < 60 && failures(&found).iter().any(|failure| failure.contains("no end after")));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_fails_the_check_with_2() {
    let quirks = Quirks { ignore_write_conditions: true, ..Quirks::default() };
    let bench = Bench::with(Settings { quirks, ..Settings::default() });
    let found = checked(&bench, &[]).await;
    assert_eq!(found.exit_code(), 2);
    assert!(failures(&found)[0].contains("ROLLUP_ASSUME_NO_OVERLAP"), "{:?}", failures(&found));
    assert_eq!(checked(&bench, &[("ROLLUP_ASSUME_NO_OVERLAP", "true")]).await.exit_code(), 0);
    assert_eq!(everything(&bench).1, [""; 0]);
}

#[tokio::test]
async fn the_program_says_what_it_found_and_ends_with_the_checks_exit_code() {
    let bench = with_logs();
    bench.bed.deny(Operation::DeleteObject, LOGS, "");
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let url = server.url();
    let mut command = program(&reach(&url, &[("ROLLUP_CHECK", "true"), ("ROLLUP_LOG_FORMAT", "pretty")]));
    let (code, _, log) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    assert_eq!(code, 3, "{log}");
    for says in [
        "works: s3:ListBucket on s3://acme-logs/logs/: 40 of the first 40",
        "FAILS: s3:DeleteObject on s3://acme-logs/",
    ] {
        assert!(log.contains(says), "{log} does not say {says}");
    }
    assert_eq!(bench.bed.keys(LOGS).len(), 40);
}
