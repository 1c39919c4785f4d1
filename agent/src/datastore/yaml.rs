//! From text to plain data: splits a stream into documents and parses each by itself.
//!
//! Splitting comes first, so that a document that is not YAML does not take the others with it.
//! Sizes, nesting and aliases are bounded: the text may come from anyone who can write a file.

use serde_json::Value;
use serde_saphyr::Options;

/// Largest file read, in bytes.
pub const LARGEST_FILE: u64 = 4 * 1024 * 1024;
/// Most documents in a file.
pub const MOST_DOCUMENTS: usize = 20_000;
/// Deepest nesting of mappings and lists. The kinds need less than ten.
const DEEPEST: usize = 32;
/// Most values in a document, those that aliases repeat included.
const MOST_NODES: usize = 100_000;
/// Values that aliases may repeat in the shortest document.
const FEW_NODES: usize = 100;

/// One document's text and where in the stream it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'t> {
    pub text: &'t str,
    /// Counted from 1.
    pub first_line: usize,
}

/// Text that is not YAML, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not valid YAML: {message}")]
pub struct BadYaml {
    /// Within the stream, counted from 1.
    pub line: usize,
    pub message: String,
}

/// Splits a stream at its `---` and `...` lines (YAML 1.2 §9.1: neither can occur at the beginning
/// of a line inside a document, not even in a block scalar). Documents without content are left
/// out.
pub fn split(stream: &str) -> Vec<Chunk<'_>> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut first_line = 1;
    let mut offset = 0;
    for (line_number, line) in (1..).zip(stream.split_inclusive('\n')) {
        if let Some(marker) = marker_length(line) {
            push_chunk(&mut chunks, stream.get(start..offset), first_line);
            // What stands on the line after `---` belongs to the document.
            start = offset + marker;
            first_line = line_number;
        }
        offset += line.len();
    }
    push_chunk(&mut chunks, stream.get(start..), first_line);
    chunks
}

fn push_chunk<'t>(chunks: &mut Vec<Chunk<'t>>, text: Option<&'t str>, first_line: usize) {
    let text = text.unwrap_or_default();
    // Comments, and directives (`%YAML 1.2`), which stand before a `---`.
    let is_blank = |line: &str| {
        let trimmed = line.trim_start();
        trimmed.is_empty() || trimmed.starts_with('#') || line.starts_with('%')
    };
    if !text.lines().all(is_blank) {
        chunks.push(Chunk { text, first_line });
    }
}

/// Length of the marker if the line is one.
fn marker_length(line: &str) -> Option<usize> {
    let rest = line
        .strip_prefix("---")
        .or_else(|| line.strip_prefix("..."))?;
    let ends = rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    ends.then_some(3)
}

/// Parses one document.
///
/// # Errors
/// `BadYaml` if it is not YAML, has a key twice, or exceeds a bound.
pub fn parse(chunk: &Chunk<'_>) -> Result<Value, BadYaml> {
    serde_saphyr::from_str_with_options(chunk.text, options(chunk.text.len())).map_err(|error| {
        let line = error
            .location()
            .and_then(|location| usize::try_from(location.line()).ok())
            .unwrap_or(1);
        let message = one_line(&error.without_snippet().to_string());
        // Its advice is for programmers.
        let message = message.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        // The parser counts lines from the document's first; two numbers for one place confuse.
        let own_position = format!(" at line {line}, ");
        BadYaml {
            line: chunk.first_line + line.saturating_sub(1),
            message: message.replace(&own_position, " at "),
        }
    })
}

/// For a document of so many octets. Aliases may repeat as many values as it has octets, so that a
/// file costs what its size says, however it is divided.
fn options(length: usize) -> Options {
    let most_repeated = length.clamp(FEW_NODES, MOST_NODES);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_nodes: MOST_NODES,
            max_events: 2 * MOST_NODES,
            max_recorded_anchor_events: MOST_NODES,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_inclusion_depth: 0,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: most_repeated,
            max_replay_stack_depth: 8,
        },
        // `node: no` means a node of that name.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        emit_comments: false,
    }
}

