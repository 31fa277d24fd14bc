//! kill -9 in the middle, and run again.

use rstest::rstest;
use testbed::Spec;

use crate::place::Place;
use crate::proxy::{Moment, Proxy};

impl Place {
    /// Runs the program until the moment and kills it there. False when it ended before.
    async fn pass_killed_at(&self, moment: Moment) -> bool {
        let proxy = Proxy::start(&self.server.endpoint, Some(moment)).await;
        let mut program = self.program(&[("AWS_ENDPOINT_URL_S3", &proxy.endpoint())]);
        let mut running = program.command.spawn().expect("the program runs");
        tokio::select! {
            () = proxy.reached() => {}
            ended = running.wait() => {
                let code = ended.expect("it ran").code();
                assert_eq!(code, Some(0), "it ended by itself after {} writes", proxy.writes());
                return false;
            }
        }
        // SIGKILL; the program cannot do anything about it.
        running.kill().await.expect("it is running");
        true
    }

    /// Kills passes at chance moments in a row, and lets one run to its end.
    async fn killed_again_and_again(&self, dice: &mut fastrand::Rng, kills: usize, writes: u64) {
        for _ in 0..kills {
            let moment = Moment { write: dice.u64(1..=writes), applied: dice.bool() };
            let killed = self.pass_killed_at(moment).await;
            let how = if moment.applied { "after" } else { "before" };
            let outcome = if killed { "killed" } else { "ended before its kill" };
            eprintln!("{}: {outcome} {how} write {}", self.server.name, moment.write);
        }
        let pass = self.pass(&[]).await.done();
        eprintln!("{}: and then {}", self.server.name, pass.message);
        assert_eq!(self.sources().await, [""; 0], "sources are left");
        self.once().await;
        // A killed pass leaves its own probe and uploads behind, which nobody can tell from those of a running one.
        let manifests = self.leftovers().await.into_iter().filter(|key| !key.contains("/_probe"));
        assert_eq!(manifests.collect::<Vec<_>>(), [""; 0], "manifests are left");
    }
}

fn dice(server: &str) -> fastrand::Rng {
    let seed = std::env::var("REAL_S3_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("{server}: REAL_S3_SEED={seed}");
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
