//! The program itself, as its user starts it.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testbed::{FaultKind, Moment, Operation, Spec, When};

use crate::bench::{Bench, LOGS, OUT};

/// That of this build, or the one that `PROGRAM` names: the static one of the image, say.
fn path() -> OsString {
    std::env::var_os("PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_s3-log-rollup").into())
}

/// The program with an empty environment but for these variables.
pub(crate) fn program(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(path());
    command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

pub(crate) const WHERE: [(&str, &str); 2] =
    [("ROLLUP_SOURCE", "s3://acme-logs/logs/"), ("ROLLUP_DESTINATION", "s3://acme-rollups/rollup/")];

/// Settings that reach a served testbed.
pub(crate) fn reach<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut variables = vec![
        ("AWS_ENDPOINT_URL", url),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKIATESTBED"),
        ("AWS_SECRET_ACCESS_KEY", testbed::SECRET_KEY),
        ("ROLLUP_FORCE_PATH_STYLE", "true"),
    ];
    variables.extend(WHERE);
    variables.extend(more);
    variables
}

#[test]
fn help_and_version_are_answered_and_any_other_argument_points_to_the_variables() {
    let (code, help, _) = run(program(&[]).arg("--help"));
    assert!(code == 0 && help.contains("ROLLUP_SOURCE") && help.lines().all(|line| line.chars().count() <= 80));
    let (code, version, _) = run(program(&[]).arg("--version"));
    assert_eq!((code, version.as_str()), (0, concat!("s3-log-rollup ", env!("CARGO_PKG_VERSION"), "\n")));
    let (code, _, error) = run(program(&[]).arg("--dry-run"));
    assert_eq!(code, 2);
    assert!(error.contains("--dry-run") && error.contains("environment variables"), "{error}");
}

#[test]
fn wrong_settings_exit_with_2_before_the_first_request_and_name_every_problem() {
    let wrong = [("ROLLUP_SOURCE", "s3://acme-logs"), ("ROLLUP_DRYRUN", "true"), ("ROLLUP_LEVEL", "week")];
    let (code, _, error) = run(&mut program(&wrong));
    assert_eq!(code, 2);
    for says in ["ROLLUP_DESTINATION", "did you mean", "ROLLUP_DRY_RUN", "week", "10min"] {
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

#[test]
fn without_credentials_it_exits_with_3_and_says_where_it_looked() {
    let (code, _, error) = run(&mut program(&WHERE));
    assert_eq!(code, 3, "{error}");
    for says in ["no credentials", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "IRSA", "Pod Identity"] {
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

#[test]
fn a_ca_bundle_that_cannot_be_used_exits_with_2_and_is_named() {
    for bundle in ["/nowhere/ca.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        let (code, _, error) = run(program(&WHERE).env("AWS_CA_BUNDLE", bundle));
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("AWS_CA_BUNDLE") && error.contains(bundle), "{error}");
    }
}

#[tokio::test]
async fn a_run_over_http_writes_bunyan_lines_and_the_report_as_its_termination_message() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), groups: 2, objects: 200, ..Spec::default() });
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let message = std::env::temp_dir().join(format!("s3-log-rollup-{}-message", std::process::id()));
    let path = message.to_string_lossy().into_owned();
    let url = server.url();
    let variables: Vec<_> = reach(&url, &[("ROLLUP_TERMINATION_LOG", path.as_str())]);
    let mut command = program(&variables);
    let (code, log, error) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    assert_eq!(code, 0, "{log}{error}");
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).expect("every line is JSON");
        assert_eq!(record["name"], "s3-log-rollup");
    }
    assert!(!log.contains(testbed::SECRET_KEY), "{log}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&message).expect("written")).expect("JSON");
    std::fs::remove_file(&message).expect("it is there");
    assert_eq!(report["rolled_up"]["objects"], 200);
    bench.balanced();
}

#[tokio::test]
async fn reads_that_the_server_fails_are_tried_again_and_are_no_errors_in_the_log() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 50, ..Spec::default() });
    let reads = || When::operation(Operation::GetObject).bucket(LOGS);
    bench.bed.fault(reads().skip(10).times(3), FaultKind::Status(500, "InternalError"));
    bench.bed.fault(reads().skip(20).times(3), FaultKind::ResetBefore);
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let url = server.url();
    let mut command = program(&reach(&url, &[]));
    let (code, log, error) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    assert_eq!(code, 0, "{log}{error}");
    let worst = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
    let worst = worst.max_by_key(|record| record["level"].as_u64()).expect("it says something");
    assert_eq!(worst["level"], 30, "{worst}");
    bench.balanced();
}

#[tokio::test]
async fn a_real_sigterm_ends_with_143_and_a_second_run_goes_on() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 300, ..Spec::default() });
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let url = server.url();
    let variables = reach(&url, &[]);
    let gate = bench.bed.pause(When::operation(Operation::GetObject).bucket(LOGS).skip(50).always(), Moment::Before);
    let child = program(&variables).spawn().expect("it starts");
    gate.reached().await;
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill is there");
    assert!(killed.success());
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = waiting.await.expect("it ran").expect("it ends");
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stdout));
    gate.release();
    assert_eq!(bench.bed.keys(LOGS).len(), 300);
    let mut command = program(&variables);
    let (code, log, _) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    assert_eq!(code, 0, "{log}");
    assert!(bench.bed.uploads(OUT).is_empty());
    bench.balanced();
}
