//! Medians of all runs, and what they are to the best peer and to the limit.

use crate::contender::Role;
use crate::scenarios::{Figure, percentile};

/// What one contender came to in one scenario.
pub struct Row {
    pub name: &'static str,
    pub role: Role,
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
            row.name,
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
    let ours: Vec<&Row> = rows.iter().filter(|row| row.role == Role::Ours).collect();
    for row in &ours {
        // Whose figures, where there are several of ours.
        let whose = match ours.len() {
            1 => "of",
            _ => row.name,
        };
        for (what, role) in [("best", Role::Peer), ("limit", Role::Limit)] {
            print_ratio(&format!("{whose} {what}"), &names, row, rows, role);
        }
    }
    for row in rows {
        for error in row.runs.iter().filter_map(|run| run.as_ref().err()) {
            println!("  {} failed: {error}", row.name);
        }
    }
}

fn print_ratio(what: &str, names: &[&str], ours: &Row, rows: &[Row], role: Role) {
    print!("  {what:<12} {:>5}", "");
    for name in names {
        let others = rows.iter().filter(|row| row.role == role);
        let medians = others.filter_map(|row| row.median(name));
        let best = match is_more_better(name) {
            true => medians.max_by(f64::total_cmp),
            false => medians.min_by(f64::total_cmp),
        };
        match ours.median(name).zip(best) {
            Some((ours, best)) if best > 0.0 => print!(" {:>15}", format!("{:.2}", ours / best)),
            _ => print!(" {:>15}", "-"),
        }
    }
    println!();
}

/// Of rates. All other figures are costs.
fn is_more_better(figure: &str) -> bool {
    figure.contains("/s")
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
