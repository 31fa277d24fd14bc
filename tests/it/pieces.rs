//! Sources of more than 1 MiB, which are read in pieces, and what happens when a later piece cannot be read.

use std::time::Duration;

use rstest::rstest;
use testbed::{Fault, FaultKind, Gate, Moment, Operation, Recorded, When};

use crate::bench::{Bench, LOGS, OUT, done};

const MIB: usize = 1 << 20;
/// The one that breaks.
const BROKEN: &str = "logs/2026-01-31-10-00-05-B";
/// The attempts that a pass makes at one request.
const ATTEMPTS: u64 = 9;

/// Short lines that say whose they are; the last one lacks its newline.
fn lines(name: &str, length: usize) -> String {
    let mut lines = String::with_capacity(length + 1000);
    let numbered = (0_u64..).map(|number| format!("{name} {number:0>990}\n"));
    lines.extend(numbered.take(length / 990 + 1));
    lines.truncate(length);
    lines
}

/// Log objects in the order of their keys, of so many MiB; `BROKEN` is the second.
fn logs(bench: &mut Bench, sizes: &[usize]) -> Vec<String> {
    let names = ["A", "B", "C", "D", "E"];
    let logs = sizes.iter().zip(names).zip([0, 5, 6, 7, 8]).map(|((size, name), second)| {
        let body = lines(name, size * MIB + 50);
        bench.log(&format!("logs/2026-01-31-10-00-0{second}-{name}"), &body);
        body
    });
    logs.collect()
}

fn reads() -> When {
    When::operation(Operation::GetObject).bucket(LOGS)
}

/// From its `first` piece on, counted from 0, every attempt at it fails. Nothing else is to be in flight.
fn break_at(bench: &Bench, first: u64, kind: FaultKind) -> Fault {
    bench.bed.fault(reads().key(BROKEN).skip(first).always(), kind)
}

fn count(bench: &Bench, counts: impl Fn(&Recorded) -> bool) -> usize {
    bench.bed.requests().iter().filter(|request| counts(request)).count()
}

/// A pass that never comes to the gate is a failure, not a test without an end.
async fn reached(gate: &Gate) {
    tokio::time::timeout(Duration::from_hours(1), gate.reached()).await.expect("a request comes to the gate");
}

/// Uploads of the rollup, not those of the probe.
fn of_rollup(operation: Operation) -> impl Fn(&Recorded) -> bool {
    move |r| r.operation == operation && r.key.as_deref() == Some("rollup/2026-01-31")
}

/// The text of these log objects in one rollup.
fn joined<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    texts.into_iter().flat_map(|text| [text, "\n"]).collect()
}

#[rstest]
#[case::damaged(FaultKind::TruncatedBody)]
#[case::denied(FaultKind::Status(403, "AccessDenied"))]
#[tokio::test(start_paused = true)]
async fn a_source_whose_later_piece_cannot_be_read_is_taken_back_where_none_of_it_was_sent(#[case] kind: FaultKind) {
    let mut bench = Bench::new();
    let texts = logs(&mut bench, &[0, 3, 0, 1]);
    let fault = break_at(&bench, 2, kind.clone());
    let ended = bench.pass(&[("ROLLUP_CONCURRENCY", "1")]).await;
    assert_eq!(ended.exit_code(), 1, "{:#?}", ended.report);
    assert_eq!(ended.report.left["unreadable"].examples, [BROKEN]);
    assert_eq!((ended.report.rolled_up.objects, ended.report.rollups.failed), (3, 0));
    assert_eq!(bench.text("2026-01-31"), joined([&texts[0], &texts[2], &texts[3]]));
    assert_eq!(bench.bed.keys(LOGS), [BROKEN]);
    assert!(fault.hits() > 0);
    let of_others = |r: &Recorded| r.operation == Operation::GetObject && r.key.as_deref() != Some(BROKEN);
    assert_eq!(count(&bench, |r| r.bucket.as_deref() == Some(LOGS) && of_others(r)), 4, "nothing is read twice");
    bench.once();
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    assert_eq!(bench.text("2026-01-31"), joined([&texts[0], &texts[2], &texts[3], &texts[1]]));
    bench.balanced();
}

