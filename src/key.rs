//! What an object's key says: where it lies, which group and time a log object belongs to.
//!
//! Pure text: nothing here knows whether an object exists, and no rollup's name is made here.

use std::fmt;

use chrono::{NaiveDate, NaiveDateTime};

/// A bucket and a prefix in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    bucket: String,
    prefix: String,
}

/// Why a text is no [`Location`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another scheme than `s3://`.
    #[error("`{0}://` is not `s3://`")]
    Scheme(String),
    /// A bucket name outside S3's rules.
    #[error(
        "`{0}` is no bucket name: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a \
         letter or a digit, no two dots in a row, no IP address"
    )]
    Bucket(String),
    /// A prefix that leaves no room for a key.
    #[error("the prefix has {0} bytes: a key has at most 1024")]
    Prefix(usize),
}

impl Location {
    /// Takes `s3://bucket/prefix` or `bucket/prefix`; the prefix is kept literally, and may be empty.
    ///
    /// The bucket's name follows the rules of general-purpose buckets, which S3-compatible stores share
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>). The upper-case letters and
    /// underscores of buckets made in us-east-1 before March 2018 are refused: they work with path style only.
    /// An access point is named by its alias, which follows the same rules.
    pub fn of_source(text: &str) -> Result<Self, LocationError> {
        let path = match text.split_once("://") {
            Some(("s3", path)) => path,
            Some((scheme, _)) if !scheme.contains('/') => return Err(LocationError::Scheme(scheme.to_owned())),
            _ => text,
        };
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if !is_bucket_name(bucket) {
            return Err(LocationError::Bucket(bucket.to_owned()));
        }
        if prefix.len() > MAX_KEY_BYTES {
            return Err(LocationError::Prefix(prefix.len()));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// As [`Location::of_source`], but a `/` is added to a prefix that is neither empty nor ends in one.
    pub fn of_destination(text: &str) -> Result<Self, LocationError> {
        let mut location = Self::of_source(text)?;
        if !location.prefix.is_empty() && !location.prefix.ends_with('/') {
            location.prefix.push('/');
        }
        Ok(location)
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What every key here begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// Bytes of UTF-8 in a key at most
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
const MAX_KEY_BYTES: usize = 1024;

fn is_bucket_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let [first, .., last] = bytes else { return false };
    (3..=63).contains(&bytes.len())
        && plain(*first)
        && plain(*last)
        && bytes.iter().all(|&byte| plain(byte) || byte == b'.' || byte == b'-')
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// The two key formats of S3 server access logs
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerLogs.html#server-log-keyname-format>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFormat {
    /// `[TargetPrefix]YYYY-MM-DD-hh-mm-ss-UniqueString`
    Simple,
    /// The same name in folders `YYYY/MM/DD/` of the same date.
    Partitioned,
}

/// The key of a log object, taken apart.
///
/// A key is a log object's when its last path segment ends in `YYYY-MM-DD-hh-mm-ss-UniqueString`, with a time that
/// exists. Before the time may stand anything: a `TargetPrefix` need not end in `/`. The unique string has no meaning
/// for AWS's documentation; it is 16 upper-case hexadecimal digits at AWS, 16 upper-case letters and digits at Ceph.
/// Any number of ASCII letters and digits is taken, and nothing else: the last `-` of a key then settles where the
/// time stands, and a name with a suffix (`….gz`, say) was not delivered as a log object and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogKey<'k> {
    before_time: &'k str,
    group: &'k str,
    at: NaiveDateTime,
    format: KeyFormat,
}

/// Bytes of `YYYY-MM-DD-hh-mm-ss`.
const STAMP: usize = 19;
/// Bytes of `YYYY/MM/DD/`.
const FOLDERS: usize = 11;

impl<'k> LogKey<'k> {
    /// Takes a key that begins with `prefix` apart; `None`: it does not, or it is no log object's.
    #[must_use]
    pub fn parse(prefix: &str, key: &'k str) -> Option<Self> {
        if !key.as_bytes().starts_with(prefix.as_bytes()) {
            return None;
        }
        let bytes = key.as_bytes();
        let stamp_end = bytes.iter().rposition(|byte| !byte.is_ascii_alphanumeric())?;
        if bytes[stamp_end] != b'-' || stamp_end + 1 == bytes.len() {
            return None;
        }
        let stamp_start = stamp_end.checked_sub(STAMP)?;
        let stamp: &[u8; STAMP] = bytes[stamp_start..stamp_end].try_into().ok()?;
        let at = time(stamp)?;
        let (format, start) = match folders_start(bytes, stamp_start, stamp) {
            Some(start) => (KeyFormat::Partitioned, start),
            None => (KeyFormat::Simple, stamp_start),
        };
        // Both cuts stand at an ASCII digit, or at the end of a prefix that is a text itself.
        Some(Self {
            before_time: key.get(..start)?,
            group: key.get(prefix.len()..start).unwrap_or_default(),
            at,
            format,
        })
    }

    /// What stands between the source prefix and the time; empty where the prefix reaches the time or into it.
    /// The folders `YYYY/MM/DD/` of the partitioned format belong to the time.
    #[must_use]
    pub fn group(&self) -> &'k str {
        self.group
    }

    /// The key up to its time: source prefix and group, or less where the prefix reaches into the time.
    #[must_use]
    pub fn before_time(&self) -> &'k str {
        self.before_time
    }

    /// The time in the name, UTC: of delivery, or the date of the events with `00:00:00`.
    #[must_use]
    pub fn at(&self) -> NaiveDateTime {
        self.at
    }

    /// Which of the two formats the key has.
    #[must_use]
    pub fn format(&self) -> KeyFormat {
        self.format
    }

    /// Whether the key may carry a date only: partitioned keys by event time read `00-00-00`, always.
    #[must_use]
    pub fn may_be_a_date_only(&self) -> bool {
        self.format == KeyFormat::Partitioned && self.at.time() == chrono::NaiveTime::MIN
    }
}

