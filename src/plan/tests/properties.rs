//! What holds for every listing, whatever is in it and in whatever order it comes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Keys of both formats in a few groups, over three years, sorted as S3 lists.
fn listing() -> impl Strategy<Value = Vec<(String, u64)>> {
    let time = 1_546_300_800_i64..1_640_995_200;
    let entry = (prop::sample::select(vec!["", "a", "a/", "b/2/", "é/"]), time, "[0-9A-F]{1,3}", 0_u64..40, 0_u8..4);
    let key = entry.prop_map(|(group, seconds, unique, size, kind)| {
        let at = DateTime::from_timestamp(seconds, 0).unwrap();
        let text = match kind {
            0 => at.format("%Y-%m-%d-%H-%M-%S"),
            1 => at.format("%Y/%m/%d/%Y-%m-%d-%H-%M-%S"),
            2 => at.format("%Y/%m/%d/%Y-%m-%d-00-00-00"),
            _ => at.format("no time %Y"),
        };
        (format!("logs/{group}{text}-{unique}"), size)
    });
    prop::collection::btree_map(key.clone().prop_map(|(key, _)| key), key.prop_map(|(_, size)| size), 0..60)
        .prop_map(|map| map.into_iter().collect())
}

fn borrowed(listing: &[(String, u64)]) -> Vec<(&str, u64)> {
    listing.iter().map(|(key, size)| (key.as_str(), *size)).collect()
}

fn keys(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|batch| batch.sources.iter().chain(&batch.empty)).map(|s| s.key.to_string()).collect()
}

proptest! {
    #[test]
    fn every_log_key_lands_in_exactly_one_batch_of_its_rollup(listing in listing(), objects in 1_usize..5, bytes in 1_u64..90) {
        let settings = PlanSettings { batch_objects: objects, batch_bytes: bytes, ..settings(Level::Month) };
        let layout = settings.layout.clone();
        let batches = plan(settings, &borrowed(&listing));
        let mut planned = keys(&batches);
        planned.sort();
        let logs: Vec<_> = listing.iter().map(|(key, _)| key).filter(|key| LogKey::parse("logs/", key).is_some()).collect();
        prop_assert_eq!(planned.iter().collect::<Vec<_>>(), logs);
        for batch in &batches {
            prop_assert!(batch.sources.len() + batch.empty.len() <= objects);
            prop_assert!(batch.bytes <= bytes || batch.sources.len() == 1);
            prop_assert_eq!(batch.bytes, batch.sources.iter().map(|s| s.size).sum::<u64>());
            prop_assert!(batch.empty.iter().all(|s| s.size == 0) && batch.sources.iter().all(|s| s.size > 0));
            for source in batch.sources.iter().chain(&batch.empty) {
                let log = LogKey::parse("logs/", &source.key).unwrap();
                let rollup = layout.rollup(log.group(), &Period::of(Level::Month, log.at()));
                prop_assert_eq!(rollup.as_ref(), Some(&batch.rollup));
            }
        }
        for (batch, next) in batches.iter().zip(batches.iter().skip(1)) {
            prop_assert!(batch.end == BatchEnd::Passed || batch.rollup == next.rollup);
        }
    }

    #[test]
    fn every_object_of_a_rollup_in_the_stretch_that_a_batch_covers_is_in_the_batch(listing in listing(), objects in 1_usize..5) {
        let settings = PlanSettings { batch_objects: objects, since: Some(time("2020-02-10T10:00:00Z")), ..settings(Level::Month) };
        let layout = settings.layout.clone();
        for batch in plan(settings, &borrowed(&listing)) {
            let Some(range) = &batch.covers else { continue };
            let inside = listing.iter().map(|(key, _)| key).filter(|key| {
                range.after.as_deref().is_none_or(|after| after < key.as_str()) && ***key <= *range.until
            });
            let own = inside.filter(|key| LogKey::parse("logs/", key).is_some_and(|log| {
                layout.rollup(log.group(), &Period::of(Level::Month, log.at())).as_ref() == Some(&batch.rollup)
            }));
            prop_assert_eq!(own.count(), batch.sources.len() + batch.empty.len());
        }
    }

    #[test]
    fn jumping_over_what_the_window_excludes_plans_the_same_objects(
        listing in listing(),
        page in 1_usize..4,
        since in 1_546_300_800_i64..1_640_995_200,
        length in 0_i64..40_000_000,
    ) {
        let since = DateTime::from_timestamp(since, 0).unwrap();
        let until = since + TimeDelta::seconds(length);
        let settings = || PlanSettings { since: Some(since), until: Some(until), ..settings(Level::Day) };
        let whole = plan(settings(), &borrowed(&listing));
        let mut jumping = planner(settings());
        let (mut batches, mut after) = (Vec::new(), String::new());
        loop {
            let shown: Vec<_> = listing.iter().filter(|(key, _)| *key > after).take(page).collect();
            let Some((last, _)) = shown.last() else { break };
            for (key, size) in &shown {
                batches.extend(jumping.push(listed(key, *size)).unwrap());
            }
            after = jumping.skip_to(last).unwrap_or_else(|| last.clone());
            prop_assert!(after >= *last);
        }
        batches.extend(jumping.finish().unwrap());
        prop_assert_eq!(keys(&batches), keys(&whole));
    }

    #[test]
    fn windows_that_follow_each_other_take_every_log_object_once(listing in listing(), cut in 1_546_300_800_i64..1_640_995_200) {
        let cut = DateTime::from_timestamp(cut, 0);
        let before = plan(PlanSettings { until: cut, ..settings(Level::Day) }, &borrowed(&listing));
        let after = plan(PlanSettings { since: cut, ..settings(Level::Day) }, &borrowed(&listing));
        let mut both = [keys(&before), keys(&after)].concat();
        both.sort();
        let mut whole = keys(&plan(settings(Level::Day), &borrowed(&listing)));
        whole.sort();
        prop_assert_eq!(both, whole);
    }

    #[test]
    fn no_listing_however_broken_brings_an_object_into_two_batches(listing in listing(), order in prop::collection::vec(0_usize..60, 0..120)) {
        let objects = borrowed(&listing);
        let shuffled: Vec<_> = order.iter().filter_map(|at| objects.get(*at).copied()).collect();
        let mut planned = keys(&plan(settings(Level::Day), &shuffled));
        let before = planned.len();
        planned.sort();
        planned.dedup();
        prop_assert_eq!(planned.len(), before);
    }
}

