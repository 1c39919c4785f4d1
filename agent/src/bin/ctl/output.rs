//! How answers are shown: aligned columns for people, JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// Shows an answer in the format asked for; `table` makes the text for people.
pub(crate) fn show<T: Serialize>(format: Format, answer: &T, table: impl FnOnce(&T) -> String) {
    match format {
        Format::Table => print(&table(answer)),
        Format::Json => {
            print(&serde_json::to_string_pretty(answer).expect("our answers have string keys only"))
        }
    }
}

/// Columns without borders under a header. A long line is not wrapped: it can be cut, and grepped.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    columns_in_use(header, rows, &[])
}

/// The same without those of the columns `optional` that hold a dash in every row.
pub(crate) fn columns_in_use<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    optional: &[&str],
) -> String {
    let is_hidden: Vec<bool> = (0..N)
        .map(|index| optional.contains(&header[index]) && rows.iter().all(|row| row[index] == DASH))
        .collect();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header)
        .add_rows(rows);
    for (column, is_hidden) in table.column_iter_mut().zip(is_hidden) {
        column.set_padding((0, 2));
        if is_hidden {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt()
}

/// What stands in a column for a value that is not there.
const DASH: &str = "-";

/// The value, or what stands for one that is not there.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| String::from(DASH), |value| value.to_string())
}

fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    // `caracal routes | head` closes the pipe when it has seen enough.
    let _ = stdout
        .write_all(text.trim_end().as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
}
