mod properties;

use rstest::rstest;

use super::*;

fn settings(level: Level) -> PlanSettings {
    PlanSettings {
        source_prefix: "logs/".to_owned(),
        layout: Layout::new("{group}/{period}", level, "").unwrap(),
        since: None,
        until: None,
        settle: None,
        shard: Shard::WHOLE,
        batch_objects: 50_000,
        batch_bytes: 1 << 30,
    }
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn planner(settings: PlanSettings) -> Planner {
    Planner::new(settings, time("2019-09-15T00:00:00Z"))
}

fn listed(key: &str, size: u64) -> Listed<'_> {
    Listed { key, etag: ETag::new("e"), size, storage: Storage::Readable }
}

/// Pushes everything and collects the batches.
fn run(planner: &mut Planner, objects: &[(&str, u64)]) -> Result<Vec<Batch>, EventTimeKeys> {
    let mut batches = Vec::new();
    for (key, size) in objects {
        batches.extend(planner.push(listed(key, *size))?);
    }
    batches.extend(planner.finish()?);
    Ok(batches)
}

/// Each batch as `name=keys`, the keys less the prefix.
fn shown(batches: &[Batch]) -> Vec<String> {
    let keys = |batch: &Batch| {
        let mut keys: Vec<_> =
            batch.sources.iter().chain(&batch.empty).map(|source| source.key[5..].to_owned()).collect();
        keys.sort();
        keys.join(" ")
    };
    batches.iter().map(|batch| format!("{}={}", batch.rollup, keys(batch))).collect()
}

fn plan(settings: PlanSettings, objects: &[(&str, u64)]) -> Vec<Batch> {
    run(&mut planner(settings), objects).unwrap()
}

const THREE_DAYS: [(&str, u64); 5] = [
    ("logs/a/2019-09-13-10-00-00-A", 10),
    ("logs/a/2019-09-14-10-00-00-A", 10),
    ("logs/a/2019-09-14-11-00-00-A", 10),
    ("logs/b/2019-09-14-10-00-00-A", 10),
    ("logs/b/2019-09-14-10-00-00-B", 0),
];

#[test]
fn a_rollup_is_handed_on_as_soon_as_the_listing_has_passed_it() {
    let mut planner = planner(settings(Level::Day));
    let mut after = Vec::new();
    for (key, size) in THREE_DAYS {
        after.push(planner.push(listed(key, size)).unwrap().map(|batch| batch.rollup.to_string()));
    }
    let name = |text: &str| Some(text.to_owned());
    assert_eq!(after, [None, name("a/2019-09-13"), None, name("a/2019-09-14"), None]);
    let last = planner.finish().unwrap().unwrap();
    assert_eq!((last.sources.len(), last.empty.len(), last.bytes), (1, 1, 10));
    assert_eq!((last.end, &*last.group, last.period.name().as_str()), (BatchEnd::Passed, "b/", "2019-09-14"));
    assert_eq!(planner.finish(), Ok(None));
    assert_eq!(planner.tally().planned, Count { objects: 5, bytes: 40 });
    assert_eq!(planner.tally().batches, 3);
}

#[test]
fn a_months_rollup_joins_the_days_of_partitioned_keys() {
    let days = [
        ("logs/1/r/b/2019/09/13/2019-09-13-00-00-00-A", 1),
        ("logs/1/r/b/2019/09/14/2019-09-14-00-00-00-A", 1),
        ("logs/1/r/b/2019/10/01/2019-10-01-00-00-00-A", 1),
    ];
    let names: Vec<_> = plan(settings(Level::Month), &days).iter().map(|batch| batch.rollup.to_string()).collect();
    assert_eq!(names, ["1/r/b/2019-09", "1/r/b/2019-10"]);
}