/// Log objects, things that only look like them, and plain noise.
fn any_key() -> impl Strategy<Value = String> {
    let time = prop_oneof![1_568_000_000_i64..1_569_000_000, 1_546_300_800_i64..1_640_995_200];
    let group = prop_oneof!["[ab/]{0,3}", "_[a-z]{0,2}/", "[a-z]{1,2}/2019-09-[0-9]{2}/", "(?s:.){0,4}"];
    let log = (
        group,
        time,
        "[0-9A-F]{1,2}",
        prop::sample::select(vec!["%Y-%m-%d-%H-%M-%S", "%Y/%m/%d/%Y-%m-%d-%H-%M-%S", "%Y/%m/%d/%Y-%m-%d-00-00-00"]),
    );
    let log = log.prop_map(|(group, seconds, unique, format)| {
        let at = DateTime::from_timestamp(seconds, 0).unwrap();
        format!("logs/{group}{}-{unique}", at.format(format))
    });
    prop_oneof![6 => log, 1 => "logs/(?s:.){0,6}", 1 => "(?s:.){0,6}"]
}

/// A listing by a store that may list in any order, list twice, and list what was not asked for.
fn any_listing() -> impl Strategy<Value = Vec<(String, u64, Storage)>> {
    let storage = prop_oneof![9 => Just(Storage::Readable), 1 => Just(Storage::Archived)];
    let size = prop_oneof![4 => 0_u64..40, 1 => any::<u64>()];
    let objects = prop::collection::vec((any_key(), size, storage), 1..40);
    (objects, prop::collection::vec(any::<prop::sample::Index>(), 0..60), 0_u8..3).prop_map(
        |(mut objects, order, how)| {
            objects.sort_by(|one, other| one.0.cmp(&other.0));
            objects.dedup_by(|one, other| one.0 == other.0);
            match how {
                0 => objects,
                1 => order.iter().map(|at| at.get(&objects).clone()).collect(),
                _ => {
                    let again: Vec<_> = order.iter().take(5).map(|at| at.get(&objects).clone()).collect();
                    objects.extend(again);
                    objects.sort_by(|one, other| one.0.cmp(&other.0));
                    objects
                }
            }
        },
    )
}

fn any_settings() -> impl Strategy<Value = PlanSettings> {
    let instant =
        prop::option::of(prop_oneof![1_568_000_000_i64..1_569_000_000, -8_000_000_000_000_i64..8_000_000_000_000]);
    let settle = prop::option::of(prop_oneof![0_u64..400_000, any::<u64>()]);
    let shard = (1_u32..4).prop_flat_map(|count| (Just(count), 0..count));
    let level = prop::sample::select(Level::ALL.to_vec());
    (level, instant.clone(), instant, settle, shard, 1_usize..5, 1_u64..90).prop_map(
        |(level, since, until, settle, (count, index), batch_objects, batch_bytes)| PlanSettings {
            since: since.and_then(|since| DateTime::from_timestamp(since, 0)),
            until: until.and_then(|until| DateTime::from_timestamp(until, 0)),
            settle: settle.map(Duration::from_secs),
            shard: Shard::new(count, index).unwrap(),
            batch_objects,
            batch_bytes,
            ..settings(level)
        },
    )
}

