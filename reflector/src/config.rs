//! The configuration file: read, checked, and what of it is used.

use std::borrow::Cow;
use std::path::Path;

use agent::api::schema::StoreError;
use agent::datastore::file::read_text;
use agent::datastore::{self, passwords};
use agent::model::{Kind, ObjectId};
use agent::resolve::peering;
use anyhow::Context;
use bgp::speaker::config::SpeakerConfig;
use bgp::types::RouterId;

/// A file that could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    pub speaker: SpeakerConfig,
    /// Sorted; empty means that everything in the file is used.
    pub errors: Vec<StoreError>,
}

impl Loaded {
    /// Whether a speaker can run with it at all.
    pub fn is_usable(&self) -> bool {
        self.speaker.router_id != RouterId([0, 0, 0, 0].into())
    }
}

/// What is shown of a file that cannot be read.
pub fn unreadable(path: &Path, error: &anyhow::Error) -> StoreError {
    StoreError {
        file: name_of(path).to_string(),
        object: "-".to_owned(),
        field: "-".to_owned(),
        reason: format!("{error:#}"),
    }
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name()
        .map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy())
}

/// # Errors
/// If the file cannot be read.
pub fn load(path: &Path) -> anyhow::Result<Loaded> {
    let name = name_of(path);
    let failed = || format!("failed to read {}", path.display());
    let text = read_text(path)
        .with_context(failed)?
        .map_err(anyhow::Error::msg)
        .with_context(failed)?;
    let documents = datastore::parse_stream(&name, &text);
    let (snapshot, mut errors) = datastore::load(&documents);
    let (speaker, mut more) = peering::reflector_config(&snapshot, &passwords::read(&snapshot));
    // What a rejected document says is not missing: its own error says what to do.
    let is_known = |object: &str| errors.iter().any(|known| known.object == object);
    more.retain(|lack| lack.file != "-" || !is_known(&lack.object));
    let default = ObjectId::new(Kind::BgpConfiguration, "default").to_string();
    if is_known(&default) && snapshot.default_configuration().is_none() {
        // Nobody knows now which Rack names this reflector.
        more.retain(|error| error.field != "spec.reflectors");
    }
    errors.extend(more);
    for error in &mut errors {
        // About what the file lacks.
        if error.file == "-" {
            error.file = name.to_string();
        }
    }
    errors.sort();
    errors.dedup();
    Ok(Loaded { speaker, errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Loaded {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("rack-a.yaml");
        std::fs::write(&path, text).expect("write");
        load(&path).expect("readable")
    }

    const GOOD: &str = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, listenAddresses: [192.168.100.2]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: nodes}
spec: {peerPrefixes: [192.168.100.0/24], asNumber: 64512, routeReflectorClient: true}
";

    #[test]
    fn a_rack_of_clients_in_a_range_is_understood() {
        let loaded = loaded(GOOD);
        assert_eq!(loaded.errors, []);
        assert!(loaded.is_usable());
        assert_eq!(loaded.speaker.router_id.to_string(), "192.168.100.2");
        let templates: Vec<bool> = loaded
            .speaker
            .ranges
            .values()
            .map(|template| template.route_reflector_client)
            .collect();
        assert_eq!(templates, [true]);
    }

    #[test]
    fn every_problem_is_a_line_with_file_object_field_and_reason() {
        let loaded = loaded(&format!(
            "{GOOD}---\napiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: other}}\nspec: {{peerIP: 192.168.200.300, asNumber: 0}}\n"
        ));
        let lines: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(lines.len() >= 2, "{lines:?}");
        assert!(
            lines
                .iter()
                .all(|line| line.starts_with("rack-a.yaml: BGPPeer/other: ")),
            "{lines:?}"
        );
        assert!(loaded.is_usable(), "the rest still works");
    }

    #[test]
    fn a_rejected_document_is_not_said_to_be_missing_as_well() {
        let loaded = loaded(&GOOD.replace("asNumber: 64512, listen", "asnumber: 64512, listen"));
        assert!(!loaded.is_usable());
        let fields: Vec<&str> = loaded.errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["spec.asnumber"]);
    }

    #[test]
    fn what_is_no_file_of_text_is_refused_without_waiting_for_it() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        symlink(at("pipe"), at("link to a pipe")).expect("linked");
        symlink("/dev/zero", at("device without end")).expect("linked");
        symlink(at("loop"), at("loop")).expect("linked");
        std::fs::write(at("latin"), b"spec: \xe9\n").expect("written");
        let large = std::fs::File::create(at("large")).expect("made");
        large.set_len(4 * 1024 * 1024 + 1).expect("set");
        for (name, reason) in [
            ("pipe", "not a regular file"),
            ("link to a pipe", "not a regular file"),
            ("device without end", "not a regular file"),
            ("loop", "Too many levels of symbolic links"),
            (".", "not a regular file"),
            ("latin", "not UTF-8 text"),
            ("large", "larger than 4 MiB"),
            ("missing", "No such file"),
        ] {
            let error = load(&at(name)).expect_err(name);
            let shown = unreadable(&at(name), &error).reason;
            assert!(shown.starts_with("failed to read "), "{name}: {shown}");
            assert!(shown.contains(reason), "{name}: {shown}");
        }
    }

    #[test]
    fn without_any_router_id_it_cannot_run() {
        let loaded = loaded(
            "apiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {asNumber: 64512}\n",
        );
        assert!(!loaded.is_usable());
        let lines: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "rack-a.yaml: BGPConfiguration/default: spec.routerID: missing; write routerID, or an IPv4 address in listenAddresses"
            ]
        );
    }
}