#[test]
fn a_batch_is_cut_by_its_number_of_objects_and_by_its_bytes() {
    let keys = ["A", "B", "C", "D", "E"].map(|unique| format!("logs/2019-09-14-10-00-00-{unique}"));
    let sized = |sizes: [u64; 5]| -> Vec<(Vec<u64>, BatchEnd)> {
        let objects: Vec<_> = keys.iter().map(String::as_str).zip(sizes).collect();
        let limits = PlanSettings { batch_objects: 3, batch_bytes: 100, ..settings(Level::Day) };
        let batches = plan(limits, &objects);
        batches.iter().map(|batch| (batch.sources.iter().map(|s| s.size).collect(), batch.end)).collect()
    };
    assert_eq!(sized([1; 5]), [(vec![1, 1, 1], BatchEnd::Full), (vec![1, 1], BatchEnd::Passed)]);
    assert_eq!(sized([60, 40, 1, 1, 1]), [(vec![60, 40], BatchEnd::Full), (vec![1, 1, 1], BatchEnd::Passed)]);
    assert_eq!(
        sized([1, 500, 1, u64::MAX, u64::MAX]),
        [
            (vec![1], BatchEnd::Full),
            (vec![500], BatchEnd::Full),
            (vec![1], BatchEnd::Full),
            (vec![u64::MAX], BatchEnd::Full),
            (vec![u64::MAX], BatchEnd::Passed)
        ]
    );
    // Empty objects count as objects, and never open a batch because of their bytes.
    assert_eq!(sized([100, 0, 0, 0, 7]), [(vec![100], BatchEnd::Full), (vec![7], BatchEnd::Passed)]);
}

#[test]
fn a_rollup_that_another_groups_keys_interrupt_gets_one_more_batch() {
    let mut objects = vec![("logs/2019-09-14-10-00-00-A", 1), ("logs/2019-09-14-11-00-00-A", 1)];
    objects.insert(1, ("logs/2019-09-14-10x/2019-09-14-10-00-00-A", 1));
    let names: Vec<_> = plan(settings(Level::Day), &objects).iter().map(|batch| batch.rollup.to_string()).collect();
    assert_eq!(names, ["2019-09-14", "2019-09-14-10x/2019-09-14", "2019-09-14"]);
}

#[test]
fn two_groups_side_by_side_that_share_a_rollup_share_a_batch() {
    let objects = [("logs/a//2019-09-14-10-00-00-A", 1), ("logs/a/2019-09-14-10-00-00-A", 1)];
    assert_eq!(
        shown(&plan(settings(Level::Day), &objects)),
        ["a/2019-09-14=a//2019-09-14-10-00-00-A a/2019-09-14-10-00-00-A"]
    );
}

#[test]
fn what_is_left_is_counted_by_its_reason_with_up_to_three_examples() {
    let mut planner = planner(PlanSettings {
        since: Some(time("2019-09-02T00:00:00Z")),
        settle: Some(Duration::from_hours(1)),
        ..settings(Level::Day)
    });
    for key in ["logs/1", "logs/2", "logs/2019-09-01-10-00-00-A", "logs/2019-09-14-23-59-59-A", "logs/3", "logs/4"] {
        planner.push(listed(key, 7)).unwrap();
    }
    planner.push(listed("logs/_manifests/2019-09-03-10-00-00-A", 7)).unwrap();
    planner.push(Listed { storage: Storage::Archived, ..listed("logs/a/2019-09-03-10-00-00-A", 7) }).unwrap();
    planner.push(listed("logs/0", 7)).unwrap();
    assert_eq!(planner.finish(), Ok(None));
    let left = |reason| {
        let Left { count, examples } = planner.tally().left(reason);
        (count.objects, count.bytes, examples.join(" "))
    };
    assert_eq!(left(Reason::NotALogKey), (4, 28, "logs/1 logs/2 logs/3".to_owned()));
    assert_eq!(left(Reason::OutsideWindow), (1, 7, String::new()));
    assert_eq!(left(Reason::NotSettled), (1, 7, String::new()));
    assert_eq!(left(Reason::NoRollupName), (1, 7, "logs/_manifests/2019-09-03-10-00-00-A".to_owned()));
    assert_eq!(left(Reason::Archived), (1, 7, "logs/a/2019-09-03-10-00-00-A".to_owned()));
    assert_eq!(left(Reason::OutOfOrder), (1, 7, "logs/0".to_owned()));
    assert_eq!(planner.tally().listed, Count { objects: 9, bytes: 63 });
    for (at, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at);
    }
}

