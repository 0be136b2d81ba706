//! Rounds and their medians.

use std::time::Duration;

/// What one column of a table is about: it gives one figure for each row, the larger the better.
pub(super) struct Column<'a> {
    pub(super) name: String,
    pub(super) measure: Box<dyn Fn(usize) -> anyhow::Result<f64> + 'a>,
}

/// The figures of a row, of each column in each round.
pub(super) struct Row(Vec<Vec<f64>>);

impl Row {
    /// Runs all columns in turn, so often.
    pub(super) fn measure(columns: &[Column<'_>], row: usize, rounds: usize) -> Row {
        let mut figures = vec![vec![]; columns.len()];
        for round in 0..rounds {
            for turn in 0..columns.len() {
                // Nobody always comes after the same neighbour.
                let n = (turn + round) % columns.len();
                figures[n].push((columns[n].measure)(row).unwrap_or_else(|why| {
                    eprintln!("{} failed: {why:#}", columns[n].name);
                    f64::NAN
                }));
            }
        }
        Row(figures)
    }

    /// The median figure of a column.
    pub(super) fn figure(&self, column: usize) -> f64 {
        median(self.0[column].clone())
    }

    /// The median of the ratios of two columns, each within a round.
    pub(super) fn ratio(&self, column: usize, to: usize) -> f64 {
        median(self.0[column].iter().zip(&self.0[to]).map(|(a, b)| a / b).collect())
    }
}

/// The one in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// A line of a table in markdown.
pub(super) fn line(cells: impl IntoIterator<Item = String>) {
    println!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}

/// The lines above.
pub(super) fn head<'a>(title: &str, cells: impl IntoIterator<Item = &'a str>) {
    let cells: Vec<String> = cells.into_iter().map(str::to_owned).collect();
    println!("\n{title}\n");
    line(cells.clone());
    println!("|{}", "---|".repeat(cells.len()));
}

/// In a few letters: 1.09M, 166k, 2.1.
pub(super) fn short(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

/// As milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![4.0, f64::NAN, 2.0, 3.0]), 3.0);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let row = Row(vec![vec![2.0, 40.0, 6.0], vec![1.0, 20.0, 2.0]]);
        assert_eq!((row.figure(0), row.ratio(0, 1)), (6.0, 2.0));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([1_090_000.0, 166_000.0, 123.4, 2.1].map(short), ["1.09M", "166k", "123", "2.10"]);
    }
}
