//! Generated log objects put on a server, and found again: the same words generate the same lines, so the ledger needs
//! no memory of its own.

use bytes::Bytes;
use testbed::{Generator, Ledger, Spec};

use crate::Failure;
use crate::arguments::Arguments;
use crate::bucket::Place;

/// What stands below the destination and is no rollup.
const NO_ROLLUPS: &str = "_manifests/";
/// A pass that was killed at its start leaves one, and the next ones cannot tell it from that of a running pass.
const PROBES: &str = "_manifests/_probe";

/// What the logs are made from.
#[derive(Clone, Debug)]
struct Recipe {
    /// Seeds, and how many objects of each.
    parts: Vec<(u64, usize)>,
    groups: usize,
    days: u32,
}

impl Recipe {
    fn parse(arguments: &Arguments) -> Result<Self, Failure> {
        let part = |text: &str| {
            let (seed, objects) = text.split_once(':')?;
            Some((seed.parse().ok()?, objects.parse().ok()?))
        };
        let parts = arguments
            .needed("logs")?
            .split(',')
            .map(|text| part(text).ok_or_else(|| Failure::Usage(format!("--logs {text} is not SEED:OBJECTS"))));
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
            groups: arguments.number("groups", 3)?,
            days: arguments.number("days", 2)?,
        })
    }

    fn objects(&self, prefix: &str) -> Vec<(String, Bytes)> {
        let part = |(seed, objects): &(u64, usize)| {
            let spec = Spec {
                prefix: prefix.to_owned(),
                groups: self.groups,
                days: self.days,
                objects: *objects,
                ..Spec::default()
            };
            Generator::new(*seed).objects(&spec).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(part).collect()
    }
}

/// Puts them.
pub(crate) async fn generate(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::named(arguments.only("S3 URL")?)?;
    let objects = Recipe::parse(arguments)?.objects(&place.prefix);
    let count = objects.len();
    place.put(objects).await?;
    println!("{count} log objects put below s3://{}/{}", place.bucket, place.prefix);
    Ok(())
}

/// What a check is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    RolledUp,
    Kept,
    Untouched,
    Unfinished,
}

impl Expected {
    fn parse(arguments: &Arguments) -> Result<Self, Failure> {
        match arguments.text("expect") {
            None | Some("rolled-up") => Ok(Self::RolledUp),
            Some("kept") => Ok(Self::Kept),
            Some("untouched") => Ok(Self::Untouched),
            Some("unfinished") => Ok(Self::Unfinished),
            Some(other) => Err(Failure::Usage(format!("--expect {other} is not known"))),
        }
    }
}

/// Checks them, and says what was found.
pub(crate) async fn check(arguments: &Arguments) -> Result<(), Failure> {
    let source = Place::named(arguments.needed("source")?)?;
    let destination = Place::named(arguments.needed("destination")?)?;
    let (recipe, expected) = (Recipe::parse(arguments)?, Expected::parse(arguments)?);
    println!("{}", find(&recipe, expected, &source, &destination).await?);
    Ok(())
}

async fn find(recipe: &Recipe, expected: Expected, source: &Place, destination: &Place) -> Result<String, Failure> {
    let put = recipe.objects(&source.prefix);
    let mut ledger = Ledger::new();
    for (key, body) in &put {
        ledger.put(&source.bucket, key, body);
    }
    // Sources first: a running pass takes lines from them into rollups, never back.
    let keys = source.list("").await?.into_iter().map(|(key, _)| key);
    let keys = keys.filter(|key| ledger.holds(&source.bucket, key)).collect();
    let sources = source.get(keys).await?;
    let beside = |key: &str| key[destination.prefix.len()..].starts_with(NO_ROLLUPS);
    let below = destination.list("").await?.into_iter().map(|(key, _)| key);
    let (others, keys): (Vec<_>, Vec<_>) =
        below.filter(|key| !ledger.holds(&destination.bucket, key)).partition(|key| beside(key));
    let (probes, manifests): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|key| key[destination.prefix.len()..].starts_with(PROBES));
    let rollups = destination.get(keys).await?;

    let wrong = |what: String| Err(Failure::Failed(what));
    let (left, written, started) = (sources.len(), rollups.len(), manifests.len());
    let imbalance = match expected {
        Expected::RolledUp if left > 0 => return wrong(format!("{left} log objects are left")),
        Expected::RolledUp | Expected::Kept if started > 0 => {
            return wrong(format!("manifests are left: {manifests:?}"));
        }
        Expected::Kept | Expected::Untouched if left < put.len() => {
            return wrong(format!("{left} of {} log objects are there", put.len()));
        }
        Expected::Untouched if written + started + probes.len() > 0 => {
            return wrong(format!("{} objects are in the destination", written + started + probes.len()));
        }
        Expected::RolledUp | Expected::Kept => ledger.check(rollups).err(),
        Expected::Untouched => ledger.check(sources).err(),
        Expected::Unfinished => {
            let doubled = ledger.check(rollups.clone()).err().filter(|found| found.doubled + found.unknown > 0);
            let all = rollups.into_iter().chain(sources);
            doubled.or_else(|| ledger.check(all).err().filter(|found| found.lost + found.unknown > 0))
        }
    };
    if let Some(imbalance) = imbalance {
        return wrong(imbalance.to_string());
    }
    Ok(told(ledger.lines(), expected, left, written, probes.len()))
}