#[rstest]
#[case(0, true)]
#[case(3600, true)]
#[case(3601, false)]
#[case(u64::MAX, false)]
fn a_period_is_settled_when_it_ended_long_enough_ago(#[case] seconds: u64, #[case] planned: bool) {
    let settings = PlanSettings { settle: Some(Duration::from_secs(seconds)), ..settings(Level::Day) };
    let mut planner = Planner::new(settings, time("2019-09-15T01:00:00Z"));
    let batches = run(&mut planner, &[("logs/2019-09-14-00-00-01-A", 1)]).unwrap();
    assert_eq!(batches.len(), usize::from(planned));
}

#[rstest]
#[case(None, Storage::Readable)]
#[case(Some("STANDARD"), Storage::Readable)]
#[case(Some("GLACIER_IR"), Storage::Readable)]
#[case(Some("GLACIER"), Storage::Archived)]
#[case(Some("DEEP_ARCHIVE"), Storage::Archived)]
fn two_storage_classes_are_archives_unless_restored(#[case] class: Option<&str>, #[case] storage: Storage) {
    assert_eq!(Storage::of_class(class, false), storage);
    assert_eq!(Storage::of_class(class, true), Storage::Readable);
}

#[rstest]
#[case("web/2019-09-14", 7, 6)]
#[case("2019-09-14", 7, 2)]
#[case("2019-09-14", 1000, 320)]
#[case("é/2019-09", 1000, 237)]
fn a_rollup_keeps_its_shard_in_every_version(#[case] name: &str, #[case] count: u32, #[case] shard: u32) {
    let name = RollupName::parse(name).unwrap();
    assert_eq!(shard_of(&name, NonZeroU32::new(count).unwrap()), shard);
}

#[test]
fn every_rollup_belongs_to_exactly_one_shard() {
    let mut names: Vec<_> = (0..3)
        .flat_map(|index| {
            let shard = Shard::new(3, index).unwrap();
            shown(&plan(PlanSettings { shard, ..settings(Level::Hour) }, &THREE_DAYS))
        })
        .collect();
    names.sort();
    assert_eq!(names, shown(&plan(settings(Level::Hour), &THREE_DAYS)));
    assert_eq!((Shard::new(3, 3), Shard::new(0, 0)), (None, None));
}

#[rstest]
#[case(4, 4, &[0, 1, 2, 3])]
#[case(3, 8, &[0, 2, 5])]
#[case(4, 2, &[0, 0, 1, 1])]
#[case(2, 1, &[0, 0])]
#[case(2, 0, &[0, 0])]
fn shards_have_places_of_their_own_where_there_are_enough(
    #[case] count: u32,
    #[case] places: usize,
    #[case] shares: &[usize],
) {
    let found: Vec<_> = (0..count).map(|index| Shard::new(count, index).unwrap().share_of(places)).collect();
    assert_eq!(found, shares);
}

#[test]
fn a_listing_that_begins_behind_a_key_covers_nothing_before_it_and_what_lies_before_is_a_listing_of_its_own() {
    let [before, behind] = [[("logs/a/2019-09-13-10-00-00-A", 1)], [("logs/b/2019-09-13-10-00-00-A", 1)]];
    let mut planner = planner(settings(Level::Day));
    planner.begin_behind("logs/b/");
    let first = run(&mut planner, &behind).unwrap();
    let second = run(&mut planner, &before).unwrap();
    assert_eq!(shown(&first), ["b/2019-09-13=b/2019-09-13-10-00-00-A"]);
    assert_eq!(shown(&second), ["a/2019-09-13=a/2019-09-13-10-00-00-A"]);
    let after = |batch: &Batch| batch.covers.as_ref().expect("it is complete").after.as_deref().map(str::to_owned);
    assert_eq!((after(&first[0]).as_deref(), after(&second[0])), (Some("logs/b/"), None));
}

#[test]
fn what_is_listed_before_the_key_behind_which_the_listing_begins_is_left() {
    let mut planner = planner(settings(Level::Day));
    planner.begin_behind("logs/b/");
    let listed = [("logs/a/2019-09-13-10-00-00-A", 1), ("logs/b/2019-09-13-10-00-00-A", 1)];
    assert_eq!(shown(&run(&mut planner, &listed).unwrap()), ["b/2019-09-13=b/2019-09-13-10-00-00-A"]);
    assert_eq!(planner.tally().left(Reason::OutOfOrder).count.objects, 1);
}

