//! Levels and periods: which span of time one rollup holds. Everything is UTC, as the names of log objects are.
//!
//! What a rollup is called beyond its period's name, and which periods are rolled up, is not decided here.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

/// How long the periods are; ordered from the longest to the shortest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Calendar months.
    Month,
    /// Calendar days.
    Day,
    /// Full hours.
    Hour,
    /// The six spans of ten minutes in an hour.
    TenMinutes,
}

impl Level {
    /// Every level, from the longest to the shortest.
    pub const ALL: [Self; 4] = [Self::Month, Self::Day, Self::Hour, Self::TenMinutes];

    /// The word a setting uses: `month`, `day`, `hour`, `10min`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::TenMinutes => "10min",
        }
    }

    /// Whether a period of this level is told by a date alone.
    #[must_use]
    pub fn is_told_by_a_date(self) -> bool {
        matches!(self, Self::Month | Self::Day)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a level is `month`, `day`, `hour` or `10min`")]
pub struct UnknownLevel;

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Takes exactly the words of [`Level::word`].
    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.word() == word).ok_or(UnknownLevel)
    }
}

/// One month, day, hour or ten minutes of the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    start: NaiveDateTime,
    level: Level,
}

impl Period {
    /// The period of `level` that `at` (UTC) lies in.
    #[must_use]
    pub fn of(level: Level, at: NaiveDateTime) -> Self {
        let start = match level {
            Level::Month => first_of_month(at.date()).and_time(NaiveTime::MIN),
            Level::Day => at.date().and_time(NaiveTime::MIN),
            Level::Hour => at.date().and_time(minutes_of_day(at.hour(), 0)),
            Level::TenMinutes => at.date().and_time(minutes_of_day(at.hour(), at.minute() / 10 * 10)),
        };
        Self { start, level }
    }

    /// How long the period is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The first instant of the period, UTC.
    #[must_use]
    pub fn start(&self) -> NaiveDateTime {
        self.start
    }

    /// The first instant after the period, UTC: it belongs to the next one.
    #[must_use]
    pub fn end(&self) -> NaiveDateTime {
        match self.level {
            Level::Month => self.start.checked_add_months(Months::new(1)),
            Level::Day => self.start.checked_add_signed(TimeDelta::days(1)),
            Level::Hour => self.start.checked_add_signed(TimeDelta::hours(1)),
            Level::TenMinutes => self.start.checked_add_signed(TimeDelta::minutes(10)),
        }
        // Keys have years of four digits; chrono's last year is beyond 262,000.
        .unwrap_or(NaiveDateTime::MAX)
    }

    /// Whether `at` (UTC) lies in the period.
    #[must_use]
    pub fn holds(&self, at: NaiveDateTime) -> bool {
        self.start <= at && at < self.end()
    }

    /// `2019-09`, `2019-09-14`, `2019-09-14-17` or `2019-09-14-17-20`: the length says the level.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.start;
        write!(f, "{:04}-{:02}", at.year(), at.month())?;
        if self.level >= Level::Day {
            write!(f, "-{:02}", at.day())?;
        }
        if self.level >= Level::Hour {
            write!(f, "-{:02}", at.hour())?;
        }
        if self.level >= Level::TenMinutes {
            write!(f, "-{:02}", at.minute())?;
        }
        Ok(())
    }
}

fn first_of_month(date: NaiveDate) -> NaiveDate {
    date.with_day(1).expect("every month has a first day")
}

