//! Runs beside each other.

use testbed::Spec;

use crate::place::Place;

#[tokio::test]
async fn two_passes_at_once_put_every_line_into_one_rollup_once() {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { groups: 3, days: 4, objects: 3_000, ..Spec::default() }).await;
    let (one, two) = tokio::join!(place.pass(&[]), place.pass(&[]));
    eprintln!("{}: two at once:\n  {}\n  {}", place.server.name, one.message, two.message);
    place.once().await;
    let (one, two) = (one.done(), two.done());
    assert_eq!(one.figure("/rolled_up/objects") + two.figure("/rolled_up/objects"), 3_000);
    // What one pass left to the other may be settled by neither.
    place.pass(&[]).await.done();
    place.finished().await;
}
