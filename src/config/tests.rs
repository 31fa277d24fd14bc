use proptest::prelude::*;
use rstest::rstest;

use super::*;

const REQUIRED: [(&str, &str); 2] = [("ROLLUP_SOURCE", "s3://my-logs/s3"), ("ROLLUP_DESTINATION", "my-rollups/s3")];

fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::from_env(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

/// The settings with those that are required and these.
fn with(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    read(&[&REQUIRED, variables].concat())
}

/// The only problem there is.
fn problem(variables: &[(&str, &str)]) -> String {
    let errors = with(variables).unwrap_err();
    let [sentence] = errors.sentences() else { panic!("{errors}") };
    sentence.clone()
}

#[test]
fn two_settings_are_enough() {
    let config = with(&[]).unwrap();
    assert_eq!(config.source.to_string(), "s3://my-logs/s3");
    assert_eq!(config.destination.to_string(), "s3://my-rollups/s3/");
    assert_eq!((config.layout.level(), config.layout.destination_prefix()), (Level::Day, "s3/"));
    assert_eq!((config.mode, config.dry_run, config.check), (Mode::Move, false, false));
    assert!(!config.mode.keeps_sources());
    assert_eq!((config.settle, config.time_limit), (None, None));
    assert_eq!((config.since, config.until), (None, None));
    assert_eq!((config.concurrency, config.buffer), (Concurrency::Auto, 24 << 20));
    assert_eq!((config.batch_objects, config.batch_bytes), (10_000, 1 << 30));
    assert_eq!(config.shard, Shard::WHOLE);
    assert_eq!((config.force_path_style, config.assume_no_overlap), (false, false));
    assert_eq!((config.log_format, config.termination_log), (LogFormat::Auto, None));
}

#[test]
fn every_setting_arrives_in_its_field() {
    let config = with(&[
        ("ROLLUP_LEVEL", "10min"),
        ("ROLLUP_KEEP", "true"),
        ("ROLLUP_DRY_RUN", "1"),
        ("ROLLUP_OVERWRITE", "YES"),
        ("ROLLUP_KEY_TEMPLATE", "{period}/{group}"),
        ("ROLLUP_SETTLE", "6h"),
        ("ROLLUP_SINCE", "2019-09-14"),
        ("ROLLUP_UNTIL", "2019-09-14T17:00:00+02:00"),
        ("ROLLUP_TIME_LIMIT", "50m"),
        ("ROLLUP_CONCURRENCY", "64"),
        ("ROLLUP_BUFFER", "8MiB"),
        ("ROLLUP_BATCH_OBJECTS", "7"),
        ("ROLLUP_BATCH_BYTES", "5242880"),
        ("ROLLUP_SHARD_COUNT", "3"),
        ("ROLLUP_SHARD_INDEX", "2"),
        ("ROLLUP_CHECK", "true"),
        ("ROLLUP_FORCE_PATH_STYLE", "on"),
        ("ROLLUP_ASSUME_NO_OVERLAP", "true"),
        ("ROLLUP_LOG_FORMAT", "pretty"),
        ("ROLLUP_TERMINATION_LOG", "/tmp/report"),
    ])
    .unwrap();
    assert_eq!((config.mode, config.dry_run, config.check), (Mode::Overwrite, true, true));
    assert_eq!((config.settle, config.time_limit), (Some(Duration::from_hours(6)), Some(Duration::from_mins(50))));
    assert_eq!(config.since, Some("2019-09-14T00:00:00Z".parse().unwrap()));
    assert_eq!(config.until, Some("2019-09-14T15:00:00Z".parse().unwrap()));
    assert_eq!((config.concurrency, config.buffer), (Concurrency::Fixed(64), 8 << 20));
    assert_eq!((config.force_path_style, config.assume_no_overlap), (true, true));
    assert_eq!(
        (config.log_format, config.termination_log.as_deref()),
        (LogFormat::Pretty, Some("/tmp/report".as_ref()))
    );
    let planning = config.planning();
    assert_eq!((planning.source_prefix.as_str(), planning.layout.level()), ("s3", Level::TenMinutes));
    assert_eq!((planning.batch_objects, planning.batch_bytes), (7, 5 << 20));
    assert_eq!((planning.since, planning.until, planning.settle), (config.since, config.until, config.settle));
    assert_eq!(planning.shard, Shard::new(3, 2).unwrap());
}

#[rstest]
#[case("ROLLUP_DRYRUN", "did you mean ROLLUP_DRY_RUN?")]
#[case("rollup_dry_run", "did you mean ROLLUP_DRY_RUN?")]
#[case("ROLLUP_DRY-RUN", "did you mean ROLLUP_DRY_RUN?")]
#[case("ROLLUP_DRY_RUM", "did you mean ROLLUP_DRY_RUN?")]
#[case("ROLLUP_OVERWRTIE", "did you mean ROLLUP_OVERWRITE?")]
#[case("ROLLUP_SHARDCOUNT", "did you mean ROLLUP_SHARD_COUNT?")]
#[case("ROLLUP_DESTINATION_REGION", "--help lists them all")]
#[case("ROLLUP_SSE", "--help lists them all")]
#[case("ROLLUP_", "--help lists them all")]
#[case("ROLLUP_É", "--help lists them all")]
#[case("ROLLUP_SERVICE_HOST", "enableServiceLinks")]
#[case("ROLLUP_PORT_443_TCP", "enableServiceLinks")]
fn a_variable_that_is_no_setting_is_refused_without_showing_its_value(#[case] name: &str, #[case] hint: &str) {
    let sentence = problem(&[(name, "hunter2")]);
    assert!(sentence.starts_with(&format!("{name} is not a setting;")) && sentence.contains(hint), "{sentence}");
    assert!(!sentence.contains("hunter2"));
}

#[test]
fn other_variables_and_empty_ones_do_not_matter() {
    let others =
        [("PATH", "/bin"), ("AWS_REGION", "eu-west-1"), ("ROLL", "x"), ("XROLLUP_KEEP", "x"), ("éROLLUP_", "x")];
    assert!(with(&others).is_ok());
    assert!(with(&[("ROLLUP_DRYRUN", ""), ("ROLLUP_LEVEL", ""), ("JOB_COMPLETION_INDEX", "")]).is_ok());
}

#[test]
fn an_empty_setting_is_an_unset_one() {
    let errors = read(&[("ROLLUP_SOURCE", ""), REQUIRED[1]]).unwrap_err();
    assert_eq!(errors.sentences(), ["ROLLUP_SOURCE is not set: it takes s3://bucket/prefix"]);
}

#[cfg(unix)]
#[test]
fn a_setting_that_is_not_utf_8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let wrong = OsString::from_vec(b"my-logs/\xff".to_vec());
    let variables = [("ROLLUP_SOURCE".into(), wrong), ("ROLLUP_DESTINATION".into(), "my-rollups".into())];
    let errors = Config::from_env(variables).unwrap_err();
    assert_eq!(errors.sentences(), ["ROLLUP_SOURCE is not UTF-8"]);
}

