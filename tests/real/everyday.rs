//! What every user does.

use std::time::Instant;

use testbed::Spec;

use crate::place::{DESTINATION, Place};

#[tokio::test]
async fn a_pass_creates_a_rollup_of_each_group_and_day_and_deletes_the_logs() {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { groups: 3, days: 4, objects: 300, empty: 3, ..Spec::default() }).await;
    let pass = place.pass(&[]).await.done();
    assert_eq!(place.rollups().await.len(), 12);
    assert_eq!(pass.figure("/found/objects"), 303);
    assert_eq!(pass.figure("/rolled_up/objects"), 300);
    assert_eq!(pass.figure("/deleted"), 303);
    assert_eq!(pass.figure("/rollups/created"), 12);
    place.finished().await;
}

#[tokio::test]
async fn nothing_to_do_is_a_success_that_writes_nothing() {
    let Some(place) = Place::new().await else { return };
    let pass = place.pass(&[]).await.done();
    assert_eq!(pass.report()["requests"], serde_json::json!({ "ListObjectsV2": 2 }));
    assert_eq!(place.everything().await, (vec![], vec![]));
}

#[tokio::test]
async fn late_logs_are_appended_behind_the_old_lines() {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { objects: 60, ..Spec::default() }).await;
    place.pass(&[]).await.done();
    let key = format!("{DESTINATION}web/2026-01-31");
    let before = place.get(&place.rollups, &key).await;
    place.fill(&Spec { objects: 40, ..Spec::default() }).await;
    let pass = place.pass(&[]).await.done();
    let after = place.get(&place.rollups, &key).await;
    assert!(after.starts_with(&before) && after.len() > before.len());
    assert_eq!((pass.figure("/rollups/created"), pass.figure("/rollups/appended")), (0, 1));
    place.finished().await;
}

#[tokio::test]
async fn logs_that_are_kept_are_rolled_up_once_and_deleted_by_a_later_pass_without_keep() {
    let Some(mut place) = Place::new().await else { return };
    let first = place.fill(&Spec { groups: 2, days: 3, objects: 120, ..Spec::default() }).await;
    let pass = place.pass(&[("ROLLUP_KEEP", "true")]).await.done();
    assert_eq!((pass.figure("/rolled_up/objects"), pass.figure("/deleted")), (120, 0));
    assert_eq!(place.sources().await.len(), first.len());
    place.once_in_rollups().await;

    let again = place.pass(&[("ROLLUP_KEEP", "true")]).await.done();
    assert_eq!((again.figure("/rolled_up/objects"), again.figure("/deleted")), (0, 0));
    place.once_in_rollups().await;

    place.fill(&Spec { groups: 2, days: 3, objects: 30, ..Spec::default() }).await;
    let moved = place.pass(&[]).await.done();
    assert_eq!((moved.figure("/rolled_up/objects"), moved.figure("/deleted")), (30, 150));
    place.finished().await;
}

#[tokio::test]
async fn overwrite_rebuilds_rollups_from_their_logs_but_not_one_whose_logs_are_partly_gone() {
    let Some(mut place) = Place::new().await else { return };
    let logs = place.fill(&Spec { days: 2, objects: 60, ..Spec::default() }).await;
    place.pass(&[("ROLLUP_KEEP", "true")]).await.done();
    let overwrite = [("ROLLUP_KEEP", "true"), ("ROLLUP_OVERWRITE", "true")];
    let pass = place.pass(&overwrite).await.done();
    assert_eq!((pass.figure("/rolled_up/objects"), pass.figure("/rollups/replaced")), (60, 2));
    place.once_in_rollups().await;
    let expired = logs.keys().next().expect("there are logs");
    place.client.delete_object().bucket(&place.logs).key(expired).send().await.expect("a log expires");
    let pass = place.pass(&overwrite).await;
    assert_eq!((pass.figure("/rollups/replaced"), pass.figure("/rollups/failed")), (1, 1));
    assert!(pass.report().to_string().contains("only copy of their lines"), "{:#}", pass.report());
    assert_eq!(place.sources().await.len(), 59);
    place.once_in_rollups().await;
    place.pass(&[]).await.done();
    place.finished().await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_a_pass_would_do() {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { days: 2, objects: 40, ..Spec::default() }).await;
    place.pass(&[]).await.done();
    place.fill(&Spec { days: 4, objects: 60, empty: 2, ..Spec::default() }).await;
    let before = place.everything().await;
    let dry = place.pass(&[("ROLLUP_DRY_RUN", "true")]).await.done();
    assert_eq!(place.everything().await, before);
    let report = dry.report();
    assert_eq!(report["dry_run"], true);
    assert!(report["estimate"]["requests"].is_object(), "{report:#}");
    let reads = ["ListObjectsV2", "HeadObject", "GetObject", "GetObjectTagging"];
    let asked = report["requests"].as_object().expect("requests by kind");
    assert!(asked.keys().all(|kind| reads.contains(&kind.as_str())), "{asked:?}");

    let real = place.pass(&[]).await.done();
    for figures in ["found", "rolled_up", "deleted", "rollups"] {
        assert_eq!(report[figures], real.report()[figures], "{figures}");
    }
    place.finished().await;
}

#[tokio::test]
async fn twenty_thousand_logs_are_rolled_up_in_one_pass() {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { groups: 5, days: 8, objects: 20_000, ..Spec::default() }).await;
    let started = Instant::now();
    let pass = place.pass(&[]).await.done();
    eprintln!("{}: 20,000 logs in {:.1} s: {}", place.server.name, started.elapsed().as_secs_f64(), pass.message);
    assert_eq!((pass.figure("/rolled_up/objects"), pass.figure("/deleted")), (20_000, 20_000));
    assert_eq!(place.rollups().await.len(), 40);
    place.finished().await;
}