#[rstest]
#[case::of_others_in_parts(&[3, 12, 4, 2], 9)]
#[case::of_others_in_one_put(&[3, 12, 0, 0], 9)]
#[case::as_the_first(&[0, 6, 7], 5)]
#[tokio::test(start_paused = true)]
async fn a_batch_is_gathered_anew_without_a_source_that_was_sent_in_part(#[case] sizes: &[usize], #[case] piece: u64) {
    let mut bench = Bench::new();
    let mut texts = logs(&mut bench, sizes);
    break_at(&bench, piece, FaultKind::TruncatedBody);
    let ended = bench.pass(&[("ROLLUP_CONCURRENCY", "1")]).await;
    assert_eq!(ended.exit_code(), 1, "{:#?}", ended.report);
    assert_eq!(ended.report.left["unreadable"].examples, [BROKEN]);
    assert_eq!(ended.report.rollups.failed, 0, "{:#?}", ended.report);
    let broken = texts.remove(1);
    assert!(bench.text("2026-01-31") == joined(&texts));
    assert_eq!(count(&bench, of_rollup(Operation::AbortMultipartUpload)), 1);
    assert!(bench.bed.uploads(OUT).is_empty());
    assert_eq!(bench.bed.keys(LOGS), [BROKEN]);
    bench.once();
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    texts.push(broken);
    assert!(bench.text("2026-01-31") == joined(&texts));
    bench.balanced();
}

#[rstest]
#[case::none_of_it_sent(&[0, 3, 0])]
#[case::some_of_it_sent(&[1, 12, 6])]
#[tokio::test(start_paused = true)]
async fn a_rollup_of_another_tool_gets_its_newline_once_where_the_first_source_breaks(#[case] sizes: &[usize]) {
    for old in ["no newline".to_owned(), "no newline".repeat(MIB)] {
        let mut bench = Bench::new();
        bench.bed.put(OUT, "rollup/2026-01-31", old.clone());
        let texts = logs(&mut bench, sizes);
        bench.bed.deny(Operation::GetObject, LOGS, "logs/2026-01-31-10-00-00-A");
        break_at(&bench, sizes[1] as u64, FaultKind::TruncatedBody);
        let ended = bench.pass(&[("ROLLUP_CONCURRENCY", "1")]).await;
        assert_eq!((ended.exit_code(), ended.report.rolled_up.objects), (1, 1), "{:#?}", ended.report);
        assert_eq!(ended.report.left["unreadable"].count.objects, 2);
        assert!(bench.text("2026-01-31") == old + "\n" + &joined([&texts[2]]));
    }
}

