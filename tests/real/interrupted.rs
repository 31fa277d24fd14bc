//! kill -9 in the middle, and run again.

use std::collections::BTreeMap;

use rstest::rstest;
use testbed::Spec;

use crate::place::{Place, seed};
use crate::program::Program;
use crate::proxy::{Counted, Moment, Phase, Plan, Proxy};

impl Program {
    /// Runs until the proxy stops the world and is killed there: the requests in flight then, or the exit code of a pass
    /// that ended before.
    pub(crate) async fn killed_at(mut self, proxy: &Proxy) -> Result<BTreeMap<Phase, u64>, Option<i32>> {
        let mut running = self.command.spawn().expect("the program runs");
        tokio::select! {
            () = proxy.reached() => {}
            ended = running.wait() => return Err(ended.expect("it ran").code()),
        }
        let in_flight = proxy.in_flight();
        // SIGKILL; the program cannot do anything about it.
        running.kill().await.expect("it is running");
        Ok(in_flight)
    }
}

impl Place {
    /// Kills passes at chance moments in a row, and lets one run to its end.
    async fn killed_again_and_again(&self, dice: &mut fastrand::Rng, kills: usize, writes: u64) {
        for _ in 0..kills {
            let moment = Moment { counted: Counted::Writes, number: dice.u64(1..=writes), applied: dice.bool() };
            let plan = Plan { moment: Some(moment), weather: None };
            let proxy = Proxy::start(&self.server.endpoint, plan).await;
            let killed = self.program(&[("AWS_ENDPOINT_URL_S3", &proxy.endpoint())]).killed_at(&proxy).await;
            if let Err(code) = killed {
                assert_eq!(code, Some(0), "it ended by itself after {} requests", proxy.requests());
            }
            let outcome = if killed.is_ok() { "killed" } else { "ended by itself, not killed" };
            eprintln!("{}: {outcome} {moment}", self.server.name);
        }
        let pass = self.pass(&[]).await.done();
        eprintln!("{}: and then {}", self.server.name, pass.message);
        self.settled().await;
    }
}

fn dice(server: &str) -> fastrand::Rng {
    let seed = seed();
    eprintln!("{server}: SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[tokio::test]
async fn a_killed_pass_loses_and_doubles_nothing() {
    let Some(mut place) = Place::new().await else { return };
    let mut dice = dice(&place.server.name);
    for _ in 0..2 {
        place.fill(&Spec { groups: 2, days: 5, objects: 600, ..Spec::default() }).await;
        // Some 15 writes are the probe's; each of the ten rollups takes four.
        place.killed_again_and_again(&mut dice, 4, 55).await;
    }
}

#[rstest]
#[case::a_put(20, 1_000, 22)]
#[case::an_upload(100, 64 << 10, 26)]
#[tokio::test]
async fn a_killed_append_to_a_large_rollup_loses_and_doubles_nothing(
    #[case] objects: usize,
    #[case] size: usize,
    #[case] writes: u64,
) {
    let Some(mut place) = Place::new().await else { return };
    let mut dice = dice(&place.server.name);
    place.fill_large(100, 64 << 10).await;
    place.killed_again_and_again(&mut dice, 2, writes).await;
    place.fill_large(objects, size).await;
    place.killed_again_and_again(&mut dice, 4, writes).await;
}
