//! Reads the fields of a document and remembers everything that is wrong with them.
//!
//! Deserializing straight into a struct stops at the first error. Someone who edits a file wants
//! them all at once, so every field is read by itself, and a field nobody asked for is an error.

use serde_json::{Map, Value};

/// What is wrong with one field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Path from the document's root: `spec.podCIDRs[1]`.
    pub field: String,
    /// A lower-case clause that says what to do about it.
    pub reason: String,
    pub effect: Effect,
}

/// What a problem means for the object it was found in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    /// The object is not used.
    Rejects,
    /// The object is used without what the field asks for.
    Reported,
}

/// The fields of one mapping. Call [`Fields::finish`] when all known ones were read.
pub struct Fields<'v, 'p> {
    path: String,
    map: &'v Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'v, 'p> Fields<'v, 'p> {
    /// The fields at a document's root.
    pub fn of_document(map: &'v Map<String, Value>, problems: &'p mut Vec<Problem>) -> Self {
        Fields {
            path: String::new(),
            map,
            known: Vec::new(),
            problems,
        }
    }

    /// The value of a field. `null` counts as absent, as it does in Kubernetes.
    fn take(&mut self, name: &'static str) -> Option<&'v Value> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is given and not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match read(self.take(name)?) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.reject(name, reason);
                None
            }
        }
    }

    /// Like [`Fields::optional`]; an absent field is a problem, and `advice` says what to write.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        advice: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(name) {
            self.known.push(name);
            self.reject(name, format!("missing; {advice}"));
            return None;
        }
        self.optional(name, read)
    }

    /// The items of a list that could be read; each bad one is a problem of its own.
    /// `None` if the field is absent or no list.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&Value) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let items = self.items(name)?;
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match read(item) {
                Ok(value) => values.push(value),
                Err(reason) => self.reject(&format!("{name}[{index}]"), reason),
            }
        }
        Some(values)
    }

    /// The same for a list of mappings.
    pub fn mappings<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Fields<'v, '_>) -> Option<T>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (index, item) in self.items(name).unwrap_or_default().iter().enumerate() {
            let field = format!("{name}[{index}]");
            if let Some(mut fields) = self.enter(&field, item) {
                values.extend(read(&mut fields));
                fields.finish();
            }
        }
        values
    }

    /// The fields of a nested mapping; `None` if it is absent or no mapping.
    pub fn mapping(&mut self, name: &'static str) -> Option<Fields<'v, '_>> {
        let value = self.take(name)?;
        self.enter(name, value)
    }

    /// The fields of a nested mapping that is not in the document.
    pub fn nested<'a>(&'a mut self, field: &str, map: &'a Map<String, Value>) -> Fields<'a, 'a> {
        Fields {
            path: self.path_of(field),
            map,
            known: Vec::new(),
            problems: self.problems,
        }
    }

    /// Whether the field is a list with something in it, good or bad.
    pub fn is_nonempty_list(&self, name: &str) -> bool {
        self.length(name).is_some_and(|length| length > 0)
    }

    /// How many items a list has, good and bad; `None` if the field is absent or no list.
    pub fn length(&self, name: &str) -> Option<usize> {
        self.map.get(name).and_then(Value::as_array).map(Vec::len)
    }

    fn items(&mut self, name: &'static str) -> Option<&'v [Value]> {
        match self.take(name)? {
            Value::Array(items) => Some(items),
            other => {
                let mut reason = super::values::expected("a list", other);
                if !matches!(other, Value::Object(_)) {
                    reason.push_str("; put it in [ ]");
                }
                self.reject(name, reason);
                None
            }
        }
    }

    fn enter(&mut self, field: &str, value: &'v Value) -> Option<Fields<'v, '_>> {
        match value {
            Value::Object(map) => Some(Fields {
                path: self.path_of(field),
                map,
                known: Vec::new(),
                problems: self.problems,
            }),
            other => {
                self.reject(field, super::values::expected("a mapping", other));
                None
            }
        }
    }

    /// A field that is understood but of which nothing is done: reported, and the object is used
    /// without it. Values that ask for nothing (`false`, empty text, list or mapping) are silent.
    pub fn unsupported(&mut self, name: &'static str, reason: &str) {
        if self.take(name).is_some_and(asks_for_something) {
            self.report(name, format!("not supported, has no effect; {reason}"));
        }
    }

    /// A field whose absence would make the object mean something else: the object is rejected.
    pub fn refused(&mut self, name: &'static str, reason: &str) {
        if self.take(name).is_some_and(asks_for_something) {
            self.reject(name, format!("not supported; {reason}"));
        }
    }

    /// Known fields that carry no configuration, e.g. what Kubernetes itself writes.
    pub fn ignored(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    pub fn reject(&mut self, field: &str, reason: impl Into<String>) {
        self.push(field, reason.into(), Effect::Rejects);
    }

    pub fn report(&mut self, field: &str, reason: impl Into<String>) {
        self.push(field, reason.into(), Effect::Reported);
    }

    fn push(&mut self, field: &str, reason: String, effect: Effect) {
        let field = self.path_of(field);
        self.problems.push(Problem {
            field,
            reason,
            effect,
        });
    }

    fn path_of(&self, field: &str) -> String {
        match (self.path.is_empty(), field.is_empty()) {
            (true, _) => field.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{field}", self.path),
        }
    }

    /// Reports every field that no one asked for.
    pub fn finish(mut self) {
        let map = self.map;
        for name in map.keys() {
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            let reason = match nearest(name, &self.known) {
                Some(known) => format!("unknown field; did you mean `{known}`?"),
                None => "unknown field; remove it".to_owned(),
            };
            self.reject(&shown(name), reason);
        }
    }
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A name from the outside, made fit for one line of output.
fn shown(name: &str) -> String {
    name.chars()
        .take(80)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The known word that `word` most likely stands for.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|candidate| {
            let ignoring_case = edit_distance(
                word.to_ascii_lowercase().as_bytes(),
                candidate.to_ascii_lowercase().as_bytes(),
            );
            (ignoring_case, *candidate)
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().min(word.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
        .or_else(|| abbreviated(word, known))
}

/// The only known word that begins as `word` does, such as `asNumber` for `asn`.
fn abbreviated<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const SHORTEST: usize = 3;
    let word = word.to_ascii_lowercase();
    if word.len() < SHORTEST {
        return None;
    }
    let begins = |candidate: &&&str| candidate.to_ascii_lowercase().starts_with(&word);
    let mut beginning = known.iter().filter(begins);
    match (beginning.next(), beginning.next()) {
        (Some(only), None) => Some(only),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// Levenshtein distance.
fn edit_distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right) {
            let substituted = diagonal + usize::from(a != b);
            diagonal = *cell;
            previous = substituted.min(diagonal + 1).min(previous + 1);
            *cell = previous;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typing_errors_and_nothing_else() {
        let known = ["cidr", "ipipMode", "natOutgoing", "peerIP", "peerSelector"];
        for (word, expected) in [
            ("NAT", Some("natOutgoing")),
            ("peer", None),
            ("ipipmode", Some("ipipMode")),
            ("ipipMod", Some("ipipMode")),
            ("natOutgoin", Some("natOutgoing")),
            ("CIDR", Some("cidr")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        for (left, right, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ab", 0)] {
            assert_eq!(
                edit_distance(left.as_bytes(), right.as_bytes()),
                distance,
                "{left} {right}"
            );
        }
    }
}