fn minutes_of_day(hour: u32, minute: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(hour, minute, 0).expect("an hour and a minute that came from a time are in range")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    #[rstest]
    #[case(Level::Month, "2019-09", "2019-09-01T00:00:00", "2019-10-01T00:00:00")]
    #[case(Level::Day, "2019-09-14", "2019-09-14T00:00:00", "2019-09-15T00:00:00")]
    #[case(Level::Hour, "2019-09-14-17", "2019-09-14T17:00:00", "2019-09-14T18:00:00")]
    #[case(Level::TenMinutes, "2019-09-14-17-20", "2019-09-14T17:20:00", "2019-09-14T17:30:00")]
    fn a_period_has_a_name_a_start_and_an_end(
        #[case] level: Level,
        #[case] name: &str,
        #[case] start: &str,
        #[case] end: &str,
    ) {
        let period = Period::of(level, at("2019-09-14T17:29:59"));
        assert_eq!((period.name().as_str(), period.start(), period.end()), (name, at(start), at(end)));
        assert_eq!(period.level(), level);
    }

    #[rstest]
    #[case(Level::Month, "2019-12-31T23:59:59", "2020-01-01T00:00:00")]
    #[case(Level::Month, "2020-02-29T00:00:00", "2020-03-01T00:00:00")]
    #[case(Level::Day, "2020-02-28T23:00:00", "2020-02-29T00:00:00")]
    #[case(Level::Hour, "2019-12-31T23:10:00", "2020-01-01T00:00:00")]
    #[case(Level::TenMinutes, "2019-12-31T23:59:59", "2020-01-01T00:00:00")]
    fn a_period_ends_where_the_calendar_says(#[case] level: Level, #[case] time: &str, #[case] end: &str) {
        assert_eq!(Period::of(level, at(time)).end(), at(end));
    }

    #[test]
    fn a_level_is_read_by_the_word_it_is_shown_as() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
    }

    #[rstest]
    #[case("")]
    #[case("DAY")]
    #[case("10m")]
    #[case("week")]
    fn another_word_is_no_level(#[case] word: &str) {
        assert_eq!(word.parse::<Level>(), Err(UnknownLevel));
    }

    /// Seconds since 1970 of the years that a key can name: 0000 to 9999.
    const SECONDS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;

    fn time(seconds: i64) -> NaiveDateTime {
        chrono::DateTime::from_timestamp(seconds, 0).unwrap().naive_utc()
    }

    /// Two times, near each other more often than not.
    fn two_times() -> impl Strategy<Value = (NaiveDateTime, NaiveDateTime)> {
        let apart = prop_oneof![-700_i64..700, -100_000_i64..100_000, -4_000_000_i64..4_000_000];
        let near =
            (4_000_000 + SECONDS.start..SECONDS.end - 4_000_000, apart).prop_map(|(one, apart)| (one, one + apart));
        prop_oneof![3 => near, 1 => (SECONDS, SECONDS)].prop_map(|(one, other)| (time(one), time(other)))
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_period_and_its_end_in_the_next(seconds in SECONDS, which in 0_usize..4) {
            let time = time(seconds);
            let period = Period::of(Level::ALL[which], time);
            prop_assert!(period.holds(time));
            prop_assert_eq!(Period::of(Level::ALL[which], period.start()), period);
            let next = Period::of(Level::ALL[which], period.end());
            prop_assert_eq!(next.start(), period.end());
            prop_assert!(!period.holds(period.end()));
        }

        #[test]
        fn two_times_share_a_name_exactly_where_they_share_a_period((one, other) in two_times(), which in 0_usize..4) {
            let [here, there] = [one, other].map(|time| Period::of(Level::ALL[which], time));
            prop_assert_eq!(here.name() == there.name(), here.holds(other));
            prop_assert_eq!(here.name().cmp(&there.name()), here.start().cmp(&there.start()));
            prop_assert_eq!(here.name().len(), [7, 10, 13, 16][which]);
        }

        #[test]
        fn a_shorter_period_lies_in_one_longer_period(seconds in SECONDS, which in 1_usize..4) {
            let short = Period::of(Level::ALL[which], time(seconds));
            let long = Period::of(Level::ALL[which - 1], time(seconds));
            prop_assert!(long.start() <= short.start() && short.end() <= long.end());
            prop_assert!(short.name().starts_with(&long.name()));
        }
    }
}
