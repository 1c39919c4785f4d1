use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Far above what any step takes; only a failure waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

struct Fixture {
    store: TempDir,
    state: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            store: tempfile::tempdir().expect("store"),
            state: tempfile::tempdir().expect("state"),
        }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.store.path().join(file), text).expect("write");
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.store.path().join(file)).expect("remove");
    }

    fn open(&self) -> FileStore {
        FileStore::open(self.store.path(), self.state.path())
    }

    fn scan(&self) -> StoreUpdate {
        let accepted = self.state.path().join("accepted");
        scanned(&mut Scanner::open(
            self.store.path().to_owned(),
            accepted,
            true,
        ))
    }
}

/// Read, and kept.
fn scanned(scanner: &mut Scanner) -> StoreUpdate {
    let update = scanner.scan(true).expect("all is quiet");
    scanner.keep().unwrap_or(update)
}

fn rack(name: &str, asn: u32) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: Rack\nmetadata: {{name: {name}}}\nspec: {{asNumber: {asn}}}\n"
    )
}

fn racks(update: &StoreUpdate) -> Vec<String> {
    let shown =
        |rack: &crate::model::Rack| format!("{}={}", rack.name, rack.asn.map_or(0, |asn| asn.0));
    update.snapshot.racks().map(shown).collect()
}

async fn next(store: &mut FileStore) -> StoreUpdate {
    timeout(DEADLINE, store.next()).await.expect("no update")
}

async fn until(store: &mut FileStore, wanted: impl Fn(&StoreUpdate) -> bool) -> StoreUpdate {
    let mut last = None;
    let found = timeout(DEADLINE, async {
        loop {
            let update = store.next().await;
            if wanted(&update) {
                return update;
            }
            last = Some(update);
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("never came; last: {last:?}"))
}

#[tokio::test]
async fn changes_of_the_directory_are_told() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", &rack("a", 1));
    let mut store = fixture.open();
    let first = next(&mut store).await;
    assert_eq!(
        (racks(&first), first.synced, first.errors.len()),
        (vec!["a=1".to_owned()], true, 0)
    );

    fixture.write("b.yml", &rack("b", 2));
    until(&mut store, |update| racks(update) == ["a=1", "b=2"]).await;
    fixture.write("a.yaml", &rack("a", 0));
    let rejected = until(&mut store, |update| update.errors.len() == 1).await;
    assert_eq!(
        racks(&rejected),
        ["a=1", "b=2"],
        "the last accepted version stays"
    );
    let temporary = fixture.store.path().join(".a.swp");
    fs::write(&temporary, rack("a", 3)).expect("write");
    fs::rename(&temporary, fixture.store.path().join("a.yaml")).expect("rename");
    until(&mut store, |update| racks(update) == ["a=3", "b=2"]).await;
    fixture.remove("b.yml");
    until(&mut store, |update| racks(update) == ["a=3"]).await;
}

#[test]
fn what_disappears_is_gone_only_when_it_is_quiet() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", &rack("a", 1));
    let accepted = fixture.state.path().join("accepted");
    let mut scanner = Scanner::open(fixture.store.path().to_owned(), accepted, true);
    assert_eq!(racks(&scanned(&mut scanner)), ["a=1"]);
    // On its way to another file.
    fixture.remove("a.yaml");
    assert_eq!(scanner.scan(false), None);
    fixture.write("b.yaml", &rack("a", 2));
    let moved = scanner.scan(false).expect("nothing is gone");
    assert_eq!(racks(&moved), ["a=2"]);
    fixture.remove("b.yaml");
    assert_eq!(scanner.scan(false), None);
    assert_eq!(racks(&scanned(&mut scanner)), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_directory_is_reported_and_found_when_it_comes() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", &rack("a", 1));
    let mut store = fixture.open();
    next(&mut store).await;

    let elsewhere = fixture.store.path().with_extension("away");
    fs::rename(fixture.store.path(), &elsewhere).expect("rename");
    let gone = until(&mut store, |update| !update.synced).await;
    assert_eq!(racks(&gone), ["a=1"], "nothing counts as deleted");
    assert_eq!(gone.errors.len(), 1, "{:?}", gone.errors);
    fs::rename(&elsewhere, fixture.store.path()).expect("rename");
    fixture.write("a.yaml", &rack("a", 2));
    let back = until(&mut store, |update| {
        update.synced && racks(update) == ["a=2"]
    })
    .await;
    assert_eq!(back.errors, []);
}

#[test]
fn the_last_accepted_version_survives_a_restart() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", &(rack("a", 1) + "---\n" + &rack("b", 1)));
    assert_eq!(racks(&fixture.scan()), ["a=1", "b=1"]);
    fixture.write("a.yaml", &(rack("a", 0) + "---\n" + &rack("b", 2)));
    let update = fixture.scan();
    assert_eq!(
        (racks(&update), update.errors.len()),
        (vec!["a=1".to_owned(), "b=2".to_owned()], 1)
    );
    let update = fixture.scan();
    assert_eq!(racks(&update), ["a=1", "b=2"], "and the next one");
    fixture.write("a.yaml", &rack("b", 2));
    assert_eq!(racks(&fixture.scan()), ["b=2"], "but not its removal");
    fixture.write("a.yaml", &rack("a", 0));
    assert_eq!(racks(&fixture.scan()), Vec::<String>::new());
}