fn time(stamp: &[u8; STAMP]) -> Option<NaiveDateTime> {
    if [4, 7, 10, 13, 16].iter().any(|&at| stamp[at] != b'-') {
        return None;
    }
    let pair = |at: usize| Some(digit(stamp[at])? * 10 + digit(stamp[at + 1])?);
    let year = pair(0)? * 100 + pair(2)?;
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, pair(5)?, pair(8)?)?.and_hms_opt(pair(11)?, pair(14)?, pair(17)?)
}

fn digit(byte: u8) -> Option<u32> {
    byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
}

/// Where `YYYY/MM/DD/` of the very date begins, when it stands directly before the time, as folders.
fn folders_start(key: &[u8], stamp_start: usize, stamp: &[u8; STAMP]) -> Option<usize> {
    let start = stamp_start.checked_sub(FOLDERS)?;
    let folders = &key[start..stamp_start];
    let same_date = folders.iter().zip(stamp).all(|(&folder, &name)| match name {
        b'-' => folder == b'/',
        digit => folder == digit,
    });
    let stands_alone = start == 0 || key[start - 1] == b'/';
    (same_date && stands_alone).then_some(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("s3://my-logs/a/b", "my-logs", "a/b", "a/b/")]
    #[case("my-logs/a/b/", "my-logs", "a/b/", "a/b/")]
    #[case("s3://my-logs", "my-logs", "", "")]
    #[case("s3://my-logs/", "my-logs", "", "")]
    #[case("my.logs-1//a b+%é", "my.logs-1", "/a b+%é", "/a b+%é/")]
    #[case("my-logs/a://b", "my-logs", "a://b", "a://b/")]
    fn a_source_prefix_is_literal_and_a_destination_prefix_ends_in_a_slash(
        #[case] text: &str,
        #[case] bucket: &str,
        #[case] source: &str,
        #[case] destination: &str,
    ) {
        let from = Location::of_source(text).unwrap();
        assert_eq!((from.bucket(), from.prefix()), (bucket, source));
        assert_eq!(from.to_string(), format!("s3://{bucket}/{source}"));
        let to = Location::of_destination(text).unwrap();
        assert_eq!((to.bucket(), to.prefix()), (bucket, destination));
    }

    #[rstest]
    #[case("")]
    #[case("s3://")]
    #[case("s3:///logs/")]
    #[case("https://my-logs/x")]
    #[case("S3://my-logs/x")]
    #[case("ab/x")]
    #[case("My-Logs/x")]
    #[case("my_logs/x")]
    #[case("-my-logs/x")]
    #[case("my-logs./x")]
    #[case("my..logs/x")]
    #[case("192.168.5.4/x")]
    #[case("a23456789-123456789-123456789-123456789-123456789-123456789-1234/x")]
    #[case("my logs/x")]
    fn what_no_bucket_is_called_is_no_location(#[case] text: &str) {
        assert!(Location::of_source(text).is_err());
        assert!(Location::of_destination(text).is_err());
    }

    #[test]
    fn a_prefix_longer_than_any_key_is_refused() {
        let text = format!("my-logs/{}", "x".repeat(1025));
        assert_eq!(Location::of_source(&text), Err(LocationError::Prefix(1025)));
    }

    /// Group, time and format, or `None`.
    fn parsed<'k>(prefix: &str, key: &'k str) -> Option<(&'k str, String, KeyFormat)> {
        LogKey::parse(prefix, key).map(|log| (log.group(), log.at().to_string(), log.format()))
    }

    #[rstest]
    #[case::in_a_folder("logs/", "logs/web/2019-09-14-17-20-33-A1B2", "web/")]
    #[case::no_slash_before_the_time("dvn_s3_log", "dvn_s3_log2019-09-14-17-20-33-A1B2", "")]
    #[case::prefix_inside_the_group("logs/we", "logs/web/2019-09-14-17-20-33-A1B2", "b/")]
    #[case::prefix_into_the_date("logs/2019-09-", "logs/2019-09-14-17-20-33-A1B2", "")]
    #[case::prefix_into_the_time("logs/2019-09-14-17", "logs/2019-09-14-17-20-33-A1B2", "")]
    #[case::prefix_into_the_unique_string("2019-09-14-17-20-33-A1", "2019-09-14-17-20-33-A1B2", "")]
    #[case::no_prefix("", "2019-09-14-17-20-33-A1B2", "")]
    #[case::a_date_before_the_time("", "2019-01-01-2019-09-14-17-20-33-A1B2", "2019-01-01-")]
    #[case::digits_before_the_time("", "12019-09-14-17-20-33-A1B2", "1")]
    #[case::any_text("l/", "l/a b+c%2F\n\té//2019-09-14-17-20-33-0", "a b+c%2F\n\té//")]
    #[case::folders_of_another_date("", "2019/09/13/2019-09-14-17-20-33-AB", "2019/09/13/")]
    #[case::folders_beside_other_text("", "x2019/09/14/2019-09-14-17-20-33-AB", "x2019/09/14/")]
    #[case::text_after_the_folders("", "2019/09/14/x2019-09-14-17-20-33-AB", "2019/09/14/x")]
    #[case::two_folders_only("", "b/09/14/2019-09-14-17-20-33-AB", "b/09/14/")]
    #[case::non_ascii_before_the_time("é", "éé2019-09-14-17-20-33-AB", "é")]
    fn the_group_is_what_stands_between_the_prefix_and_the_time(
        #[case] prefix: &str,
        #[case] key: &str,
        #[case] group: &str,
    ) {
        assert_eq!(parsed(prefix, key), Some((group, "2019-09-14 17:20:33".to_owned(), KeyFormat::Simple)));
    }

    #[rstest]
    #[case("logs/", "logs/123/eu-west-1/web/2019/09/14/2019-09-14-17-20-33-A1B2", "123/eu-west-1/web/")]
    #[case("logs/", "logs/web/2019/09/14/2019-09-14-17-20-33-AB", "web/")]
    #[case("logs/web/2019/", "logs/web/2019/09/14/2019-09-14-17-20-33-AB", "")]
    #[case("logs/web/2019/09/14/20", "logs/web/2019/09/14/2019-09-14-17-20-33-AB", "")]
    #[case("", "2019/09/14/2019-09-14-17-20-33-AB", "")]
    #[case("", "/2019/09/14/2019-09-14-17-20-33-AB", "/")]
    #[case("", "2019/09/14/2019/09/14/2019-09-14-17-20-33-AB", "2019/09/14/")]
    fn folders_of_the_very_date_belong_to_the_time(#[case] prefix: &str, #[case] key: &str, #[case] group: &str) {
        assert_eq!(parsed(prefix, key), Some((group, "2019-09-14 17:20:33".to_owned(), KeyFormat::Partitioned)));
    }

    #[test]
    fn the_text_before_the_time_does_not_depend_on_the_prefix() {
        let key = "logs/web/2019/09/14/2019-09-14-00-00-00-AB";
        for prefix in ["", "logs/", "logs/web/2019/", key] {
            let log = LogKey::parse(prefix, key).unwrap();
            assert_eq!(log.before_time(), "logs/web/");
            assert!(log.may_be_a_date_only());
        }
        assert!(!LogKey::parse("", "2019-09-14-00-00-00-AB").unwrap().may_be_a_date_only());
    }

    #[rstest]
    #[case::february("2019-02-30-10-11-12-AB")]
    #[case::no_leap_year("2019-02-29-10-11-12-AB")]
    #[case::month_thirteen("2019-13-01-10-11-12-AB")]
    #[case::month_zero("2019-00-01-10-11-12-AB")]
    #[case::day_zero("2019-01-00-10-11-12-AB")]
    #[case::hour("2019-09-14-24-00-00-AB")]
    #[case::minute("2019-09-14-23-60-00-AB")]
    #[case::leap_second("2016-12-31-23-59-60-AB")]
    fn a_date_or_time_that_no_calendar_has_is_no_log_key(#[case] key: &str) {
        assert_eq!(LogKey::parse("", key), None);
    }

    #[rstest]
    #[case::a_month("2019-09")]
    #[case::a_day("web/2019-09-14")]
    #[case::an_hour("2019-09-14-17")]
    #[case::ten_minutes("2019-09-14-17-20")]
    #[case::seconds("2019-09-14-17-20-33")]
    #[case::nothing_unique("2019-09-14-17-20-33-")]
    #[case::suffix("2019-09-14-17-20-33-AB.gz")]
    #[case::folder("2019-09-14-17-20-33-AB/")]
    #[case::below_it("2019-09-14-17-20-33-AB/x")]
    #[case::signs("2019-+9-14-17-20-33-AB")]
    #[case::spaces("2019- 9-14-17-20-33-AB")]
    #[case::other_digits("2019-09-14-17-20-3٣-AB")]
    #[case::other_hyphens("2019‐09‐14‐17‐20‐33‐AB")]
    #[case::cloudfront("E2EXAMPLE.2019-09-14-17.ab12cd34.gz")]
    #[case::elb("123_elasticloadbalancing_eu-west-1_app.web.1_20190914T1720Z_10.0.0.1_5f3.log.gz")]
    #[case::nothing("")]
    #[case::hyphen("-")]
    fn another_name_is_no_log_key(#[case] key: &str) {
        assert_eq!(LogKey::parse("", key), None);
    }

    #[test]
    fn a_key_outside_the_prefix_is_no_log_key() {
        assert_eq!(LogKey::parse("logs/", "log/2019-09-14-17-20-33-AB"), None);
        assert_eq!(LogKey::parse("2019-09-14-17-20-33-ABC", "2019-09-14-17-20-33-AB"), None);
    }

    /// Any second of the years 0000 to 9999.
    fn any_time() -> impl Strategy<Value = NaiveDateTime> {
        (-62_167_219_200_i64..253_402_300_800).prop_map(|s| chrono::DateTime::from_timestamp(s, 0).unwrap().naive_utc())
    }

    fn stamp(format: KeyFormat, at: NaiveDateTime) -> String {
        match format {
            KeyFormat::Simple => at.format("%Y-%m-%d-%H-%M-%S").to_string(),
            KeyFormat::Partitioned => at.format("%Y/%m/%d/%Y-%m-%d-%H-%M-%S").to_string(),
        }
    }

    fn any_format() -> impl Strategy<Value = KeyFormat> {
        prop::sample::select(vec![KeyFormat::Simple, KeyFormat::Partitioned])
    }

    /// Keys of log objects behind any text, and such keys with some letters left out, put in or changed.
    fn nearly_a_key() -> impl Strategy<Value = String> {
        let before = "(?s:.){0,9}|[0-9/-]{0,24}|([a-z]{1,3}/){0,2}";
        let letter = prop_oneof![2 => "[0-9/-]", 1 => "[0-9A-Za-z]", 1 => "(?s:.)", 1 => Just(String::new())];
        let edit = (any::<prop::sample::Index>(), 0_usize..2, letter);
        let key = (before, any_format(), any_time(), "[0-9A-Za-z]{0,16}", prop::collection::vec(edit, 0..3));
        key.prop_map(|(before, format, at, unique, edits)| {
            let mut letters: Vec<char> = format!("{before}{}-{unique}", stamp(format, at)).chars().collect();
            for (place, out, letter) in edits {
                let place = place.index(letters.len());
                letters.splice(place..place + out, letter.chars());
            }
            letters.into_iter().collect()
        })
    }

    /// Whether AWS's documentation calls it a log object's key, found by other means than the parser's.
    fn documented(key: &str) -> bool {
        static SHAPE: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| {
            regex::Regex::new("(?s)^.*([0-9]{4}(?:-[0-9]{2}){4}-[0-5][0-9])-[0-9A-Za-z]+$").unwrap()
        });
        let stamp = SHAPE.captures(key).map(|parts| parts[1].to_owned());
        stamp.is_some_and(|stamp| NaiveDateTime::parse_from_str(&stamp, "%Y-%m-%d-%H-%M-%S").is_ok())
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(prefix in "(?s:.){0,8}", key in "[0-9é/ -]{0,40}", rest in "(?s:.)*") {
            let whole = format!("{prefix}{key}{rest}");
            let _ = LogKey::parse(&prefix, &whole);
            let _ = LogKey::parse(&key, &whole);
            let _ = LogKey::parse("", &rest);
            let _ = Location::of_source(&whole);
            let _ = Location::of_destination(&rest);
        }

        #[test]
        fn a_key_that_was_put_together_comes_apart_again(
            prefix in "(\\PC){0,12}",
            group in "((?s:.){0,12}x/)?",
            format in any_format(),
            at in any_time(),
            unique in "[0-9A-Za-z]{1,16}",
        ) {
            let prefix = if group.is_empty() { format!("{prefix}/") } else { prefix };
            let key = format!("{prefix}{group}{}-{unique}", stamp(format, at));
            let log = LogKey::parse(&prefix, &key).unwrap();
            prop_assert_eq!((log.group(), log.at(), log.format()), (group.as_str(), at, format));
        }

        #[test]
        fn a_key_is_taken_exactly_where_it_ends_as_documented_and_nothing_of_it_is_lost(key in nearly_a_key()) {
            let log = LogKey::parse("", &key);
            prop_assert_eq!(log.is_some(), documented(&key));
            if let Some(log) = log {
                let unique = key.rsplit('-').next().unwrap();
                prop_assert_eq!(format!("{}{}-{unique}", log.before_time(), stamp(log.format(), log.at())), &*key);
                prop_assert_eq!(log.group(), log.before_time());
            }
        }

        #[test]
        fn a_prefix_takes_away_from_the_group_and_changes_nothing_else(key in nearly_a_key(), cut in any::<prop::sample::Index>()) {
            let ends: Vec<usize> = key.char_indices().map(|(at, _)| at).chain([key.len()]).collect();
            let prefix = &key[..ends[cut.index(ends.len())]];
            let (whole, cut) = (LogKey::parse("", &key), LogKey::parse(prefix, &key));
            prop_assert_eq!(cut.is_some(), whole.is_some());
            if let (Some(whole), Some(cut)) = (whole, cut) {
                prop_assert_eq!((cut.at(), cut.format(), cut.before_time()), (whole.at(), whole.format(), whole.before_time()));
                prop_assert_eq!(cut.group(), whole.group().strip_prefix(prefix).unwrap_or(""));
            }
        }

        #[test]
        fn a_location_is_read_as_it_is_shown(text in "(s3://)?[a-z0-9.-]{1,12}(/(?s:.){0,12})?|(?s:.){0,12}") {
            if let Ok(location) = Location::of_source(&text) {
                prop_assert_eq!(Location::of_source(&location.to_string()), Ok(location.clone()));
                let destination = Location::of_destination(&text).unwrap();
                prop_assert!(destination.prefix().is_empty() || destination.prefix().ends_with('/'));
                prop_assert_eq!(destination.prefix().trim_end_matches('/'), location.prefix().trim_end_matches('/'));
                prop_assert_eq!(Location::of_destination(&destination.to_string()), Ok(destination));
            }
        }
    }
}