/// Reasons are printed one a line and kept short, whatever the parser quotes.
fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_split_at_their_markers() {
        for (name, stream, expected) in [
            ("empty", "", vec![]),
            ("comments only", "# a\n---\n\n# b\n", vec![]),
            ("one without marker", "a: 1\n", vec![("a: 1\n", 1)]),
            (
                "two",
                "a: 1\n---\nb: 2\n",
                vec![("a: 1\n", 1), ("\nb: 2\n", 2)],
            ),
            (
                "content on the marker's line",
                "--- {a: 1}\n",
                vec![(" {a: 1}\n", 1)],
            ),
            (
                "directive and end marker",
                "%YAML 1.2\n---\na: 1\n...\n---\nb: 2",
                vec![("\na: 1\n", 2), ("\nb: 2", 5)],
            ),
            (
                "windows line ends",
                "a: 1\r\n---\r\nb: 2\r\n",
                vec![("a: 1\r\n", 1), ("\r\nb: 2\r\n", 2)],
            ),
            (
                "dashes that are no marker",
                "a: |\n  ---\n----: 1\n",
                vec![("a: |\n  ---\n----: 1\n", 1)],
            ),
            ("byte order mark", "\u{feff}a: 1", vec![("a: 1", 1)]),
        ] {
            let found: Vec<(&str, usize)> = split(stream)
                .iter()
                .map(|c| (c.text, c.first_line))
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    fn parse_text(text: &str) -> Result<Value, BadYaml> {
        parse(&Chunk {
            text,
            first_line: 10,
        })
    }

    #[test]
    fn an_error_names_its_line_in_the_stream() {
        let error = parse_text("a: 1\nb: [1, 2\nc: 3\n").expect_err("open list");
        assert!((11..=13).contains(&error.line), "{error:?}");
        assert!(!error.message.contains('\n'), "{error:?}");
        assert!(!error.message.contains("at line"), "{error:?}");
    }

    #[test]
    fn hostile_documents_end_in_an_error() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let previous = format!("*a{}", level - 1);
            let items = [previous.as_str(); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        let nested_blocks: String = (0..2000)
            .map(|i| format!("{}a:\n", " ".repeat(i)))
            .collect();
        for (name, text) in [
            ("alias bomb", bomb),
            ("nested lists", "[".repeat(100_000)),
            ("nested mappings", "{a: ".repeat(100_000)),
            ("nested blocks", nested_blocks),
            ("dashes", "- ".repeat(100_000)),
            ("question marks", "? ".repeat(100_000)),
            ("a key twice", "a: 1\na: 2\n".to_owned()),
            ("an alias to nothing", "a: *gone\n".to_owned()),
            ("recursion", "a: &a [*a]\n".to_owned()),
        ] {
            assert!(parse_text(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn aliases_may_repeat_no_more_values_than_the_document_has_octets() {
        let repeated = |times: usize| {
            let values = ["x"; 100].join(", ");
            let aliases = vec!["*a"; times].join(", ");
            format!("a: &a [{values}]\nb: [{aliases}]\n")
        };
        let (few, many) = (repeated(3), repeated(10));
        assert!(parse_text(&few).is_ok(), "{:?}", parse_text(&few));
        assert!(many.len() < 1000, "ten times a hundred");
        let error = parse_text(&many).expect_err("too many");
        assert!(error.message.contains("alias"), "{error}");
        assert!(parse_text("a: &a [x, y]\nb: *a\n").is_ok());
    }

    #[test]
    fn words_that_older_yaml_took_for_booleans_stay_words() {
        let value = parse_text("{a: no, b: on, c: true, d: 010, e: 1_000}").expect("valid");
        assert_eq!(
            value,
            serde_json::json!({"a": "no", "b": "on", "c": true, "d": "010", "e": "1_000"})
        );
    }
}
