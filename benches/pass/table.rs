//! Figures of several runs: the median, the spread, and whether it holds.

use serde::Serialize;
use serde_json::Value;

use crate::clients::Measured;

/// The runs of one figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one figure.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: f64::midpoint(below, above), least: sorted[0], most: sorted[sorted.len() - 1] }
    }

    /// `median (least–most)`, or the one figure.
    pub(crate) fn show(&self, digits: usize) -> String {
        let Self { median, least, most } = self;
        if (most - least).abs() < f64::EPSILON {
            format!("{median:.digits$}")
        } else {
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        }
    }
}

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised.
    Told,
}

/// One line of the table of figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) row: String,
    pub(crate) what: String,
    pub(crate) found: Spread,
    pub(crate) reach: String,
    pub(crate) holds: bool,
    #[serde(skip)]
    digits: usize,
}

impl Figure {
    pub(crate) fn new(row: &str, what: &str, found: Spread, reach: Reach, digits: usize) -> Self {
        let (reach, holds) = match reach {
            Reach::AtMost(most) => (format!("≤ {most}"), found.median <= most),
            Reach::AtLeast(least) => (format!("≥ {least}"), found.median >= least),
            Reach::Told => (String::from("–"), true),
        };
        Self { row: row.to_owned(), what: what.to_owned(), found, reach, holds, digits }
    }

    /// A line of the table.
    pub(crate) fn show(&self) -> String {
        let Self { row, what, found, reach, holds, digits } = self;
        let verdict = if *holds { "" } else { " **missed**" };
        format!("| {row} | {what} | {} | {reach}{verdict} |", found.show(*digits))
    }
}

/// Everything that was measured, as JSON.
pub(crate) fn json(figures: &[Figure], runs: &[(String, Measured)]) -> Value {
    let runs: Vec<Value> = runs
        .iter()
        .map(|(row, run)| {
            let mut run = serde_json::to_value(run).expect("it is plain");
            run["row"] = row.as_str().into();
            run
        })
        .collect();
    serde_json::json!({ "figures": figures, "runs": runs })
}