#[rstest]
#[case::changed_unsent(&[0, 3, 0], true)]
#[case::gone_unsent(&[0, 3, 0], false)]
#[case::changed_sent(&[3, 12, 2], true)]
#[case::gone_sent(&[3, 12, 2], false)]
#[tokio::test(start_paused = true)]
async fn a_source_that_changes_or_goes_while_its_pieces_are_read_is_left_and_nothing_fails(
    #[case] sizes: &[usize],
    #[case] changes: bool,
) {
    let mut bench = Bench::new();
    let mut texts = logs(&mut bench, sizes);
    let gate = bench.bed.pause(reads().key(BROKEN).skip(sizes[1] as u64), Moment::Before);
    let meanwhile = async {
        reached(&gate).await;
        if changes {
            bench.bed.put(LOGS, BROKEN, "another line\n");
        } else {
            bench.bed.remove(LOGS, BROKEN);
        }
        gate.release();
    };
    let settings = [("ROLLUP_CONCURRENCY", "1")];
    let (ended, ()) = tokio::join!(bench.pass(&settings), meanwhile);
    done(&ended);
    let reason = if changes { "replaced since they were listed" } else { "gone since they were listed" };
    assert_eq!(ended.report.left[reason].examples, [BROKEN]);
    texts.remove(1);
    assert!(bench.text("2026-01-31") == joined(&texts));
    assert_eq!(bench.bed.keys(LOGS).len(), usize::from(changes));
    assert!(bench.bed.uploads(OUT).is_empty());
    done(&bench.pass(&settings).await);
    assert!(bench.text("2026-01-31") == joined(&texts) + if changes { "another line\n" } else { "" });
    assert_eq!(bench.bed.keys_under(OUT, "rollup/_"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn several_sources_that_break_are_all_left_and_named_in_order() {
    let mut bench = Bench::new();
    let texts = logs(&mut bench, &[7, 7, 2, 7, 1]);
    for (name, piece) in [("00-A", 0), ("05-B", 6), ("06-C", 1), ("07-D", 5)] {
        bench.bed.fault(reads().key_suffix(name).skip(piece).always(), FaultKind::ShortBody);
    }
    let ended = bench.pass(&[("ROLLUP_CONCURRENCY", "1")]).await;
    assert_eq!(ended.exit_code(), 1, "{:#?}", ended.report);
    assert_eq!(ended.report.left["unreadable"].count.objects, 4);
    assert_eq!((ended.report.rolled_up.objects, ended.report.deleted), (1, 1));
    assert!(bench.text("2026-01-31") == joined([&texts[4]]));
    bench.once();
    bench.bed.clear_faults();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_was_being_begun_when_a_source_broke_is_not_left_behind() {
    let mut bench = Bench::new();
    let texts = logs(&mut bench, &[3, 8, 3]);
    break_at(&bench, 6, FaultKind::Status(403, "AccessDenied"));
    let begun = When::operation(Operation::CreateMultipartUpload).key_prefix("rollup/2");
    let gate = bench.bed.pause(begun, Moment::Applied);
    let late = async {
        reached(&gate).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        gate.release();
    };
    let settings = [("ROLLUP_CONCURRENCY", "1")];
    let (ended, ()) = tokio::join!(bench.pass(&settings), late);
    assert_eq!((ended.exit_code(), ended.report.rolled_up.objects), (1, 2), "{:#?}", ended.report);
    assert!(bench.text("2026-01-31") == joined([&texts[0], &texts[2]]));
    assert!(bench.bed.uploads(OUT).is_empty(), "{:?}", bench.bed.uploads(OUT));
    bench.once();
}

/// What is joined and taken back must neither be held for ever nor be forgotten while it is held.
#[tokio::test(start_paused = true)]
async fn a_broken_source_leaves_the_buffer_as_it_was() {
    let mut bench = Bench::new();
    // 24 MiB are 12 for one batch: a part of 5 that cannot be sent, and 7 pieces more.
    logs(&mut bench, &[1, 3, 25]);
    break_at(&bench, 2, FaultKind::TruncatedBody);
    let gate = bench.bed.pause(When::operation(Operation::UploadPart).key_prefix("rollup/2").always(), Moment::Before);
    let stuck = async {
        reached(&gate).await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        let good = |r: &Recorded| r.operation == Operation::GetObject && r.bucket.as_deref() == Some(LOGS);
        let read = count(&bench, |r| good(r) && r.key.as_deref() != Some(BROKEN));
        gate.release();
        read
    };
    let settings = [("ROLLUP_CONCURRENCY", "64")];
    let (ended, read) = tokio::join!(bench.pass(&settings), stuck);
    assert_eq!(ended.exit_code(), 1);
    // Two of A; newlines and the odd 50 bytes cost the last piece its place.
    assert!((12..=13).contains(&read), "{read} pieces were asked for");
    bench.once();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_gathered_anew_stays_inside_its_buffer() {
    let mut bench = Bench::new();
    logs(&mut bench, &[3, 12, 25]);
    let fault = break_at(&bench, 9, FaultKind::TruncatedBody);
    let aborted =
        bench.bed.pause(When::operation(Operation::AbortMultipartUpload).key_prefix("rollup/2"), Moment::Before);
    let stuck = async {
        reached(&aborted).await;
        let before = count(&bench, |r| r.operation == Operation::GetObject);
        let sent = When::operation(Operation::UploadPart).key_prefix("rollup/2").always();
        let gate = bench.bed.pause(sent, Moment::Before);
        aborted.release();
        reached(&gate).await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        let read = count(&bench, |r| r.operation == Operation::GetObject) - before;
        gate.release();
        read
    };
    let settings = [("ROLLUP_BUFFER", "8MiB"), ("ROLLUP_CONCURRENCY", "64")];
    let (ended, read) = tokio::join!(bench.pass(&settings), stuck);
    assert_eq!(ended.exit_code(), 1);
    assert!(fault.hits() >= ATTEMPTS);
    // 8 MiB are 6 for one batch: a part of 5 that cannot be sent, and less than a piece more than that.
    assert!((6..=7).contains(&read), "{read} pieces were asked for");
    bench.once();
}

#[tokio::test(start_paused = true)]
async fn a_pass_killed_at_any_request_of_a_batch_gathered_anew_loses_nothing() {
    let scenario = || {
        let mut bench = Bench::new();
        logs(&mut bench, &[3, 6, 4]);
        break_at(&bench, 5, FaultKind::Status(403, "AccessDenied"));
        bench
    };
    let settings = [("ROLLUP_CONCURRENCY", "2")];
    let bench = scenario();
    assert_eq!(bench.pass(&settings).await.exit_code(), 1);
    let requests = bench.bed.requests().len() as u64;
    for moment in [Moment::Before, Moment::Applied] {
        for request in 0..requests {
            let bench = scenario();
            let gate = bench.bed.pause(When::any().skip(request), moment);
            tokio::select! {
                _ = bench.pass(&settings) => {}
                () = gate.reached() => {}
            }
            drop(gate);
            bench.bed.clear_faults();
            done(&bench.pass(&settings).await);
            bench.once();
        }
    }
    println!("killed at {requests} requests");
}
