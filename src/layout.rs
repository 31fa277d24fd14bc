//! What a rollup is called: the key template, filled in with a group and a period.
//!
//! Owns the names of rollups and which names are kept free for other objects. Where manifests and receipts lie is
//! not decided here, only that no rollup ever lies there.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
use regex::Regex;

use crate::key::LogKey;
use crate::period::{Level, Period};

/// The name of a rollup: its key less the destination prefix.
///
/// It has 1 to 960 bytes, begins and ends without a `/`, holds no `//`, does not begin with `_` (`_manifests/`,
/// `_receipts/` and `_probe` lie there, and Athena, Glue, Spark and Hive ignore such names), and does not read as the
/// key of a log object, so that no pass ever takes a rollup for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupName(Box<str>);

/// Of the 1024 bytes of a key, some are kept for `_manifests/`, a batch's id and what may come.
const MAX_BYTES: usize = 960;

impl RollupName {
    /// Takes a name that stands in a key, a manifest's for example; `None`: no rollup can be called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let sound = !name.is_empty()
            && name.len() <= MAX_BYTES
            && !name.starts_with(['_', '/'])
            && !name.ends_with('/')
            && !name.contains("//")
            && LogKey::parse("", name).is_none();
        sound.then(|| Self(name.into()))
    }

    /// The name alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole key below a destination prefix, which is empty or ends in `/`.
    #[must_use]
    pub fn key(&self, destination_prefix: &str) -> String {
        format!("{destination_prefix}{}", self.0)
    }
}

impl fmt::Display for RollupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a template makes no layout. Each message is a clause that follows the template itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A `{` without its `}`, or the other way round.
    #[error("has a `{{` or `}}` that stands alone")]
    Braces,
    /// A placeholder nobody fills in.
    #[error(
        "has `{{{0}}}`: the placeholders are {{group}}, {{period}}, {{year}}, {{month}}, {{day}}, {{hour}} and {{minute}}"
    )]
    Unknown(String),
    /// `{group}` is missing, or there twice.
    #[error("must hold {{group}} once: without it, the logs of all groups would end up in one rollup")]
    Group,
    /// Two periods would share a rollup.
    #[error("does not tell the periods of level {level} apart: it must hold {{period}}, or all of {needed}")]
    Periods {
        /// The level asked for.
        level: Level,
        /// The placeholders that would do.
        needed: &'static str,
    },
    /// A placeholder finer than the level.
    #[error("has {placeholder}, which a period of level {level} does not have")]
    TooFine {
        /// The placeholder, in its braces.
        placeholder: &'static str,
        /// The level asked for.
        level: Level,
    },
    /// A folder without a name.
    #[error("must not begin or end with `/`, nor hold `//`")]
    Slashes,
    /// The names of manifests, receipts and probes.
    #[error("must not begin with `_`: such names belong to manifests, and query engines ignore them")]
    Underscore,
    /// A rollup would be read as a log object by the next pass.
    #[error("makes names like `{0}`, which read as log objects or are too long for a key")]
    Name(String),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group,
    Period,
    Year,
    Month,
    Day,
    Hour,
    Minute,
}

/// Every placeholder, with the coarsest level whose periods have it.
const PLACEHOLDERS: [(&str, Piece, Level); 7] = [
    ("{group}", Piece::Group, Level::Month),
    ("{period}", Piece::Period, Level::Month),
    ("{year}", Piece::Year, Level::Month),
    ("{month}", Piece::Month, Level::Month),
    ("{day}", Piece::Day, Level::Day),
    ("{hour}", Piece::Hour, Level::Hour),
    ("{minute}", Piece::Minute, Level::TenMinutes),
];

/// How rollups are named: a key template at a level, below a destination prefix.
///
/// - No folder's name is ever empty: a `/` is left out where the name would begin or end with it, or where it would
///   follow another one. So the groups `web` and `web/` share a rollup in `{group}/{period}`, `a//b/` shares one with
///   `a/b/`, and an empty group leaves no empty folder.
/// - `{minute}` is the start of the ten minutes: `00`, `10` … `50`.
#[derive(Clone, Debug)]
pub struct Layout {
    pieces: Vec<Piece>,
    level: Level,
    destination_prefix: String,
    /// Names of this shape may be this layout's; filling the template in again decides.
    shape: Regex,
}