const EVENT_TIME: [(&str, u64); 3] = [
    ("logs/1/r/b/2019/09/13/2019-09-13-00-00-00-A", 1),
    ("logs/1/r/b/2019/09/14/2019-09-14-00-00-00-A", 1),
    ("logs/1/r/b/2019/09/14/2019-09-14-00-00-00-B", 1),
];

#[rstest]
#[case(Level::Hour, 50_000)]
#[case(Level::TenMinutes, 50_000)]
#[case(Level::Hour, 1)]
fn keys_without_a_time_of_day_stop_a_level_that_needs_one(#[case] level: Level, #[case] batch_objects: usize) {
    let mut planner = planner(PlanSettings { batch_objects, ..settings(level) });
    let error = run(&mut planner, &EVENT_TIME).unwrap_err();
    assert_eq!((error.group.as_str(), error.level), ("1/r/b/", level));
    let message = error.to_string();
    assert!(message.contains("2019-09-14-00-00-00") && message.contains("ROLLUP_LEVEL"), "{message}");
}

#[test]
fn keys_without_a_time_of_day_are_fine_for_days_and_months() {
    assert_eq!(plan(settings(Level::Day), &EVENT_TIME).len(), 2);
    assert_eq!(plan(settings(Level::Month), &EVENT_TIME).len(), 1);
}

#[rstest]
#[case::another_second("logs/1/r/b/2019/09/14/2019-09-14-00-00-00-A", "logs/1/r/b/2019/09/14/2019-09-14-00-00-01-B")]
#[case::simple_format("logs/2019-09-14-00-00-00-A", "logs/2019-09-14-00-00-00-B")]
fn midnight_is_a_time_of_day_where_another_key_or_the_format_shows_it(#[case] first: &str, #[case] second: &str) {
    assert_eq!(plan(settings(Level::Hour), &[(first, 1), (second, 1)]).len(), 1);
}

#[test]
fn a_key_that_is_listed_twice_or_too_late_lands_in_one_batch_only() {
    let mut planner = planner(settings(Level::Day));
    let keys = [THREE_DAYS[1], THREE_DAYS[2], THREE_DAYS[2], THREE_DAYS[1], THREE_DAYS[3]];
    let batches = run(&mut planner, &keys).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.sources.len()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(planner.tally().repeated, 1);
    assert_eq!(planner.tally().left(Reason::OutOfOrder).count.objects, 1);
    assert!(batches.iter().all(|batch| batch.covers.is_none()));
}

#[test]
fn a_batch_covers_the_listing_from_the_key_before_it_to_its_last_key() {
    let limits = PlanSettings { batch_objects: 2, ..settings(Level::Day) };
    let objects = [
        ("logs/2019-09-13-10-00-00-A", 1),
        ("logs/2019-09-13-10-00-00-B", 0),
        ("logs/2019-09-13-10-00-00-C", 1),
        ("logs/2019-09-13-x", 1),
        ("logs/2019-09-14-10-00-00-A", 1),
    ];
    let ranges: Vec<_> = plan(limits, &objects)
        .into_iter()
        .map(|batch| batch.covers.map(|range| (range.after.map(String::from), range.until.to_string())).unwrap())
        .collect();
    let key = |at: usize| objects[at].0.to_owned();
    assert_eq!(ranges, [(None, key(1)), (Some(key(1)), key(2)), (Some(key(3)), key(4))]);
}

#[test]
fn a_batch_covers_nothing_where_something_between_its_keys_was_left_out() {
    let keys = ["A", "B", "C"].map(|unique| format!("logs/2019-09-14-10-00-00-{unique}"));
    let covered = |archived: usize| {
        let mut planner = planner(settings(Level::Day));
        for (at, key) in keys.iter().enumerate() {
            let storage = if at == archived { Storage::Archived } else { Storage::Readable };
            planner.push(Listed { storage, ..listed(key, 1) }).unwrap();
        }
        planner.finish().unwrap().unwrap().covers
    };
    let range = |after: Option<&str>, until: &str| Some(KeyRange { after: after.map(Into::into), until: until.into() });
    assert_eq!(covered(0), range(Some(&keys[0]), &keys[2]));
    assert_eq!(covered(1), None);
    assert_eq!(covered(2), range(None, &keys[1]));
}

