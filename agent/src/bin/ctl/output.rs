//! How answers are shown: aligned columns for people, JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
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
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header)
        .add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// What stands in a column for a value that is not there.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| String::from("-"), |value| value.to_string())
}

fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    // `caracal routes | head` closes the pipe when it has seen enough.
    let _ = stdout
        .write_all(text.trim_end().as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
}