impl Layout {
    /// Checks a template.
    ///
    /// It must hold `{group}` once and tell the periods of `level` apart. `destination_prefix` is empty or ends
    /// in `/`.
    pub fn new(template: &str, level: Level, destination_prefix: &str) -> Result<Self, LayoutError> {
        let pieces = pieces(template)?;
        check_placeholders(&pieces, level)?;
        check_text(template)?;
        let layout =
            Self { shape: shape(&pieces, level), pieces, level, destination_prefix: destination_prefix.to_owned() };
        layout.check_sample()?;
        Ok(layout)
    }

    /// How long the periods are.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What every rollup's key begins with.
    #[must_use]
    pub fn destination_prefix(&self) -> &str {
        &self.destination_prefix
    }

    /// The name of the rollup of a group's period; `None`: it would be one no rollup may have (see [`RollupName`]).
    /// The period must be one of this layout's level.
    #[must_use]
    pub fn rollup(&self, group: &str, period: &Period) -> Option<RollupName> {
        let name = self.fill_in(group, period);
        let fits = self.destination_prefix.len() + name.len() <= MAX_BYTES;
        fits.then(|| RollupName::parse(&name)).flatten()
    }

    /// The key of a rollup.
    #[must_use]
    pub fn key(&self, rollup: &RollupName) -> String {
        rollup.key(&self.destination_prefix)
    }

    /// Whether this layout could have made the name, for some group and some period: another level's, or another
    /// template's, it could not.
    #[must_use]
    pub fn owns(&self, name: &RollupName) -> bool {
        let Some((group, period)) = self.take_apart(name.as_str()) else { return false };
        self.rollup(group, &period).as_ref() == Some(name)
    }

    fn fill_in(&self, group: &str, period: &Period) -> String {
        let mut name = String::with_capacity(group.len() + 64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => push_path(&mut name, text),
                Piece::Group => push_path(&mut name, group),
                field => push_field(&mut name, field, period),
            }
        }
        if name.ends_with('/') {
            name.pop();
        }
        name
    }

    /// The group and the period that a name of the right shape would have been made of.
    fn take_apart<'n>(&self, name: &'n str) -> Option<(&'n str, Period)> {
        let parts = self.shape.captures(name)?;
        let number = |field: &str| parts.name(field).map(|digits| digits.as_str().parse().ok());
        let date = NaiveDate::from_ymd_opt(
            i32::try_from(number("year").flatten()?).ok()?,
            number("month").flatten()?,
            number("day").unwrap_or(Some(1))?,
        )?;
        let at = date.and_hms_opt(number("hour").unwrap_or(Some(0))?, number("minute").unwrap_or(Some(0))?, 0)?;
        Some((parts.name("group")?.as_str(), Period::of(self.level, at)))
    }

    /// What is wrong with every name is wrong with the template. The sample period is the first of 1970.
    fn check_sample(&self) -> Result<(), LayoutError> {
        let period = Period::of(self.level, NaiveDateTime::default());
        match self.rollup("web/", &period) {
            Some(_) => Ok(()),
            None => Err(LayoutError::Name(self.fill_in("web/", &period))),
        }
    }
}

/// Appends a part of a path, without ever making a folder that has no name.
fn push_path(name: &mut String, part: &str) {
    for folder in part.split_inclusive('/') {
        if folder != "/" || !(name.is_empty() || name.ends_with('/')) {
            name.push_str(folder);
        }
    }
}

fn push_field(name: &mut String, field: &Piece, period: &Period) {
    let at = period.start();
    match field {
        Piece::Period => write!(name, "{period}"),
        Piece::Year => write!(name, "{:04}", at.year()),
        Piece::Month => write!(name, "{:02}", at.month()),
        Piece::Day => write!(name, "{:02}", at.day()),
        Piece::Hour => write!(name, "{:02}", at.hour()),
        Piece::Minute => write!(name, "{:02}", at.minute()),
        Piece::Text(_) | Piece::Group => Ok(()),
    }
    .expect("a String takes whatever is written to it");
}

fn pieces(template: &str) -> Result<Vec<Piece>, LayoutError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        let (text, from_brace) = rest.split_at(brace);
        let end = from_brace.find('}').ok_or(LayoutError::Braces)?;
        let (placeholder, after) = from_brace.split_at(end + 1);
        let inner = placeholder.strip_prefix('{').ok_or(LayoutError::Braces)?.trim_end_matches('}');
        if inner.contains('{') {
            return Err(LayoutError::Braces);
        }
        let (_, piece, _) = PLACEHOLDERS
            .into_iter()
            .find(|(known, ..)| *known == placeholder)
            .ok_or_else(|| LayoutError::Unknown(inner.to_owned()))?;
        pieces.extend((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
        pieces.push(piece);
        rest = after;
    }
    pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
    Ok(pieces)
}