fn told(lines: u64, expected: Expected, left: usize, written: usize, probes: usize) -> String {
    let probes = if probes > 0 { format!(", probes of killed passes: {probes}") } else { String::new() };
    match expected {
        Expected::Untouched => format!("{lines} lines in {left} log objects, nothing in the destination"),
        Expected::Unfinished => {
            format!("{lines} lines, none lost; log objects left: {left}, rollups: {written}{probes}")
        }
        _ => format!("{lines} lines, each exactly once in {written} rollups; log objects left: {left}{probes}"),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    use rstest::rstest;
    use testbed::{SECRET_KEY, Testbed};

    use super::*;

    fn places(bed: &Testbed) -> (Place, Place) {
        bed.create_bucket("logs");
        bed.create_bucket("rollups");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("any", SECRET_KEY, None, None, "test"))
            .force_path_style(true)
            .http_client(bed.http_client());
        let client = aws_sdk_s3::Client::from_conf(config.build());
        let place = |url| Place::parse(url, &client).expect("a URL");
        (place("s3://logs/raw/"), place("s3://rollups/out/"))
    }

    fn recipe() -> Recipe {
        Recipe { parts: vec![(1, 30), (2, 5)], groups: 3, days: 2 }
    }

    /// What a pass would have written, with `change` made to it.
    fn rollup(change: impl Fn(&mut Vec<String>)) -> String {
        let objects = recipe().objects("raw/");
        let text = |body: &Bytes| String::from_utf8(body.to_vec()).expect("text");
        let mut lines = objects.iter().flat_map(|(_, body)| text(body).lines().map(str::to_owned).collect::<Vec<_>>());
        let mut lines = lines.by_ref().collect();
        change(&mut lines);
        lines.join("\n")
    }

    #[tokio::test]
    async fn logs_that_were_put_are_found_untouched_and_then_kept() {
        let bed = Testbed::default();
        let (source, destination) = places(&bed);
        source.put(recipe().objects(&source.prefix)).await.expect("they are put");
        find(&recipe(), Expected::Untouched, &source, &destination).await.expect("all there");
        find(&recipe(), Expected::RolledUp, &source, &destination).await.expect_err("log objects are left");
        bed.put("rollups", "out/web/2026-01-31", rollup(|_| ()));
        find(&recipe(), Expected::Kept, &source, &destination).await.expect("each line once, the sources kept");
        find(&recipe(), Expected::Unfinished, &source, &destination).await.expect("nothing lost");
        find(&recipe(), Expected::Untouched, &source, &destination).await.expect_err("there is a rollup");
    }

    #[rstest]
    #[case::as_it_should_be(|_: &mut Vec<String>| (), None)]
    #[case::one_line_removed(|lines: &mut Vec<String>| drop(lines.remove(7)), Some("1 lines lost, 0 doubled"))]
    #[case::one_line_twice(|lines: &mut Vec<String>| lines.push(lines[7].clone()), Some("0 lines lost, 1 doubled"))]
    #[tokio::test]
    async fn one_line_makes_the_check_fail(#[case] change: fn(&mut Vec<String>), #[case] expected: Option<&str>) {
        let bed = Testbed::default();
        let (source, destination) = places(&bed);
        bed.put("rollups", "out/web/2026-01-31", rollup(change));
        bed.put("rollups", "out/_manifests/_probe-1", "");
        let found = find(&recipe(), Expected::RolledUp, &source, &destination).await;
        match (found, expected) {
            (Ok(told), None) => {
                assert!(told.ends_with("rollups; log objects left: 0, probes of killed passes: 1"), "{told}");
            }
            (Err(Failure::Failed(why)), Some(expected)) => assert!(why.starts_with(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_manifest_that_is_left_makes_the_check_fail() {
        let bed = Testbed::default();
        let (source, destination) = places(&bed);
        bed.put("rollups", "out/web/2026-01-31", rollup(|_| ()));
        bed.put("rollups", "out/_manifests/web/2026-01-31/x", "{}");
        find(&recipe(), Expected::RolledUp, &source, &destination).await.expect_err("a manifest is left");
        find(&recipe(), Expected::Unfinished, &source, &destination).await.expect("nothing lost");
    }
}
