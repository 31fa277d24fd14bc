//! Names and messages that somebody else chose never command a terminal, forge a line or break a record.

use rstest::rstest;
use serde_json::Value;
use testbed::{FaultKind, Operation, When};

use crate::bench::{Bench, LOGS, OUT};
use crate::binary::{program, reach, run};

const HOSTILE: [&str; 7] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "\n{\"name\":\"s3-log-rollup\",\"level\":60,\"msg\":\"forged\"}\n",
    "\r2026-01-01T00:00:00Z ERROR forged",
    "\u{9b}31m\u{85}\u{8d}",
    "\u{202e}gpj.\u{2066}\u{200f}",
    "\u{2028}\u{2029}\u{feff}\u{7f}",
    "\u{1b}(0\u{e}lqqk",
];

/// As S3 writes them in XML; the SDK reads them as the characters.
const HOSTILE_CODE: &str = "Oops&#13;&#10;{\"level\":60}&#155;2J&#8238;";

/// What may stand in an output: what a terminal prints, and the ends of lines.
fn is_harmless(c: char) -> bool {
    c == '\n' || c == ' ' || c.escape_debug().len() == 1 || matches!(c, '"' | '\'' | '\\')
}

#[rstest]
#[case::as_records("bunyan")]
#[case::as_lines("pretty")]
#[tokio::test]
async fn hostile_names_and_messages_are_told_without_being_obeyed(#[case] format: &str) {
    let mut bench = Bench::new();
    for (at, hostile) in HOSTILE.iter().enumerate() {
        // A log object of a group of that name, one whose rollup fails, one that cannot be read, and no log object.
        bench.log(&format!("logs/{hostile}/2026-01-31-10-00-00-A"), "line\n");
        bench.log(&format!("logs/archived{hostile}/2026-01-31-10-00-00-A"), "line\n");
        bench.log(&format!("logs/denied{hostile}/2026-01-31-10-00-00-A"), "line\n");
        bench.bed.put(LOGS, &format!("logs/0{at}{hostile}"), "x");
        bench.bed.put_with(OUT, &format!("rollup/archived{hostile}/2026-01-31"), "old\n", |object| {
            object.storage_class = Some(String::from("DEEP_ARCHIVE"));
        });
    }
    let long = "\u{1b}[7m".repeat(200);
    bench.log(&format!("logs/{long}/2026-01-31-10-00-00-A"), "line\n");
    let denied = When::operation(Operation::GetObject).bucket(LOGS).key_prefix("logs/denied").always();
    bench.bed.fault(denied, FaultKind::Status(403, HOSTILE_CODE));
    let listing = When::operation(Operation::ListObjectsV2).bucket(LOGS).times(4);
    bench.bed.fault(listing, FaultKind::Status(503, HOSTILE_CODE));
    let delete = When::operation(Operation::DeleteObjects).times(2);
    bench.bed.fault(delete, FaultKind::Status(400, HOSTILE_CODE));
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let message = std::env::temp_dir().join(format!("s3-log-rollup-{}-hostile-{format}", std::process::id()));
    let (url, path) = (server.url(), message.to_string_lossy().into_owned());
    let more = [("ROLLUP_LOG_FORMAT", format), ("RUST_LOG", "debug"), ("ROLLUP_TERMINATION_LOG", path.as_str())];
    let mut command = program(&reach(&url, &more));
    let (code, log, error) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    assert!((1..=3).contains(&code), "{log}{error}");
    let message = std::fs::read_to_string(&message).expect("it was written");
    for (what, text) in [("standard output", &log), ("standard error", &error), ("the message", &message)] {
        let obeyed = text.char_indices().find(|(_, c)| !is_harmless(*c));
        assert!(obeyed.is_none(), "{what} holds {obeyed:?}: {}", text.escape_debug());
    }
    let records = log.lines().filter(|_| format == "bunyan");
    let records: Vec<Value> = records.map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    assert!(records.iter().all(|record| record["hostname"].is_string()), "a record was forged");
    if format == "pretty" {
        assert!(error.lines().all(|line| line.starts_with("20")), "a line was forged: {error}");
    }
    serde_json::from_str::<Value>(&message).expect("the message is JSON");
    for told in ["\\u{1b}[2J", "Oops\\r\\n", "\\u{9b}2J\\u{202e}"] {
        let escaped = told.replace('\\', "\\\\");
        assert!(log.contains(&escaped) || error.contains(told), "{told} is not told: {log}{error}");
    }
}
