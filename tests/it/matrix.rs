//! Every request of a pass × every fault × once, three times, for ever. Each cell runs a pass into the fault and one
//! after it. The first must end as the oracle says, inside a bound of requests and of time; then every line must be
//! there exactly once, and nothing left behind.
//!
//! `CELL=HeadRollup/Denied/Thrice cargo test --test it matrix -- --nocapture` replays one cell.

mod oracle;
mod scope;

use std::time::Duration;

use s3_log_rollup::pass::Ended;
use testbed::{Operation, Recorded};

use self::oracle::{Expected, Leftover, expected, impossible, leftover};
use self::scope::{Body, Kind, Scope, Times};
use crate::bench::{Bench, LOGS, OUT};
use crate::stage::stage;

/// No pass of a cell may send more requests. The cleanest sends some 80; nine attempts at each of the dozen requests of
/// a batch that is planned anew ten times stay below.
const MOST_REQUESTS: usize = 600;
/// No pass of a cell may take longer: nine attempts of ten minutes, twice, and as much again for what follows.
const LONGEST: Duration = Duration::from_hours(6);

#[derive(Clone, Copy, Debug)]
struct Cell {
    scope: Scope,
    kind: Kind,
    times: Times,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        Scope::ALL.iter().flat_map(|scope| {
            Kind::ALL.iter().flat_map(move |kind| {
                Times::ALL.iter().map(move |times| Self { scope: *scope, kind: *kind, times: *times })
            })
        })
    }

    fn name(self) -> String {
        format!("{:?}/{:?}/{:?}", self.scope, self.kind, self.times)
    }

    /// What is wrong, if something is.
    async fn run(self, staged: &Bench) -> Result<(), String> {
        let Self { scope, kind, times } = self;
        let bench = staged.copy();
        scope.provoke(&bench);
        let fault = bench.bed.fault(times.of(scope.when()), kind.fault(scope));
        let Ok(ended) = tokio::time::timeout(LONGEST, bench.pass(scope.settings())).await else {
            return Err(format!("it did not end within {} h", LONGEST.as_secs() / 3600));
        };
        if fault.hits() == 0 {
            return Err(String::from("no request met the fault"));
        }
        let requests = bench.bed.requests().len();
        if requests > MOST_REQUESTS {
            return Err(format!("{requests} requests were sent"));
        }
        let expected = expected(scope, kind, times);
        judge(scope, &expected, &ended)
            .map_err(|why| format!("{why}\n    expected: {expected:?}\n    {}", told(&ended)))?;
        self.nothing_lost(&bench, expected == Expected::Done)?;
        self.mended(&bench).await
    }

    /// With the fault still there: no line is nowhere; after a pass that did everything, every line is there once.
    fn nothing_lost(self, bench: &Bench, all: bool) -> Result<(), String> {
        let kept = self.scope.settings().iter().any(|(name, _)| *name == "ROLLUP_KEEP");
        let Err(found) = bench.ledger.check_testbed(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/")) else {
            return Ok(());
        };
        let doubled = found.doubled > 0 && all && !kept;
        if found.lost > 0 || found.unknown > 0 || doubled { Err(format!("with the fault: {found}")) } else { Ok(()) }
    }

    /// After the fault, another pass does all the rest.
    async fn mended(self, bench: &Bench) -> Result<(), String> {
        bench.bed.clear_faults();
        bench.bed.allow_again();
        let ended = bench.pass(&[]).await;
        if ended.exit_code() != 0 {
            return Err(format!("the pass after it failed\n    {}", told(&ended)));
        }
        let sources = bench.bed.keys(LOGS);
        if !sources.is_empty() {
            return Err(format!("sources stay: {sources:?}"));
        }
        if let Err(found) = bench.ledger.check_testbed(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/")) {
            return Err(found.to_string());
        }
        let objects = bench.bed.keys_under(OUT, "rollup/_");
        let (probes, manifests): (Vec<_>, Vec<_>) = objects.into_iter().partition(|key| key.contains("/_probe-"));
        let uploads = bench.bed.uploads(OUT);
        let left = match (probes.is_empty(), uploads.is_empty()) {
            (true, true) => Leftover::Nothing,
            (true, false) => Leftover::Upload,
            (false, _) => Leftover::Probe,
        };
        let may = leftover(self.scope, self.kind, self.times);
        if !manifests.is_empty() || left != may {
            return Err(format!("left behind (may be: {may:?}): {manifests:?} {probes:?} {uploads:?}"));
        }
        Ok(())
    }
}