#[rstest]
#[case("ROLLUP_SOURCE", "https://my-logs/x")]
#[case("ROLLUP_SOURCE", "s3://My_Logs/x")]
#[case("ROLLUP_SOURCE", "s3://my-logs/x\n")]
#[case("ROLLUP_DESTINATION", "/x")]
#[case("ROLLUP_LEVEL", "week")]
#[case("ROLLUP_KEEP", "ture")]
#[case("ROLLUP_DRY_RUN", "2")]
#[case("ROLLUP_KEY_TEMPLATE", "{period}")]
#[case("ROLLUP_KEY_TEMPLATE", "{group}/{year}")]
#[case("ROLLUP_KEY_TEMPLATE", "{group}/{period} ")]
#[case("ROLLUP_KEY_TEMPLATE", "{group}/{period}-00-00-00-AB")]
#[case("ROLLUP_SETTLE", "6")]
#[case("ROLLUP_SETTLE", "-6h")]
#[case("ROLLUP_SINCE", "2019-02-30")]
#[case("ROLLUP_SINCE", "yesterday")]
#[case("ROLLUP_UNTIL", "2019-09-14T17:00:00")]
#[case("ROLLUP_TIME_LIMIT", "0s")]
#[case("ROLLUP_CONCURRENCY", "0")]
#[case("ROLLUP_CONCURRENCY", "1025")]
#[case("ROLLUP_CONCURRENCY", "many")]
#[case("ROLLUP_BUFFER", "7MiB")]
#[case("ROLLUP_BUFFER", "4GiB")]
#[case("ROLLUP_BUFFER", "lots")]
#[case("ROLLUP_BATCH_OBJECTS", "0")]
#[case("ROLLUP_BATCH_OBJECTS", "1000001")]
#[case("ROLLUP_BATCH_BYTES", "4MiB")]
#[case("ROLLUP_BATCH_BYTES", "41GiB")]
#[case("ROLLUP_SHARD_COUNT", "0")]
#[case("ROLLUP_SHARD_COUNT", "1001")]
#[case("ROLLUP_SHARD_INDEX", "1")]
#[case("ROLLUP_SHARD_INDEX", "-1")]
#[case("ROLLUP_FORCE_PATH_STYLE", "path")]
#[case("ROLLUP_ASSUME_NO_OVERLAP", "maybe")]
#[case("ROLLUP_LOG_FORMAT", "json")]
#[case("ROLLUP_TERMINATION_LOG", "report.json")]
fn a_value_that_is_not_accepted_is_shown_with_its_variable(#[case] name: &str, #[case] value: &str) {
    let mut variables = REQUIRED.to_vec();
    variables.retain(|(required, _)| *required != name);
    variables.push((name, value));
    let errors = read(&variables).unwrap_err();
    let [sentence] = errors.sentences() else { panic!("{errors}") };
    assert!(sentence.starts_with(&format!("{name} is `{}`: ", value.replace('\n', "\\n"))), "{sentence}");
}

