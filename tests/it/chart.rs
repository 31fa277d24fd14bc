//! What the Helm chart says of the settings and of permissions, compared with the program's.

use std::collections::BTreeSet;
use std::sync::Arc;

use rstest::rstest;
use s3_log_rollup::config::{Fallback, VARIABLES, Variable};
use serde_json::Value;
use testbed::Policy;

use crate::bench::{Bench, done};
use crate::check::{checked, denied};

const CHART: &str = include_str!("../../helm/s3-log-rollup/Chart.yaml");
const VALUES: &str = include_str!("../../helm/s3-log-rollup/values.yaml");
const SCHEMA: &str = include_str!("../../helm/s3-log-rollup/values.schema.json");
const README: &str = include_str!("../../helm/s3-log-rollup/README.md");
const CHECK: &str = include_str!("../../helm/s3-log-rollup/templates/tests/check.yaml");

/// What an install of each set-up prints.
const MINIMAL: &str = include_str!("../../helm/s3-log-rollup/tests/golden/minimal.notes.txt");
const EKS: &str = include_str!("../../helm/s3-log-rollup/tests/golden/eks.notes.txt");
const MINIO: &str = include_str!("../../helm/s3-log-rollup/tests/golden/minio.notes.txt");
const SHARDS: &str = include_str!("../../helm/s3-log-rollup/tests/golden/shards.notes.txt");

/// Settings that have no key under `rollup`.
const ELSEWHERE: [&str; 4] = [
    // `shards` sets it, and its pods have an index each.
    "ROLLUP_SHARD_COUNT",
    "ROLLUP_SHARD_INDEX",
    // `aws.forcePathStyle`
    "ROLLUP_FORCE_PATH_STYLE",
    // `helm test` alone sets it.
    "ROLLUP_CHECK",
];

fn settings() -> impl Iterator<Item = &'static Variable> {
    VARIABLES.iter().filter(|variable| !ELSEWHERE.contains(&variable.name))
}

/// `dryRun` of `ROLLUP_DRY_RUN`.
fn key(name: &str) -> String {
    let words = name.strip_prefix("ROLLUP_").expect("its prefix").split('_').map(str::to_ascii_lowercase);
    let words = words.enumerate().map(|(at, word)| if at == 0 { word } else { word[..1].to_uppercase() + &word[1..] });
    words.collect()
}

fn described(Variable { name, default, meaning }: &Variable) -> String {
    let default = match default {
        Fallback::Required | Fallback::Unset => default.to_string(),
        Fallback::Value(value) => format!("default `{value}`"),
        Fallback::Described(words) => format!("default {words}"),
    };
    format!("{meaning} (`{name}`, {default})")
}

/// The keys of a section of the values, each with its comment, less the type that begins it.
fn section(name: &str) -> Vec<(String, String)> {
    let lines = VALUES.lines().skip_while(|line| *line != format!("{name}:")).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).map(str::trim_start).collect();
    let pairs = lines.windows(2).filter_map(|pair| Some((pair[0].strip_prefix("# -- ")?, pair[1].split_once(':')?.0)));
    pairs.map(|(comment, key)| (key.to_owned(), untyped(comment).to_owned())).collect()
}

fn untyped(comment: &str) -> &str {
    comment.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(comment, |(_, rest)| rest)
}

#[test]
fn every_setting_has_its_key_and_its_meaning_in_the_values_and_nothing_else_has() {
    let expected: Vec<_> = settings().map(|variable| (key(variable.name), described(variable))).collect();
    let shown = expected.iter().map(|(key, comment)| format!("  # -- (…) {comment}\n  {key}:\n"));
    let shown = shown.collect::<Vec<_>>().concat();
    assert!(section("rollup") == expected, "the section `rollup` of values.yaml needs this:\n{shown}");
}

#[test]
fn the_one_setting_of_the_section_aws_has_its_meaning_there() {
    let setting =
        VARIABLES.iter().find(|variable| variable.name == "ROLLUP_FORCE_PATH_STYLE").expect("it is a setting");
    assert!(section("aws").contains(&("forcePathStyle".to_owned(), described(setting))), "{}", described(setting));
}

#[test]
fn the_schema_knows_the_settings_and_refuses_others() {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let rollup = &schema["properties"]["rollup"];
    let known: BTreeSet<String> = rollup["properties"].as_object().expect("properties").keys().cloned().collect();
    assert_eq!(known, settings().map(|variable| key(variable.name)).collect());
    assert_eq!(rollup["additionalProperties"], Value::Bool(false));
    assert_eq!(schema["additionalProperties"], Value::Bool(false));
}