#[test]
fn a_missing_directory_at_a_cold_start_is_not_synced() {
    let state = tempfile::tempdir().expect("state");
    let missing = state.path().join("missing");
    let mut scanner = Scanner::open(missing.clone(), state.path().join("accepted"), true);
    let update = scanned(&mut scanner);
    assert!(!update.synced);
    let error = update
        .errors
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let expected = format!(
        "{}: -: -: the store's directory cannot be read: ",
        missing.display()
    );
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn only_files_of_the_directory_itself_are_read() {
    let fixture = Fixture::new();
    for (index, file) in [".hidden.yaml", "a.yaml~", "a.yaml.bak", "a.json", "..yaml"]
        .into_iter()
        .enumerate()
    {
        fixture.write(file, &rack(&format!("ignored{index}"), 1));
    }
    fs::create_dir(fixture.store.path().join("sub")).expect("directory");
    fixture.write("sub/a.yaml", &rack("below", 1));
    fixture.write("good.yaml", &rack("good", 1));
    let update = fixture.scan();
    assert_eq!(
        (racks(&update), update.errors),
        (vec!["good=1".to_owned()], vec![])
    );
}

#[test]
fn files_that_cannot_be_read_are_reported_and_cost_no_other() {
    let fixture = Fixture::new();
    fixture.write("good.yaml", &rack("good", 1));
    fs::create_dir(fixture.store.path().join("directory.yaml")).expect("directory");
    fs::write(fixture.store.path().join("latin1.yaml"), b"# \xe4\n").expect("write");
    let large = usize::try_from(LARGEST_FILE).expect("fits") + 1;
    fixture.write("large.yaml", &"#".repeat(large));
    std::os::unix::fs::symlink("/nowhere", fixture.store.path().join("link.yaml")).expect("link");
    nix::unistd::mkfifo(
        &fixture.store.path().join("pipe.yaml"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .expect("fifo");
    let update = fixture.scan();
    assert_eq!(racks(&update), ["good=1"]);
    let errors: Vec<String> = update.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "directory.yaml: -: -: not a regular file; move it elsewhere",
            "large.yaml: -: -: larger than 4 MiB; split it",
            "latin1.yaml: -: -: not UTF-8 text; save it as UTF-8",
            "link.yaml: -: -: a link to a file that does not exist",
            "pipe.yaml: -: -: not a regular file; move it elsewhere",
        ]
    );
    assert!(update.synced);
}

#[test]
fn an_object_of_two_files_is_taken_from_the_first() {
    let fixture = Fixture::new();
    fixture.write("b.yaml", &rack("a", 2));
    fixture.write("a.yaml", &rack("a", 1));
    let update = fixture.scan();
    assert_eq!(racks(&update), ["a=1"]);
    let errors: Vec<String> = update.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "b.yaml: Rack/a: metadata.name: the same name as Rack/a in a.yaml, which wins; change one of them"
        ]
    );
}
