//! What was measured, as one table and as JSON.

use crate::machine::Machine;
use crate::statistics::Summary;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// In what a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Time per operation: less is better.
    Nanoseconds,
    /// Less time is better, said the other way round.
    BytesPerSecond,
    /// Operations.
    PerSecond,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds if value < 1e3 => format!("{value:.0} ns"),
            Self::Nanoseconds if value < 1e6 => format!("{:.2} µs", value / 1e3),
            Self::Nanoseconds => format!("{:.2} ms", value / 1e6),
            Self::BytesPerSecond => format!("{:.2} GB/s", value / 1e9),
            Self::PerSecond if value < 1e6 => format!("{value:.0}/s"),
            Self::PerSecond => format!("{:.2} M/s", value / 1e6),
        }
    }
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Target {
    /// At most so many of the unit.
    AtMost(f64),
    /// At least so many of the unit.
    AtLeast(f64),
    /// At least this share of the reference.
    ShareOf(f64),
    /// At most so many times the reference.
    TimesAtMost(f64),
}

impl Target {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(value) => format!("≤ {}", unit.show(value)),
            Self::AtLeast(value) => format!("≥ {}", unit.show(value)),
            Self::ShareOf(share) => format!("≥ {:.0} %", share * 100.0),
            Self::TimesAtMost(times) => format!("≤ {times}×"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What it belongs to.
    pub(crate) group: String,
    /// What was done.
    pub(crate) what: String,
    /// In what the figures are.
    pub(crate) unit: Unit,
    /// Ours.
    pub(crate) ours: Summary,
    /// What it is to be compared with, from the same run.
    pub(crate) reference: Option<(String, Summary)>,
    /// What it is to be.
    pub(crate) target: Option<Target>,
}

impl Row {
    /// A figure that stands alone.
    pub(crate) fn new(group: impl Into<String>, what: impl Into<String>, unit: Unit, ours: Summary) -> Self {
        Self { group: group.into(), what: what.into(), unit, ours, reference: None, target: None }
    }

    /// Compared with `other`.
    #[must_use]
    pub(crate) fn beside(mut self, name: impl Into<String>, other: Summary) -> Self {
        self.reference = Some((name.into(), other));
        self
    }

    /// To be so.
    #[must_use]
    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Ours over the reference's.
    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, other)| self.ours.median / other.median)
    }

    /// Whether the target was met; `None` without one.
    pub(crate) fn met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::AtMost(value) => self.ours.median <= value,
            Target::AtLeast(value) => self.ours.median >= value,
            Target::ShareOf(share) => self.ratio()? >= share,
            Target::TimesAtMost(times) => self.ratio()? <= times,
        })
    }
}

/// The table of all rows.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "measured", "±", "beside", "", "ratio", "target", ""]);
    let mut groups: Vec<&str> = Vec::new();
    for row in rows {
        if !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    let mut group = "";
    for row in groups.iter().flat_map(|group| rows.iter().filter(move |row| row.group == *group)) {
        if row.group != group {
            group = &row.group;
            table.add_row([Cell::new(group)]);
        }
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let (name, other) = row
            .reference
            .as_ref()
            .map_or_else(Default::default, |(name, other)| (name.clone(), row.unit.show(other.median)));
        let ratio = row.ratio().map_or_else(String::new, |ratio| match row.unit {
            Unit::BytesPerSecond => format!("{:.0} %", ratio * 100.0),
            _ if ratio < 0.1 => format!("1/{:.0}", 1.0 / ratio),
            _ => format!("{ratio:.2}×"),
        });
        table.add_row([
            Cell::new(format!("  {}", row.what)),
            right(row.unit.show(row.ours.median)),
            right(format!("{:.0} %", row.ours.spread() * 100.0)),
            Cell::new(name),
            right(other),
            right(ratio),
            right(row.target.map_or_else(String::new, |target| target.show(row.unit))),
            Cell::new(row.met().map_or("", |met| if met { "✓" } else { "✗" })),
        ]);
    }
    table
}

/// Everything, for programs.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    /// Where.
    pub(crate) machine: &'a Machine,
    /// What.
    pub(crate) rows: Vec<Line<'a>>,
}

/// A row and what follows from it.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    #[serde(flatten)]
    row: &'a Row,
    ratio: Option<f64>,
    met: Option<bool>,
}

impl<'a> Report<'a> {
    /// Of all rows.
    pub(crate) fn new(machine: &'a Machine, rows: &'a [Row]) -> Self {
        let rows = rows.iter().map(|row| Line { row, ratio: row.ratio(), met: row.met() }).collect();
        Self { machine, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(median: f64, other: f64, target: Target) -> Row {
        let summary = |median| Summary { median, low: median, high: median };
        Row::new("g", "w", Unit::Nanoseconds, summary(median)).beside("other", summary(other)).target(target)
    }

    #[test]
    fn a_target_that_is_missed_says_so() {
        for (row, met) in [
            (row(100.0, 1.0, Target::AtMost(200.0)), true),
            (row(300.0, 1.0, Target::AtMost(200.0)), false),
            (row(89.0, 100.0, Target::ShareOf(0.9)), false),
            (row(91.0, 100.0, Target::ShareOf(0.9)), true),
            (row(121.0, 100.0, Target::TimesAtMost(1.2)), false),
            (row(5e6, 1.0, Target::AtLeast(6e6)), false),
        ] {
            assert_eq!(row.met(), Some(met));
            assert!(table(&[row]).to_string().contains(if met { '✓' } else { '✗' }));
        }
    }
}