/// What is to become of an object whose key is greater than all before it: a rollup, or a reason to stay.
fn fate(settings: &PlanSettings, now: DateTime<Utc>, key: &str, storage: Storage) -> Result<RollupName, Reason> {
    let log = LogKey::parse(&settings.source_prefix, key).ok_or(Reason::NotALogKey)?;
    let period = Period::of(settings.layout.level(), log.at());
    let rollup = settings.layout.rollup(log.group(), &period).ok_or(Reason::NoRollupName)?;
    if shard_of(&rollup, settings.shard.count) != settings.shard.index {
        return Err(Reason::OtherShard);
    }
    let age = (now.naive_utc() - period.end()).to_std();
    if settings.settle.is_some_and(|settle| age.is_err() || age.is_ok_and(|age| age < settle)) {
        return Err(Reason::NotSettled);
    }
    let whole_day = log.may_be_a_date_only();
    let before = |end: DateTime<Utc>| {
        if whole_day { log.at().date() < end.date_naive() } else { log.at() < end.naive_utc() }
    };
    if settings.since.is_some_and(before) || settings.until.is_some_and(|until| !before(until)) {
        return Err(Reason::OutsideWindow);
    }
    if storage == Storage::Archived { Err(Reason::Archived) } else { Ok(rollup) }
}

proptest! {
    #[test]
    fn each_listed_object_is_in_exactly_one_batch_or_left_for_its_reason(settings in any_settings(), listing in any_listing()) {
        let now = time("2019-09-14T12:00:00Z");
        let mut planner = Planner::new(settings.clone(), now);
        let (mut batches, mut expected, mut left) = (Vec::new(), HashMap::new(), [0_u64; Reason::ALL.len()]);
        let (mut last, mut repeated) = (None, 0);
        for (key, size, storage) in &listing {
            match planner.push(Listed { storage: *storage, ..listed(key, *size) }) {
                Ok(batch) => batches.extend(batch),
                // Keys by event time at a level that needs the time of day: the pass ends with it.
                Err(_) => return Ok(()),
            }
            match last.as_ref().cmp(&Some(key)) {
                Ordering::Equal => repeated += 1,
                Ordering::Greater => left[Reason::OutOfOrder as usize] += 1,
                Ordering::Less => match fate(&settings, now, key, *storage) {
                    Ok(rollup) => drop(expected.insert(key.clone(), (rollup, *size))),
                    Err(reason) => left[reason as usize] += 1,
                },
            }
            last = last.max(Some(key.clone()));
        }
        let Ok(end) = planner.finish() else { return Ok(()) };
        batches.extend(end);
        for batch in &batches {
            let (sources, empty) = (&batch.sources, &batch.empty);
            prop_assert!((1..=settings.batch_objects).contains(&(sources.len() + empty.len())));
            prop_assert!(batch.bytes <= settings.batch_bytes || sources.len() == 1, "{batch:?}");
            prop_assert_eq!(batch.bytes, sources.iter().map(|source| source.size).sum::<u64>());
            prop_assert!(sources.is_sorted_by_key(|source| &source.key) && empty.is_sorted_by_key(|source| &source.key));
            for source in sources.iter().chain(empty) {
                let planned = expected.remove(&*source.key);
                prop_assert_eq!(planned, Some((batch.rollup.clone(), source.size)), "twice, or against its reason");
            }
        }
        prop_assert!(expected.is_empty(), "in no batch, without a reason: {:?}", expected);
        let tally = planner.tally();
        prop_assert_eq!(tally.repeated, repeated);
        prop_assert_eq!(Reason::ALL.map(|reason| tally.left(reason).count.objects), left);
        let left: u64 = left.iter().sum();
        prop_assert_eq!(tally.listed.objects, tally.planned.objects + left + repeated);
        prop_assert_eq!(tally.batches, batches.len() as u64);
    }

    #[test]
    fn every_shard_takes_its_rollups_and_all_of_them_everything(listing in listing(), count in 1_u32..9) {
        let settings = |shard| PlanSettings { shard, ..settings(Level::Day) };
        let shards = (0..count).map(|index| Shard::new(count, index).unwrap());
        let mut taken: Vec<String> = shards.flat_map(|shard| keys(&plan(settings(shard), &borrowed(&listing)))).collect();
        taken.sort();
        let mut whole = keys(&plan(settings(Shard::WHOLE), &borrowed(&listing)));
        whole.sort();
        prop_assert_eq!(taken, whole);
    }

    #[test]
    fn no_window_however_far_jumps_over_what_it_takes(settings in any_settings(), listing in listing(), page in 1_usize..4) {
        let settings = PlanSettings { settle: None, shard: Shard::WHOLE, ..settings };
        let planner = planner(settings.clone());
        for (at, (key, _)) in listing.iter().enumerate().skip(page).step_by(page) {
            let Some(target) = planner.skip_to(key) else { continue };
            prop_assert!(target > *key);
            for (over, _) in listing[at + 1..].iter().filter(|(over, _)| *over <= target) {
                let fate = fate(&settings, time("2019-09-14T12:00:00Z"), over, Storage::Readable);
                prop_assert!(fate.is_err(), "{target:?} jumps over {over:?}");
            }
        }
    }
}