#[rstest]
#[case(&[("ROLLUP_OVERWRITE", "true")], "ROLLUP_OVERWRITE needs ROLLUP_KEEP=true")]
#[case(&[("ROLLUP_SINCE", "2019-09-14"), ("ROLLUP_UNTIL", "2019-09-14")], "ROLLUP_SINCE (2019-09-14T00:00:00Z) is not before")]
#[case(&[("ROLLUP_SHARD_COUNT", "2")], "ROLLUP_SHARD_COUNT is `2`: it needs ROLLUP_SHARD_INDEX")]
#[case(&[("ROLLUP_SHARD_COUNT", "2"), ("ROLLUP_SHARD_INDEX", "2")], "ROLLUP_SHARD_INDEX is `2`: it takes a number from 0 to 1")]
#[case(&[("ROLLUP_SHARD_COUNT", "2"), ("JOB_COMPLETION_INDEX", "2")], "JOB_COMPLETION_INDEX is `2`: it takes")]
fn settings_that_do_not_go_together_are_refused(#[case] variables: &[(&str, &str)], #[case] start: &str) {
    let sentence = problem(variables);
    assert!(sentence.starts_with(start), "{sentence}");
}

#[rstest]
#[case(&[("ROLLUP_SHARD_COUNT", "3"), ("JOB_COMPLETION_INDEX", "2")], 3, 2)]
#[case(&[("ROLLUP_SHARD_COUNT", "3"), ("ROLLUP_SHARD_INDEX", "1"), ("JOB_COMPLETION_INDEX", "2")], 3, 1)]
#[case(&[("JOB_COMPLETION_INDEX", "2")], 1, 0)]
fn the_shards_index_is_the_jobs_unless_it_is_set(
    #[case] variables: &[(&str, &str)],
    #[case] count: u32,
    #[case] index: u32,
) {
    assert_eq!(Some(with(variables).unwrap().shard), Shard::new(count, index));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_fits_a_terminal() {
    let errors = read(&[
        ("ROLLUP_DRYRUN", "true"),
        ("ROLLUP_SOURCE", "s3://My_Logs/web/"),
        ("ROLLUP_LEVEL", "week"),
        ("ROLLUP_OVERWRITE", "true"),
        ("ROLLUP_SETTLE", "6 hours ago"),
        ("ROLLUP_SINCE", "2019-09-14"),
        ("ROLLUP_UNTIL", "2019-09-01"),
        ("ROLLUP_BUFFER", "1KiB"),
        ("ROLLUP_CONCURRENCY", "4096"),
    ])
    .unwrap_err();
    let expected = "\
9 problems with the settings; nothing was requested from S3:
- ROLLUP_SOURCE is `s3://My_Logs/web/`: `My_Logs` is no bucket name: 3 to 63
  lower-case letters, digits, dots and hyphens, beginning and ending with a
  letter or a digit, no two dots in a row, no IP address; it takes
  s3://bucket/prefix
- ROLLUP_DESTINATION is not set: it takes s3://bucket/prefix
- ROLLUP_LEVEL is `week`: it takes month, day, hour or 10min
- ROLLUP_OVERWRITE needs ROLLUP_KEEP=true: a pass that is stopped between two
  deletes would later rebuild the rollup from what is left, and lose logs
- ROLLUP_SETTLE is `6 hours ago`: it takes a time span like 90m, 6h or 7d
- ROLLUP_SINCE (2019-09-14T00:00:00Z) is not before ROLLUP_UNTIL
  (2019-09-01T00:00:00Z): no log object lies in between
- ROLLUP_CONCURRENCY is `4096`: it takes auto, or a number from 1 to 1024
- ROLLUP_BUFFER is `1KiB`: it takes a size from 8MiB up to below 4GiB, like
  32MiB
- ROLLUP_DRYRUN is not a setting; did you mean ROLLUP_DRY_RUN?";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn help_tells_every_setting_and_fits_a_terminal() {
    let help = Config::help();
    for Variable { name, default, .. } in VARIABLES {
        assert!(help.contains(&format!("  {name} ({default})\n")), "{name}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 80 && line.trim_end() == line), "{help}");
    assert!(
        help.contains("\n  ROLLUP_LEVEL (day)\n      How long the periods are: month, day, hour or 10min.\n"),
        "{help}"
    );
}

#[test]
fn every_variable_of_the_list_is_read() {
    for Variable { name, .. } in VARIABLES {
        let mut variables = REQUIRED.to_vec();
        variables.retain(|(required, _)| required != name);
        variables.push((name, "\u{1}"));
        let errors = read(&variables).unwrap_err();
        assert_eq!(errors.sentences().len(), 1, "{errors}");
        assert!(errors.sentences()[0].starts_with(&format!("{name} is `\\u{{1}}`")), "{errors}");
    }
}

#[test]
fn every_default_of_the_list_holds() {
    let written: Vec<_> = VARIABLES
        .iter()
        .filter_map(|variable| match variable.default {
            Fallback::Value(default) => Some((variable.name, default)),
            _ => None,
        })
        .collect();
    let config = |variables| format!("{:?}", with(variables).unwrap());
    assert_eq!(config(&written), config(&[]));
}

/// Names of settings, of what is nearly one, and of what is none.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let settings = prop::sample::select(VARIABLES.iter().map(|variable| variable.name.to_owned()).collect::<Vec<_>>());
    prop_oneof![
        12 => settings.prop_map(String::into_bytes),
        1 => Just(b"JOB_COMPLETION_INDEX".to_vec()),
        1 => "(?i)rollup_[A-Z_]{0,12}|ROLLUP_(?s:.){0,5}|(?s:.){1,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(|rest| [b"ROLLUP_", &*rest].concat()),
    ]
}

/// Values that some setting takes, values that are nearly such, and noise.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let number = "[0-9]{1,22}(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,5})? ?([kKMGTPEZ]i?)?B?";
    let span = "([0-9]{1,20} ?(ns|us|ms|s|m|h|d|w|month|M|y|years)? ?){1,3}";
    let time =
        "[+-]?[0-9]{1,7}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2}))?";
    let word = "true|no|1|0|auto|bunyan|pretty|month|day|hour|10min|/tmp/report";
    let place = "(s3://)?[a-z0-9.-]{1,9}(/(?s:.){0,9})?|\\{group\\}[/a-z-]{0,3}\\{(period|year|day|hour)\\}(?s:.)?";
    prop_oneof![
        2 => word.prop_map(String::into_bytes),
        2 => number.prop_map(String::into_bytes),
        2 => span.prop_map(String::into_bytes),
        2 => time.prop_map(String::into_bytes),
        2 => place.prop_map(String::into_bytes),
        1 => "(?s:.){0,9}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ]
}

/// Whatever was accepted is within its bounds, and can be planned with.
fn within_bounds(config: &Config) {
    assert!((8 << 20..4 << 30).contains(&config.buffer));
    assert!((1..=1_000_000).contains(&config.batch_objects));
    assert!((5 << 20..=40 << 30).contains(&config.batch_bytes));
    assert!(!matches!(config.concurrency, Concurrency::Fixed(count) if !(1..=1024).contains(&count)));
    assert!(config.shard.count() <= 1000 && config.shard.index() < config.shard.count());
    assert!(config.time_limit.is_none_or(|limit| !limit.is_zero()));
    assert!(config.since.zip(config.until).is_none_or(|(since, until)| since < until));
    assert!(config.termination_log.as_ref().is_none_or(|path| path.is_absolute()));
    let mut planner = crate::plan::Planner::new(config.planning(), "2019-09-14T17:00:00Z".parse().unwrap());
    for key in ["2019-09-14-10-11-12-AB", "2019-09-14-10-11-12-AC", "9999-12-31-23-59-59-AB"] {
        let key = format!("{}{key}", config.source.prefix());
        let _ = planner.skip_to(&key);
        let etag = crate::source::ETag::new("e");
        let _ = planner.push(crate::plan::Listed { key: &key, etag, size: 1, storage: crate::plan::Storage::Readable });
    }
    let _ = planner.finish();
}

const UNITS: [(&str, u128); 12] = [
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    (" MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
];

#[cfg(unix)]
proptest! {
    #[test]
    fn any_environment_makes_settings_within_their_bounds_or_problems_that_name_their_variable(
        variables in prop::collection::vec((any_name(), any_value()), 0..5),
        required in prop::bool::weighted(0.9),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let given = REQUIRED.iter().filter(|_| required).map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let variables: Vec<_> =
            given.chain(variables.into_iter().map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)))).collect();
        match Config::from_env(variables.clone()) {
            Ok(config) => within_bounds(&config),
            Err(errors) => {
                prop_assert!(!errors.sentences().is_empty());
                let given = variables.iter().map(|(name, _)| shown(&name.to_string_lossy()).to_string());
                let names: Vec<_> = given.chain(REQUIRED.map(|(name, _)| name.to_owned())).collect();
                for sentence in errors.sentences() {
                    prop_assert!(names.iter().any(|name| sentence.starts_with(name)), "{}", sentence);
                }
                prop_assert!(!errors.to_string().contains(|letter: char| letter.is_control() && letter != '\n'));
            }
        }
    }

    #[test]
    fn one_setting_of_any_value_is_taken_or_is_the_only_one_complained_of(
        which in 0..VARIABLES.len(),
        value in any_value(),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let name = VARIABLES[which].name;
        let others = REQUIRED.iter().filter(|(required, _)| *required != name);
        let others = others.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let variables: Vec<_> = others.chain([(OsString::from(name), OsString::from_vec(value))]).collect();
        match Config::from_env(variables) {
            Ok(config) => within_bounds(&config),
            Err(errors) => {
                prop_assert!(errors.sentences().iter().all(|sentence| sentence.starts_with(name)), "{}", errors);
            }
        }
    }

    #[test]
    fn a_size_is_taken_exactly_where_it_lies_within_its_bounds_and_to_the_byte(
        number in prop_oneof![0_u64..50, 0_u64..50_000, 0_u64..50_000_000_000, any::<u64>()],
        (unit, factor) in prop::sample::select(&UNITS[..]),
    ) {
        let text = format!("{number}{unit}");
        let bytes = u128::from(number) * factor;
        for (name, bounds) in [("ROLLUP_BUFFER", 8_u128 << 20..=(4 << 30) - 1), ("ROLLUP_BATCH_BYTES", 5 << 20..=40 << 30)] {
            let config = with(&[(name, &text)]);
            let read = config.ok().map(|c| if name == "ROLLUP_BUFFER" { c.buffer } else { c.batch_bytes });
            prop_assert_eq!(read.map(u128::from), Some(bytes).filter(|bytes| bounds.contains(bytes)), "{}", text);
        }
    }

    #[test]
    fn a_time_span_is_taken_to_the_second_or_refused_where_it_is_beyond_counting(
        number in prop_oneof![1_u64..100, any::<u64>()],
        (unit, factor) in prop::sample::select(vec![("s", 1_u128), ("m", 60), ("h", 3600), (" h", 3600), ("d", 86_400), ("w", 604_800)]),
    ) {
        let text = format!("{number}{unit}");
        let seconds = u64::try_from(u128::from(number) * factor).ok();
        for name in ["ROLLUP_SETTLE", "ROLLUP_TIME_LIMIT"] {
            let config = with(&[(name, &text)]);
            let read = config.ok().and_then(|c| if name == "ROLLUP_SETTLE" { c.settle } else { c.time_limit });
            prop_assert_eq!(read, seconds.map(Duration::from_secs), "{}", text);
        }
    }
}
