use testbed::{Moment, Schedule, Turn};

use crate::{answer, logs, put, told};

/// The places of what waits: for what, and of which request.
fn waiting(schedule: &Schedule) -> Vec<(Moment, u64, bool)> {
    schedule.waiting().into_iter().map(|it| (it.moment, it.request.seq, it.late)).collect()
}

#[tokio::test(start_paused = true)]
async fn requests_are_applied_and_answered_in_the_order_of_their_turns() {
    let (bed, client) = logs();
    let schedule = bed.schedule();
    let writes = async { tokio::join!(put(&client, "k", "first\n"), put(&client, "k", "second\n")) };
    let turns = async {
        schedule.settled().await;
        assert_eq!(waiting(&schedule), [(Moment::Before, 1, false), (Moment::Before, 2, false)]);
        schedule.turn(1, Turn::Go);
        schedule.settled().await;
        assert_eq!(bed.object("logs", "k").unwrap().bytes(), "second\n");
        assert_eq!(waiting(&schedule), [(Moment::Before, 1, false), (Moment::Applied, 2, false)]);
        schedule.turn(0, Turn::Go);
        schedule.settled().await;
        drop(schedule);
    };
    tokio::join!(writes, turns);
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "first\n");
}

#[tokio::test(start_paused = true)]
async fn a_turn_may_cut_refuse_or_delay_a_request() {
    let (bed, client) = logs();
    let schedule = bed.schedule();
    let get = || client.get_object().bucket("logs").key("k").send();
    let write = |body: &'static [u8]| client.put_object().bucket("logs").key("k").body(body.to_vec().into()).send();
    let step = async |turn| {
        schedule.settled().await;
        schedule.turn(0, turn);
    };
    let (lost, ()) = tokio::join!(write(b"late\n"), step(Turn::Later));
    assert!(lost.is_err());
    assert!(bed.keys("logs").is_empty());
    schedule.settled().await;
    assert_eq!(waiting(&schedule), [(Moment::Before, 1, true)]);
    schedule.turn(0, Turn::Go);
    let (slow, ()) = tokio::join!(get(), async {
        step(Turn::SlowDown).await;
        step(Turn::Go).await;
    });
    assert_eq!(told(slow), answer(503, "SlowDown"));
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "late\n");
    let (cut, ()) = tokio::join!(write(b"never\n"), step(Turn::Cut));
    assert!(cut.is_err());
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "late\n");
    let (unanswered, ()) = tokio::join!(write(b"applied\n"), async {
        step(Turn::Go).await;
        step(Turn::Cut).await;
    });
    assert!(unanswered.is_err());
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "applied\n");
}

#[tokio::test]
async fn a_fork_goes_its_own_way() {
    let (bed, client) = logs();
    put(&client, "k", "before\n").await;
    let upload = client.create_multipart_upload().bucket("logs").key("u").send().await.unwrap();
    let fork = bed.copy();
    put(&client, "k", "after\n").await;
    fork.put("logs", "l", "another\n");
    assert_eq!(fork.object("logs", "k").unwrap().bytes(), "before\n");
    assert_eq!(bed.keys("logs"), ["k"]);
    assert_eq!(fork.uploads("logs")[0].1, upload.upload_id().unwrap());
}
