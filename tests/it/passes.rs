//! Passes that run at once, each of which may be killed; and many cases on all cores.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use s3_log_rollup::pass::Ended;
use tokio::sync::{oneshot, watch};

use crate::bench::{Bench, config};

/// Passes under way, by the number of their client.
#[derive(Default)]
pub(crate) struct Passes<'b> {
    running: FuturesUnordered<LocalBoxFuture<'b, (u64, Option<Ended>)>>,
    kills: BTreeMap<u64, oneshot::Sender<()>>,
}

impl<'b> Passes<'b> {
    /// Starts a pass and returns the number of its client.
    pub(crate) fn start(&mut self, bench: &'b Bench, settings: &[(&str, &str)], seed: u64) -> u64 {
        let (config, sdk, client) = (config(settings), bench.sdk(), bench.bed.clients());
        let (kill, killed) = oneshot::channel();
        self.kills.insert(client, kill);
        self.running.push(Box::pin(async move {
            let (_stop, stopped) = watch::channel(false);
            tokio::select! {
                biased;
                Ok(()) = killed => (client, None),
                ended = bench.run(config, sdk, seed, stopped) => (client, Some(ended)),
            }
        }));
        client
    }

    /// Ends a pass where it stands: nothing that it has begun goes on.
    pub(crate) fn kill(&mut self, client: u64) {
        let kill = self.kills.remove(&client).expect("the pass is running");
        // It may have ended in this very moment.
        let _ = kill.send(());
    }

    /// The passes that are running, oldest first.
    pub(crate) fn clients(&self) -> Vec<u64> {
        self.kills.keys().copied().collect()
    }

    /// The next pass that ends, without its outcome where it was killed; `None` where none is running.
    pub(crate) async fn ended(&mut self) -> Option<(u64, Option<Ended>)> {
        let ended = self.running.next().await;
        if let Some((client, _)) = &ended {
            self.kills.remove(client);
        }
        ended
    }
}

/// Runs an async case on a clock of its own that is paused, with random numbers that follow from `seed`.
pub(crate) fn play<T>(seed: u64, case: impl Future<Output = T>) -> T {
    // Not the very numbers that a case draws from its seed: two passes of one seed would have the same batch ids.
    fastrand::seed(!seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(case)
}

/// Runs the cases `0..count` on all cores, until one fails.
///
/// # Panics
/// With what `replay` says of the first case that failed.
pub(crate) fn each(count: u64, case: impl Fn(u64) -> Result<(), String> + Sync, replay: impl Fn(u64) -> String) {
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || -> Option<(u64, String)> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || failed.load(Ordering::Relaxed) {
                return None;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| case(number)));
            let outcome = outcome.unwrap_or_else(|_| Err(String::from("it panicked, see above")));
            if let Err(why) = outcome {
                failed.store(true, Ordering::Relaxed);
                return Some((number, why));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: BTreeMap<u64, String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a case cannot panic")).collect()
    });
    if let Some((number, why)) = failures.first_key_value() {
        panic!("{why}\n{}", replay(*number));
    }
}
