//! Figures of a run: samples by row and subject, their median and range, a table and a JSON file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::Result;

/// Samples of one thing in one row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Median; not a number without samples.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        }
    }

    /// Lowest and highest.
    pub fn range(&self) -> (f64, f64) {
        self.0.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
    }

    fn text(&self) -> String {
        if self.0.is_empty() {
            return "–".to_owned();
        }
        let (low, high) = self.range();
        format!("{} ({}…{})", number(self.median()), number(low), number(high))
    }
}

/// All samples of a run: by row, then by subject.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures(BTreeMap<String, BTreeMap<String, Samples>>);

impl Figures {
    /// Adds a sample.
    pub fn add(&mut self, row: &str, subject: &str, value: f64) {
        self.0.entry(row.to_owned()).or_default().entry(subject.to_owned()).or_default().0.push(value);
    }

    /// The samples of a row.
    pub fn of(&self, row: &str, subject: &str) -> Samples {
        self.0.get(row).and_then(|row| row.get(subject)).cloned().unwrap_or_default()
    }

    /// Median, over the rounds, of how one compares with the other in the same round: what disturbs a round disturbs
    /// both.
    pub fn compare(&self, one: (&str, &str), other: (&str, &str), how: impl Fn(f64, f64) -> f64) -> f64 {
        let (one, other) = (self.of(one.0, one.1), self.of(other.0, other.1));
        Samples(one.0.iter().zip(&other.0).map(|(a, b)| how(*a, *b)).collect()).median()
    }

    /// Median of a row.
    pub fn median(&self, row: &str, subject: &str) -> f64 {
        self.of(row, subject).median()
    }
}

/// What a figure is held against.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What it is about.
    pub what: String,
    /// What was measured: a ratio or a figure of its own.
    pub measured: f64,
    /// What it may be at most.
    pub must: f64,
    /// What it would better be.
    pub stretch: f64,
    /// Unit, empty for ratios.
    pub unit: &'static str,
}

impl Goal {
    /// Whether it is kept. What could not be measured is not.
    pub fn is_met(&self) -> bool {
        self.measured <= self.must
    }

    fn verdict(&self) -> &'static str {
        match self.measured {
            m if m <= self.stretch => "stretch met",
            m if m <= self.must => "met",
            _ => "MISSED",
        }
    }
}

/// A table with a header, columns as wide as they must be.
#[derive(Clone, Debug)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// With these columns.
    pub fn new(header: &[&str]) -> Self {
        Self(vec![header.iter().map(ToString::to_string).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    /// As Markdown.
    pub fn text(&self) -> String {
        let columns = self.0[0].len();
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (at, row) in self.0.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "| {cell}{} ", " ".repeat(width - cell.chars().count()));
            }
            text.push_str("|\n");
            if at == 0 {
                for width in &widths {
                    let _ = write!(text, "|{}", "-".repeat(width + 2));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// A table of median and range by row and subject.
pub fn samples(figures: &Figures, rows: &[(&str, &str)], subjects: &[&str]) -> String {
    let mut header = vec!["median (lowest…highest)"];
    header.extend(subjects);
    let mut table = Table::new(&header);
    for (row, label) in rows {
        let mut cells = vec![(*label).to_owned()];
        cells.extend(subjects.iter().map(|subject| figures.of(row, subject).text()));
        table.row(cells);
    }
    table.text()
}

/// A table of goals and how they were met.
pub fn goals(goals: &[Goal]) -> String {
    let mut table = Table::new(&["goal", "measured", "must", "stretch", ""]);
    for goal in goals {
        let with_unit = |value: f64| {
            if goal.unit.is_empty() {
                format!("{value:.2}×")
            } else {
                format!("{} {}", number(value), goal.unit)
            }
        };
        table.row(vec![
            goal.what.clone(),
            with_unit(goal.measured),
            format!("≤ {}", with_unit(goal.must)),
            format!("≤ {}", with_unit(goal.stretch)),
            goal.verdict().to_owned(),
        ]);
    }
    table.text()
}

/// What `share` of the sorted values are at most; not a number without values.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// As many digits as mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "–".to_owned(),
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Where the figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    kernel: String,
    processor: String,
    cores: usize,
    /// Seconds since the Unix epoch.
    at: u64,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            at: crate::client::now_ns() / 1_000_000_000,
        }
    }

    /// In one line.
    pub fn text(&self) -> String {
        format!("{} cores of {}, Linux {}", self.cores, self.processor, self.kernel)
    }
}

/// Writes `NAME.txt` and `NAME.json` into `dir`, and the text to stdout.
///
/// # Errors
/// They cannot be written.
pub fn publish(dir: &Path, name: &str, text: &str, json: &impl Serialize) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join(format!("{name}.txt")), text)?;
    fs::write(dir.join(format!("{name}.json")), serde_json::to_string_pretty(json)?)?;
    println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_few_and_of_none() {
        assert!(Samples(vec![]).median().is_nan());
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        let found = [0.0, 0.5, 0.51, 0.99, 1.0].map(|share| percentile(&sorted, share));
        assert_eq!(found, [1.0, 2.0, 3.0, 4.0, 4.0]);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let goal = Goal { what: "x".to_owned(), measured: f64::NAN, must: 1.0, stretch: 0.5, unit: "" };
        assert!(!goal.is_met());
        assert_eq!(goal.verdict(), "MISSED");
    }
}