fn check_placeholders(pieces: &[Piece], level: Level) -> Result<(), LayoutError> {
    if pieces.iter().filter(|piece| **piece == Piece::Group).count() != 1 {
        return Err(LayoutError::Group);
    }
    for (placeholder, piece, coarsest) in &PLACEHOLDERS {
        if *coarsest > level && pieces.contains(piece) {
            return Err(LayoutError::TooFine { placeholder, level });
        }
    }
    let (needed, fields): (_, &[Piece]) = match level {
        Level::Month => ("{year} {month}", &[Piece::Year, Piece::Month]),
        Level::Day => ("{year} {month} {day}", &[Piece::Year, Piece::Month, Piece::Day]),
        Level::Hour => ("{year} {month} {day} {hour}", &[Piece::Year, Piece::Month, Piece::Day, Piece::Hour]),
        Level::TenMinutes => (
            "{year} {month} {day} {hour} {minute}",
            &[Piece::Year, Piece::Month, Piece::Day, Piece::Hour, Piece::Minute],
        ),
    };
    if pieces.contains(&Piece::Period) || fields.iter().all(|field| pieces.contains(field)) {
        Ok(())
    } else {
        Err(LayoutError::Periods { level, needed })
    }
}

fn check_text(template: &str) -> Result<(), LayoutError> {
    if template.starts_with('/') || template.ends_with('/') || template.contains("//") {
        return Err(LayoutError::Slashes);
    }
    if template.starts_with('_') {
        return Err(LayoutError::Underscore);
    }
    if template.len() > MAX_BYTES {
        return Err(LayoutError::Name(template.to_owned()));
    }
    Ok(())
}

/// A pattern that every name of the layout has; beside the group, the `/` that may have been left out is optional.
fn shape(pieces: &[Piece], level: Level) -> Regex {
    let mut pattern = "^".to_owned();
    let mut named = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let after_group = at > 0 && pieces[at - 1] == Piece::Group;
        let before_group = pieces.get(at + 1) == Some(&Piece::Group);
        match piece {
            Piece::Text(text) => push_text_pattern(&mut pattern, text, after_group, before_group),
            Piece::Group => pattern.push_str("(?<group>(?s:.*))"),
            field => push_field_pattern(&mut pattern, field, level, &mut named),
        }
    }
    pattern.push('$');
    Regex::new(&pattern).expect("escaped text and fixed groups make a pattern")
}

fn push_text_pattern(pattern: &mut String, text: &str, after_group: bool, before_group: bool) {
    let (before, text) = match text.strip_prefix('/') {
        Some(rest) if after_group => ("/?", rest),
        _ => ("", text),
    };
    let (text, after) = match text.strip_suffix('/') {
        Some(rest) if before_group => (rest, "/?"),
        _ => (text, ""),
    };
    pattern.push_str(before);
    pattern.push_str(&regex::escape(text));
    pattern.push_str(after);
}

/// A field's digits, captured by its name the first time.
fn push_field_pattern(pattern: &mut String, field: &Piece, level: Level, named: &mut Vec<&'static str>) {
    let fields: &[(&str, &str)] = match field {
        Piece::Period => {
            &[("", "year"), ("-", "month"), ("-", "day"), ("-", "hour"), ("-", "minute")][..fields_of(level)]
        }
        Piece::Year => &[("", "year")],
        Piece::Month => &[("", "month")],
        Piece::Day => &[("", "day")],
        Piece::Hour => &[("", "hour")],
        Piece::Minute => &[("", "minute")],
        Piece::Text(_) | Piece::Group => &[],
    };
    for &(separator, name) in fields {
        let width = if name == "year" { 4 } else { 2 };
        let capture = if named.contains(&name) { String::new() } else { format!("?<{name}>") };
        let _ = write!(pattern, "{separator}({capture}[0-9]{{{width}}})");
        named.push(name);
    }
}

/// How many of year, month, day, hour and minute a period's name has.
fn fields_of(level: Level) -> usize {
    match level {
        Level::Month => 2,
        Level::Day => 3,
        Level::Hour => 4,
        Level::TenMinutes => 5,
    }
}
