use super::*;
use crate::datastore::document::load;

fn rack(name: &str, asn: &str) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: Rack\nmetadata: {{name: {name}}}\nspec: {{asNumber: {asn}}}\n"
    )
}

fn read(file: &str, documents: &[&str]) -> (String, Content) {
    let stream = documents.join("---\n");
    (file.to_owned(), Content::Read(parse_stream(file, &stream)))
}

/// `FILE RACK=ASN …` of what is accepted after each scan, and the last scan's errors.
fn after(scans: Vec<Vec<(String, Content)>>) -> (Vec<String>, Vec<String>) {
    let mut accepted = Accepted::new();
    let mut errors = Vec::new();
    for scan in scans {
        (accepted, errors) = merge(&accepted, &scan.into_iter().collect());
    }
    let mut found = Vec::new();
    for (file, documents) in &accepted {
        let (snapshot, _) = load(documents);
        for rack in snapshot.racks() {
            let asn = rack.asn.map(|asn| asn.to_string()).unwrap_or_default();
            found.push(format!("{file} {}={asn}", rack.name));
        }
    }
    (found, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn what_is_rejected_keeps_its_last_accepted_version() {
    let (a1, a2, a_bad, b1) = (
        &rack("a", "1"),
        &rack("a", "2"),
        &rack("a", "0"),
        &rack("b", "1"),
    );
    let broken = "{[\n";
    let bad_a = "Rack/a: spec.asNumber: AS 0 is never used (RFC 7607); write the AS number";
    for (name, scans, expected, expected_errors) in [
        (
            "changed",
            vec![vec![read("f", &[a1])], vec![read("f", &[a2])]],
            vec!["f a=2"],
            vec![],
        ),
        (
            "gone from its file",
            vec![vec![read("f", &[a1, b1])], vec![read("f", &[b1])]],
            vec!["f b=1"],
            vec![],
        ),
        (
            "its file is gone",
            vec![vec![read("f", &[a1])], vec![read("g", &[b1])]],
            vec!["g b=1"],
            vec![],
        ),
        (
            "bad",
            vec![vec![read("f", &[a1, b1])], vec![read("f", &[a_bad, b1])]],
            vec!["f a=1", "f b=1"],
            vec![format!("f: {bad_a} (last accepted version stays)")],
        ),
        (
            "bad and never good",
            vec![vec![read("f", &[a_bad, b1])]],
            vec!["f b=1"],
            vec![format!("f: {bad_a} (absent: no version was accepted)")],
        ),
        (
            "bad, then gone",
            vec![
                vec![read("f", &[a1])],
                vec![read("f", &[a_bad])],
                vec![read("f", &[b1])],
            ],
            vec!["f b=1"],
            vec![],
        ),
        (
            "bad in another file, where it was moved to",
            vec![vec![read("f", &[a1])], vec![read("g", &[a_bad])]],
            vec!["g a=1"],
            vec![format!("g: {bad_a} (last accepted version stays)")],
        ),
        (
            "bad in another file, good where it was",
            vec![
                vec![read("f", &[a1])],
                vec![read("f", &[a2]), read("g", &[a_bad])],
            ],
            vec!["f a=2"],
            vec![format!("g: {bad_a} (absent: no version was accepted)")],
        ),
        (
            "a part of the file is no YAML, and may be any of its objects",
            vec![vec![read("f", &[a1, b1])], vec![read("f", &[broken, b1])]],
            vec!["f a=1", "f b=1"],
            vec!["f: document 1: line 1: not valid YAML:".to_owned()],
        ),
        (
            "the file cannot be read",
            vec![
                vec![read("f", &[a1])],
                vec![(
                    "f".to_owned(),
                    Content::Unreadable("cannot be read".to_owned()),
                )],
            ],
            vec!["f a=1"],
            vec!["f: -: -: cannot be read (last accepted versions of its objects stay)".to_owned()],
        ),
        (
            "the file is emptied in place",
            vec![vec![read("f", &[a1])], vec![read("f", &[])]],
            vec!["f a=1"],
            vec!["f: -: -: the file is empty; delete it to remove its objects".to_owned()],
        ),
        (
            "the file is emptied after its object moved elsewhere",
            vec![
                vec![read("f", &[a1])],
                vec![read("f", &[]), read("g", &[a2])],
            ],
            vec!["g a=2"],
            vec![],
        ),
        (
            "a kind that is not ours",
            vec![
                vec![read("f", &[a1])],
                vec![read(
                    "f",
                    &["apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"],
                )],
            ],
            vec![],
            vec!["f: Secret/s: kind: unknown kind".to_owned()],
        ),
    ] {
        let (found, errors) = after(scans);
        assert_eq!(found, expected, "{name}");
        assert_eq!(errors.len(), expected_errors.len(), "{name}: {errors:#?}");
        for (error, expected) in errors.iter().zip(&expected_errors) {
            assert!(error.starts_with(expected), "{name}: {error}");
        }
    }
}

#[test]
fn what_was_saved_is_read_back_the_same() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("accepted");
    let texts = [
        "# first\napiVersion: caracal.dev/v1alpha1\nkind: Rack\nmetadata: {name: a}",
        "--- {apiVersion: caracal.dev/v1alpha1, kind: Rack, metadata: {name: b}}\n...\n",
    ];
    for (name, stream) in [
        ("one without marker", texts[0].to_owned()),
        ("two", format!("{}\n{}", texts[0], texts[1])),
    ] {
        let contents = [(
            "f.yaml".to_owned(),
            Content::Read(parse_stream("f.yaml", &stream)),
        )]
        .into();
        let (accepted, errors) = merge(&Accepted::new(), &contents);
        assert_eq!(errors, [], "{name}");
        let (mut kept, _, errors) = AcceptedDirectory::open(path.clone());
        assert_eq!((errors, kept.save(&accepted)), (vec![], vec![]), "{name}");
        let (_, found, errors) = AcceptedDirectory::open(path.clone());
        assert_eq!(errors, [], "{name}");
        let objects = |accepted: &Accepted| -> Vec<_> {
            accepted
                .values()
                .flatten()
                .map(|d| (d.file.clone(), d.object.clone()))
                .collect()
        };
        assert_eq!(objects(&found), objects(&accepted), "{name}");
    }
    let (mut kept, _, _) = AcceptedDirectory::open(path.clone());
    assert_eq!(kept.save(&Accepted::new()), []);
    let left = fs::read_dir(&path).expect("directory").count();
    assert_eq!(left, 0, "what is no longer accepted is removed");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_reported() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("write");
    let (mut kept, accepted, errors) = AcceptedDirectory::open(file.join("accepted"));
    assert!(accepted.is_empty());
    let (accepted, _) = merge(&accepted, &[read("f", &[&rack("a", "1")])].into());
    let written = kept.save(&accepted);
    assert_eq!(
        (errors.len(), written.len()),
        (1, 1),
        "{errors:?} {written:?}"
    );
}
