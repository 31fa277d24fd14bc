//! Rollups that are too large to be sent again.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use chrono::{NaiveDate, NaiveTime};
use rstest::rstest;
use testbed::Format;

use crate::place::{DESTINATION, Place, SOURCE};

/// The least size of a copied part.
pub(crate) const SMALLEST_PART: u64 = 5 << 20;

impl Place {
    /// Puts this many log objects of this size at least, all of one group and day.
    pub(crate) async fn fill_large(&mut self, objects: usize, size: usize) -> BTreeMap<String, Bytes> {
        let at = NaiveDate::from_ymd_opt(2026, 1, 31).expect("a date").and_time(NaiveTime::MIN);
        let mut object = || {
            let (key, first) = self.generator.object(Format::Simple, &format!("{SOURCE}web/"), "web", at);
            let mut body = BytesMut::from(&first[..]);
            while body.len() < size {
                if !body.ends_with(b"\n") {
                    body.extend_from_slice(b"\n");
                }
                body.extend_from_slice(&self.generator.body("web", at));
            }
            (key, body.freeze())
        };
        let objects = (0..objects).map(|_| object()).collect();
        self.put_logs(&objects).await;
        objects
    }
}

/// The logs in the order of their keys, each on lines of its own.
fn joined<'l>(before: &[u8], logs: impl IntoIterator<Item = &'l Bytes>) -> Vec<u8> {
    logs.into_iter().fold(before.to_vec(), |mut rollup, log| {
        if !rollup.is_empty() && !rollup.ends_with(b"\n") {
            rollup.push(b'\n');
        }
        rollup.extend_from_slice(log);
        rollup
    })
}

#[rstest]
#[case::a_few_late_logs(20, 1_000)]
#[case::as_many_again(100, 64 << 10)]
#[tokio::test]
async fn an_append_to_a_large_rollup_sends_the_new_lines_alone(#[case] objects: usize, #[case] size: usize) {
    let Some(mut place) = Place::new().await else { return };
    let first = place.fill_large(100, 64 << 10).await;
    place.pass(&[]).await.done();
    let key = format!("{DESTINATION}web/2026-01-31");
    let before = place.get(&place.rollups, &key).await;
    assert!(before.len() as u64 > SMALLEST_PART);
    assert!(before == joined(&[], first.values()), "the first rollup is not its logs in the order of their keys");

    let late = place.fill_large(objects, size).await;
    let new: u64 = late.values().map(|body| body.len() as u64).sum();
    let pass = place.pass(&[]).await.done();
    assert_eq!((pass.figure("/rollups/appended"), pass.figure("/rolled_up/objects")), (1, objects as u64));
    let more = pass.figure("/sent") - new;
    assert!(more < 100_000, "{more} bytes more than the new lines were sent: {}", pass.message);
    let after = place.get(&place.rollups, &key).await;
    // The newline that a rollup without one gets before more is added belongs to neither.
    assert!(trimmed(&after) == trimmed(&joined(&before, late.values())), "the rollup is not the old bytes and the new");
    place.finished().await;
}

fn trimmed(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}
