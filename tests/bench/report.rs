//! Medians of all runs, and what they are to the best peer and to the limit.

use crate::scenarios::{Figure, percentile};

/// What one daemon came to in one scenario.
pub struct Row {
    pub daemon: &'static str,
    pub is_relay: bool,
    pub is_ours: bool,
    pub runs: Vec<Result<Vec<Figure>, String>>,
}

impl Row {
    /// Of the runs that counted.
    fn median(&self, figure: &str) -> Option<f64> {
        let mut values: Vec<f64> = self
            .runs
            .iter()
            .flatten()
            .filter_map(|figures| figures.iter().find(|(name, _)| *name == figure))
            .map(|(_, value)| *value)
            .collect();
        (!values.is_empty()).then(|| percentile(&mut values, 50))
    }

    fn is_peer(&self) -> bool {
        !self.is_relay && !self.is_ours
    }
}

/// Prints the figures of one scenario, and what ours are to those of others. A run that failed shows
/// why, and counts for nothing.
pub fn print(title: &str, rows: &[Row]) {
    // The limit may have fewer figures than the others.
    let all = rows.iter().flat_map(|row| row.runs.iter().flatten());
    let names: Vec<&str> = all
        .max_by_key(|figures| figures.len())
        .map_or(Vec::new(), |figures| {
            figures.iter().map(|(name, _)| *name).collect()
        });
    println!("\n{title}");
    print!("  {:<12} {:>5}", "", "runs");
    names.iter().for_each(|name| print!(" {name:>15}"));
    println!();
    for row in rows {
        let counted = row.runs.iter().flatten().count();
        print!(
            "  {:<12} {:>5}",
            row.daemon,
            format!("{counted}/{}", row.runs.len())
        );
        for name in &names {
            match row.median(name) {
                Some(value) => print!(" {:>15}", digits(value)),
                None => print!(" {:>15}", "-"),
            }
        }
        println!();
    }
    for (what, is_it) in [
        ("of best", Row::is_peer as fn(&Row) -> bool),
        ("of limit", |row: &Row| row.is_relay),
    ] {
        print_ratio(what, &names, rows, is_it);
    }
    for row in rows {
        for error in row.runs.iter().filter_map(|run| run.as_ref().err()) {
            println!("  {} failed: {error}", row.daemon);
        }
    }
}

fn print_ratio(what: &str, names: &[&str], rows: &[Row], is_it: fn(&Row) -> bool) {
    let Some(ours) = rows.iter().find(|row| row.is_ours) else {
        return;
    };
    print!("  {what:<12} {:>5}", "");
    for name in names {
        let others = rows.iter().filter(|row| is_it(row));
        let best = others
            .filter_map(|row| row.median(name))
            .min_by(f64::total_cmp);
        match ours.median(name).zip(best) {
            Some((ours, best)) if best > 0.0 => print!(" {:>15}", format!("{:.2}", ours / best)),
            _ => print!(" {:>15}", "-"),
        }
    }
    println!();
}

/// Three significant digits and no more zeros than needed.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}
