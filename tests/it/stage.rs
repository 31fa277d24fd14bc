//! Two buckets in which a pass has something of each kind to do.

use testbed::{Moment, Operation, Settings, When};

use crate::bench::{Bench, LOGS, OUT, done};

/// Does not exist yet.
pub(crate) const NEW: &str = "rollup/new/2026-01-31";
/// Below 5 MiB, settled, with tags.
pub(crate) const SMALL: &str = "rollup/small/2026-01-31";
/// Above 5 MiB, by another tool.
pub(crate) const LARGE: &str = "rollup/large/2026-01-31";
/// The pass that appended to it was killed before it deleted the sources.
pub(crate) const PENDING: &str = "rollup/pending/2026-01-31";

/// A source of [`NEW`], of the very length of the error document that stands for it in some cells.
pub(crate) const SOURCE: &str = "logs/new/2026-01-31-10-00-00-A";
/// In [`PENDING`]; another object stands under its key by now.
pub(crate) const REPLACED: &str = "logs/pending/2026-01-31-11-00-02-D";
/// In [`PENDING`]; a lifecycle rule has expired it.
pub(crate) const KEPT: &str = "logs/pending/2026-01-31-11-00-01-C";

const ERROR_DOCUMENT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code>\
                              <Message>a fault of the testbed</Message></Error>";

/// 64 KiB each: a little more than 5 MiB.
const OLD_LINES: usize = 81;

/// Lines that are in rollups alone: their sources are gone.
pub(crate) const ONLY_ROLLED_UP: [(&str, &str); 4] = [
    (SMALL, "small, first\n"),
    (PENDING, "pending, first\n"),
    (PENDING, "pending, to be replaced\n"),
    (PENDING, "pending, to expire\n"),
];

/// A line of so many bytes, newline included.
fn line(byte: &str, length: usize) -> String {
    byte.repeat(length - 1) + "\n"
}

fn old_line() -> String {
    line("x", 1 << 16)
}

/// The bytes of [`LARGE`].
pub(crate) fn old_bytes() -> String {
    old_line().repeat(OLD_LINES)
}

pub(crate) async fn stage() -> Bench {
    let mut bench = Bench::with(Settings { check_signatures: false, ..Settings::default() });
    bench.log("logs/small/2026-01-31-10-00-00-A", "small, first\n");
    bench.log("logs/pending/2026-01-31-10-00-00-A", "pending, first\n");
    done(&bench.pass(&[]).await);

    bench.log("logs/pending/2026-01-31-11-00-00-B", "pending, late\n");
    bench.log(REPLACED, "pending, to be replaced\n");
    bench.log(KEPT, "pending, to expire\n");
    let gate = bench.bed.pause(When::operation(Operation::DeleteObjects), Moment::Before);
    tokio::select! {
        biased;
        () = gate.reached() => {}
        _ = bench.pass(&[]) => panic!("the pass ended before its deletes"),
    }
    drop(gate);
    bench.log(REPLACED, "pending, the other object\n");
    bench.bed.remove(LOGS, KEPT);

    let small = bench.bed.object(OUT, SMALL).expect("it was rolled up");
    bench.bed.put_with(OUT, SMALL, small.bytes(), |object| {
        *object = small;
        object.tags.insert(String::from("team"), String::from("web & shop"));
    });
    bench.log("logs/small/2026-01-31-11-00-00-B", "small, late\n");

    bench.ledger.put(LOGS, "what another tool rolled up", &old_bytes().into());
    bench.bed.put_virtual(OUT, LARGE, old_line(), OLD_LINES);
    for at in 0..4 {
        bench.log(&format!("logs/large/2026-01-31-11-00-0{at}-A"), &format!("large, {at}\n"));
    }

    bench.log(SOURCE, &line("n", ERROR_DOCUMENT.len()));
    bench.log("logs/new/2026-01-31-10-00-01-B", "new, no newline");
    bench.bed.forget_requests();
    bench
}