/// Did the pass end as it must?
fn judge(scope: Scope, expected: &Expected, ended: &Ended) -> Result<(), String> {
    let Ended { report, error } = ended;
    let error = error.as_ref().map(ToString::to_string).unwrap_or_default();
    let (code, says, text) = match expected {
        Expected::Done | Expected::Left(_) => (0, &[][..], String::new()),
        Expected::Ended(code, says) => (*code, &says[..], error.clone()),
        Expected::Failed(says) => {
            let failed = report.failures.iter().find(|failed| failed.rollup == scope.rollup());
            (1, &says[..], failed.map(|failed| failed.why.clone()).unwrap_or_default())
        }
        Expected::Named(_) => (1, &[][..], String::new()),
    };
    if ended.exit_code() != code {
        return Err(format!("the exit code is {}", ended.exit_code()));
    }
    if let Some(unsaid) = says.iter().find(|what| !text.contains(**what)) {
        return Err(format!("{text:?} does not say {unsaid:?}"));
    }
    let failed = u64::from(matches!(expected, Expected::Failed(_)));
    if report.rollups.failed != failed && !matches!(expected, Expected::Ended(..)) {
        return Err(format!("{} rollups failed", report.rollups.failed));
    }
    if let Expected::Left(reason) | Expected::Named(reason) = expected
        && !report.left.contains_key(*reason)
    {
        return Err(format!("nothing is left as {reason:?}"));
    }
    Ok(())
}

fn told(ended: &Ended) -> String {
    let report = &ended.report;
    format!("got: {} {:?} failures: {:?} left: {:?}", ended.exit_code(), report.error, report.failures, report.left)
}

/// S3's name of an operation.
fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::ListObjectsV2 => "ListObjectsV2",
        Operation::ListMultipartUploads => "ListMultipartUploads",
        Operation::GetObject => "GetObject",
        Operation::HeadObject => "HeadObject",
        Operation::GetObjectTagging => "GetObjectTagging",
        Operation::PutObject => "PutObject",
        Operation::CreateMultipartUpload => "CreateMultipartUpload",
        Operation::UploadPart => "UploadPart",
        Operation::UploadPartCopy => "UploadPartCopy",
        Operation::CompleteMultipartUpload => "CompleteMultipartUpload",
        Operation::AbortMultipartUpload => "AbortMultipartUpload",
        Operation::DeleteObject => "DeleteObject",
        Operation::DeleteObjects => "DeleteObjects",
        _ => "another operation",
    }
}

/// A runtime of its own whose clock stands still but for waiting.
fn paused<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(work)
}

/// Runs the cells on all cores, and names those that failed.
fn failures(cells: &[Cell]) -> Vec<String> {
    let staged = paused(stage());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let failure = |cell: &Cell| {
        let why = paused(cell.run(&staged)).err()?;
        let name = cell.name();
        Some(format!("{name}: {why}\n    CELL={name} cargo test --test it matrix -- --nocapture"))
    };
    std::thread::scope(|scope| {
        let chunks = cells.chunks(cells.len().div_ceil(threads));
        let running: Vec<_> =
            chunks.map(|cells| scope.spawn(|| cells.iter().filter_map(failure).collect::<Vec<_>>())).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a cell does not panic")).collect()
    })
}

#[test]
fn after_any_fault_a_pass_ends_as_documented_and_the_next_one_leaves_every_line_once() {
    let wanted = std::env::var("CELL").ok();
    let (cells, skipped): (Vec<_>, Vec<_>) = Cell::all()
        .filter(|cell| wanted.as_ref().is_none_or(|name| *name == cell.name()))
        .partition(|cell| impossible(cell.scope, cell.kind).is_none());
    assert!(!cells.is_empty(), "there is no cell {wanted:?}");
    let failures = failures(&cells);
    println!(
        "{} cells ({} requests × {} faults × {}), {} of them impossible",
        cells.len() + skipped.len(),
        Scope::ALL.len(),
        Kind::ALL.len(),
        Times::ALL.len(),
        skipped.len()
    );
    assert!(failures.is_empty(), "{} cells failed\n{}", failures.len(), failures.join("\n"));
}

/// The lists are complete and say the truth of what is sent and answered, or cells would be left out for a wrong reason.
#[test]
fn every_request_of_a_pass_is_in_the_matrix_and_has_the_body_that_it_says() {
    let staged = paused(stage());
    let mut unknown: Vec<Recorded> = Vec::new();
    for scope in Scope::ALL {
        let bench = staged.copy();
        scope.provoke(&bench);
        let ended = paused(bench.pass(scope.settings()));
        assert_eq!(ended.exit_code(), 0, "{scope:?}: {}", told(&ended));
        let requests = bench.bed.requests();
        for request in requests.iter().filter(|request| scope.when().fits(request) && request.applied) {
            let empty = request.bytes_out == 0 || request.operation == Operation::HeadObject;
            assert_eq!(empty, scope.body() == Body::Empty, "{scope:?}: {request:?}");
        }
        unknown.extend(requests.into_iter().filter(|request| !is_known(request)));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// Some cell is about such a request: one of that operation on that kind of object.
fn is_known(request: &Recorded) -> bool {
    let probe = request.key.as_deref().is_some_and(|key| key.contains("/_probe-"));
    let manifest = request.key.as_deref().is_some_and(|key| key.starts_with("rollup/_manifests/"));
    Scope::ALL.iter().any(|scope| {
        let of_manifests = matches!(scope, Scope::GetManifest | Scope::PutManifest | Scope::DeleteManifest);
        scope.operation() == request.operation
            && Some(scope.bucket()) == request.bucket.as_deref()
            && scope.is_of_the_probe() == probe
            && of_manifests == (manifest && !probe)
    })
}
