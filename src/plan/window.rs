//! The window of SINCE and UNTIL: which log objects it takes, and what of a listing can be jumped over.

use chrono::{DateTime, Datelike, NaiveDateTime, NaiveTime, Utc};

use crate::key::{KeyFormat, LogKey};
use crate::period::Period;

/// From one instant to another, which no longer belongs to it; both UTC, both may be open.
///
/// A key that may carry a date only stands for its whole day, so the window's ends count as their days then: a day
/// belongs to the window it is cut by at its beginning. Windows that follow each other take every key once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    since: NaiveDateTime,
    until: NaiveDateTime,
}

impl Window {
    pub(super) fn new(since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Self {
        Self {
            since: since.map_or(NaiveDateTime::MIN, |since| since.naive_utc()),
            until: until.map_or(NaiveDateTime::MAX, |until| until.naive_utc()),
        }
    }

    pub(super) fn takes(&self, key: &LogKey<'_>) -> bool {
        !self.lies_before(key) && !self.lies_after(key)
    }

    /// Whether every key of a period is taken.
    pub(super) fn holds(&self, period: &Period) -> bool {
        self.since <= period.start() && period.end() <= self.until
    }

    fn lies_before(&self, key: &LogKey<'_>) -> bool {
        key.at() < if key.may_be_a_date_only() { day(self.since) } else { self.since }
    }

    fn lies_after(&self, key: &LogKey<'_>) -> bool {
        key.at() >= if key.may_be_a_date_only() { day(self.until) } else { self.until }
    }

    /// The key after which the listing may go on when `key` was the last one: see [`super::Planner::skip_to`].
    pub(super) fn jump(&self, key: &LogKey<'_>, last: &str) -> Option<String> {
        let (before, year) = (key.before_time(), key.at().year());
        let date = match key.format() {
            KeyFormat::Simple => "%Y-%m-%d",
            KeyFormat::Partitioned => "%Y/%m/%d/",
        };
        // A `:` follows the digits, so it ends a year's keys and leaves what has a name of its own there.
        let end_of_year = || format!("{before}{year:04}{}:", if key.format() == KeyFormat::Simple { '-' } else { '/' });
        let target = if self.lies_before(key) {
            if self.since.year() == year { format!("{before}{}", self.since.format(date)) } else { end_of_year() }
        } else if key.at() >= self.until {
            // Not `lies_after`: with the day of UNTIL by date alone, keys with a time of day may follow that are taken.
            end_of_year()
        } else {
            return None;
        };
        (*target > *last).then_some(target)
    }
}

fn day(at: NaiveDateTime) -> NaiveDateTime {
    at.date().and_time(NaiveTime::MIN)
}
