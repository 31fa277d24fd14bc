//! Any two lines of text, a prefix and a key: what is taken for a log object's key can be put together again, and no
//! name that is made of it can be taken for anything but the rollup it is.
#![no_main]

use std::sync::LazyLock;

use fuzz::key::{KeyFormat, Location, LogKey};
use fuzz::layout::{Layout, RollupName};
use fuzz::manifest::{self, BatchId};
use fuzz::period::{Level, Period};
use libfuzzer_sys::fuzz_target;

static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    let templates = ["{group}/{period}", "{period}/{group}", "{group}{period}", "x/{group}/y={period}"];
    let layouts = templates.iter().flat_map(|template| Level::ALL.map(|level| Layout::new(template, level, "out/")));
    layouts.collect::<Result<_, _>>().expect("the templates are good")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (prefix, key) = text.split_once('\n').unwrap_or(("", text));
    if let Some(log) = LogKey::parse(prefix, key) {
        comes_together_again(prefix, key, &log);
        LAYOUTS.iter().for_each(|layout| names_one_rollup(layout, &log));
    }
    if let Some((rollup, batch)) = manifest::parse_key(prefix, key) {
        assert_eq!(manifest::key(prefix, rollup, batch), key);
    }
    if let Some(name) = RollupName::parse(key) {
        assert_eq!(name.as_str(), key);
        for layout in &*LAYOUTS {
            let _ = layout.owns(&name);
        }
    }
    if let Ok(location) = Location::of_source(key) {
        assert_eq!(Location::of_source(&location.to_string()), Ok(location));
    }
});

fn comes_together_again(prefix: &str, key: &str, log: &LogKey<'_>) {
    let format = match log.format() {
        KeyFormat::Simple => "%Y-%m-%d-%H-%M-%S",
        KeyFormat::Partitioned => "%Y/%m/%d/%Y-%m-%d-%H-%M-%S",
    };
    let (_, unique) = key.rsplit_once('-').expect("a log object's key has a hyphen");
    assert!(!unique.is_empty() && unique.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(format!("{}{}-{unique}", log.before_time(), log.at().format(format)), key);
    assert_eq!(log.group(), log.before_time().get(prefix.len()..).unwrap_or_default());
    assert!(key.starts_with(prefix));
}

fn names_one_rollup(layout: &Layout, log: &LogKey<'_>) {
    let period = Period::of(layout.level(), log.at());
    assert!(period.holds(log.at()));
    let Some(name) = layout.rollup(log.group(), &period) else { return };
    assert!(layout.owns(&name), "{name}");
    assert_eq!(RollupName::parse(name.as_str()).as_ref(), Some(&name));
    assert_eq!(LogKey::parse("", &layout.key(&name)), None);
    let batch = BatchId::fresh(&mut fastrand::Rng::with_seed(1));
    let manifest = manifest::key(layout.destination_prefix(), name.as_str(), batch);
    assert!(manifest.len() <= 1024, "{manifest}");
    assert_eq!(manifest::parse_key(layout.destination_prefix(), &manifest), Some((name.as_str(), batch)));
}