#[test]
fn the_readme_of_the_chart_has_a_row_for_every_setting_and_no_other() {
    let row = |line: &str| Some(line.strip_prefix("| rollup.")?.split_once(' ')?.0.to_owned());
    let rows: Vec<String> = README.lines().filter_map(row).collect();
    assert_eq!(rows, settings().map(|variable| key(variable.name)).collect::<Vec<_>>());
    for variable in settings() {
        assert!(README.contains(&format!(" {} |\n", described(variable))), "tests/chart --update: {}", variable.name);
    }
}

#[test]
fn the_chart_names_no_variable_that_is_no_setting() {
    let word = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    for (file, text) in [("values.yaml", VALUES), ("values.schema.json", SCHEMA), ("README.md", README)] {
        for name in text.split(|letter| !word(letter)).filter(|name| name.starts_with("ROLLUP_")) {
            assert!(VARIABLES.iter().any(|variable| variable.name == name), "{file}: {name} is no setting");
        }
    }
    assert!(CHECK.contains("\"ROLLUP_CHECK\""), "`helm test` sets it");
}

#[test]
fn the_chart_is_of_the_version_of_the_program() {
    for line in ["version", "appVersion"].map(|key| format!("{key}: {}", env!("CARGO_PKG_VERSION"))) {
        assert!(CHART.lines().any(|there| there == line), "Chart.yaml needs the line `{line}`");
    }
    let image = format!("s3-log-rollup:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(CHART.contains(&image), "the image that Chart.yaml names to Artifact Hub is not …{image}");
}

const MIB: usize = 1 << 20;

/// What the notes of an install print first: the policies of source and destination.
fn printed(notes: &str) -> Policy {
    let mut documents = vec![];
    for line in notes.lines() {
        match line {
            "{" => documents.push(String::from(line)),
            _ if documents.last().is_some_and(|document: &String| !document.ends_with("\n}")) => {
                let document = documents.last_mut().expect("there is one");
                *document += "\n";
                *document += line;
            }
            _ => {}
        }
    }
    Policy::parse(documents.iter().take(2).map(String::as_str)).expect("the testbed understands it")
}

/// S3's permissions alone: a key of KMS is for the store to use.
fn unused(policy: &Policy) -> Vec<String> {
    policy.unused().into_iter().filter(|permission| !permission.starts_with("kms:")).collect()
}

#[rstest]
#[case::a_bucket_each(MINIMAL, "acme-logs/access/", "acme-rollups/access/", false)]
#[case::a_destination_without_a_slash(EKS, "acme-logs/access/", "acme-rollups/access", false)]
#[case::no_prefixes(SHARDS, "acme-logs", "acme-rollups", false)]
#[case::one_bucket_where_logs_are_kept(MINIO, "logs/access/", "logs/rollups/", true)]
#[tokio::test(start_paused = true)]
async fn the_permissions_that_the_chart_prints_are_enough_and_the_check_tries_every_one(
    #[case] notes: &str,
    #[case] source: &str,
    #[case] destination: &str,
    #[case] keep: bool,
) {
    assert!(notes.starts_with(&format!("s3://{source} is rolled up into s3://{destination} by")), "{notes}");
    let settings = [
        ("ROLLUP_SOURCE", source),
        ("ROLLUP_DESTINATION", destination),
        ("ROLLUP_KEEP", if keep { "true" } else { "false" }),
    ];
    let bench = Bench::new();
    bench.bed.create_bucket("logs");
    let policy = Arc::new(printed(notes));
    bench.bed.allow_only(Some(Arc::clone(&policy)));
    let (bucket, prefix) = source.split_once('/').unwrap_or((source, ""));
    for (hour, size) in [(1, 100), (2, 100), (3, 6 * MIB), (4, 100)] {
        bench.bed.put(bucket, &format!("{prefix}2026-01-31-{hour:02}-00-00-A"), "x".repeat(size) + "\n");
        done(&bench.pass(&settings).await);
    }
    assert_eq!(denied(&bench), []);

    let policy = Arc::new(printed(notes));
    bench.bed.allow_only(Some(Arc::clone(&policy)));
    let checked = checked(&bench, &settings).await;
    assert_eq!(checked.exit_code(), 0, "{checked:?}");
    assert_eq!(unused(&policy), [""; 0]);
}
