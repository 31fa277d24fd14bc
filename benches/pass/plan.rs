//! Planning alone: keys parsed and put into batches, on one core, without a listing.

use std::time::Instant;

use s3_log_rollup::layout::Layout;
use s3_log_rollup::period::Level;
use s3_log_rollup::plan::{Listed, PlanSettings, Planner, Shard, Storage};
use s3_log_rollup::source::ETag;

use crate::server::Fill;

/// Distinct keys; they are planned over and over.
const KEYS: usize = 100_000;

/// Plans so many keys, and prints how many a second.
pub(crate) fn run(keys: usize) {
    let fill = Fill { objects: KEYS.min(keys), ..Fill::default() };
    let mut listed: Vec<String> = fill.keys().collect();
    listed.sort_unstable();
    let tags: Vec<String> = (0..listed.len()).map(|number| format!("\"{number:032x}\"")).collect();
    let start = Instant::now();
    let planned: usize = (0..keys / listed.len()).map(|_| plan_once(&listed, &tags)).sum();
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(planned, keys / listed.len() * listed.len(), "keys planned");
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵²")]
    let rate = planned as f64 / seconds;
    println!("{rate:.0}");
}

/// How many of them are in batches.
fn plan_once(listed: &[String], tags: &[String]) -> usize {
    let layout = Layout::new("{group}/{period}", Level::Day, "rollup/").expect("the default template");
    let settings = PlanSettings {
        source_prefix: String::from("logs/"),
        layout,
        since: None,
        until: None,
        settle: None,
        shard: Shard::WHOLE,
        batch_objects: 10_000,
        batch_bytes: 1 << 30,
    };
    let mut planner = Planner::new(settings, chrono::DateTime::UNIX_EPOCH);
    let mut sum = 0;
    for (key, tag) in listed.iter().zip(tags) {
        let object = Listed { key, etag: ETag::new(tag), size: 300, storage: Storage::Readable };
        let batch = planner.push(object).expect("simple keys");
        sum += batch.map_or(0, |batch| batch.sources.len());
    }
    sum + planner.finish().expect("simple keys").map_or(0, |batch| batch.sources.len())
}