#[test]
fn a_period_that_the_window_cuts_is_never_covered() {
    let since = Some(time("2019-09-13T09:00:00Z"));
    let until = Some(time("2019-09-14T23:59:59Z"));
    let batches = plan(PlanSettings { since, until, ..settings(Level::Day) }, &THREE_DAYS);
    assert!(batches.iter().all(|batch| batch.covers.is_none()));
    let batches = plan(PlanSettings { since, until, ..settings(Level::Hour) }, &THREE_DAYS);
    assert!(batches.iter().all(|batch| batch.covers.is_some()));
}

#[test]
fn a_million_objects_are_planned_while_one_batch_is_held() {
    let mut planner = planner(PlanSettings { batch_objects: 1000, ..settings(Level::Day) });
    let (mut key, mut handed_on, mut most) = (String::new(), 0, 0);
    for number in 0..1_000_000_u32 {
        use std::fmt::Write as _;
        key.clear();
        let (day, second) = (number / 86_400, number % 86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(key, "logs/web/2019-08-{:02}-{hour:02}-{minute:02}-{second:02}-A1B2", day + 1).unwrap();
        handed_on += planner.push(listed(&key, 100)).unwrap().map_or(0, |batch| batch.sources.len());
        most = most.max(planner.held());
    }
    handed_on += planner.finish().unwrap().map_or(0, |batch| batch.sources.len());
    assert_eq!((handed_on, most), (1_000_000, 1000));
    assert_eq!(planner.tally().planned.objects, 1_000_000);
}

impl Planner {
    /// Sources held at the moment.
    fn held(&self) -> usize {
        match &self.run {
            Some(Run { fate: Fate::Gather(gathering), .. }) => gathering.sources.len() + gathering.empty.len(),
            _ => 0,
        }
    }
}

#[rstest]
#[case::before_since_by_years("logs/a/2017-05-01-10-00-00-A", "logs/a/2017-:")]
#[case::before_since_in_its_year("logs/a/2019-05-01-10-00-00-A", "logs/a/2019-09-14")]
#[case::before_since_partitioned("logs/a/2019/05/01/2019-05-01-10-00-00-A", "logs/a/2019/09/14/")]
#[case::before_since_partitioned_by_years("logs/a/2017/05/01/2017-05-01-10-00-00-A", "logs/a/2017/:")]
#[case::after_until("logs/2021-05-01-10-00-00-A", "logs/2021-:")]
#[case::after_until_partitioned("logs/2021/05/01/2021-05-01-10-00-00-A", "logs/2021/:")]
fn a_jump_goes_over_what_the_window_excludes_in_the_same_year(#[case] last: &str, #[case] to: &str) {
    let since = Some(time("2019-09-14T12:00:00Z"));
    let until = Some(time("2020-09-14T12:00:00Z"));
    let planner = planner(PlanSettings { since, until, ..settings(Level::Day) });
    assert_eq!(planner.skip_to(last).as_deref(), Some(to));
}

#[rstest]
#[case::inside("logs/a/2019-10-01-10-00-00-A")]
#[case::on_the_day("logs/a/2019-09-14-10-00-00-A")]
#[case::no_log_key("logs/a/2017")]
#[case::date_of_until("logs/2020/09/14/2020-09-14-00-00-00-A")]
fn without_anything_to_jump_over_the_listing_goes_on(#[case] last: &str) {
    let since = Some(time("2019-09-14T12:00:00Z"));
    let until = Some(time("2020-09-14T12:00:00Z"));
    let windowed = planner(PlanSettings { since, until, ..settings(Level::Day) });
    assert_eq!(windowed.skip_to(last), None);
    assert_eq!(planner(settings(Level::Day)).skip_to("logs/a/2017-05-01-10-00-00-A"), None);
}
