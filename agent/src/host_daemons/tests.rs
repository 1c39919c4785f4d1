use super::*;

fn host(directories: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for directory in directories {
        fs::create_dir_all(root.path().join(directory)).expect("a directory");
    }
    root
}

fn write_file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, text).expect("written");
}

/// Both daemons run.
fn busy_host() -> tempfile::TempDir {
    let root = host(&[
        "etc/systemd",
        "etc/NetworkManager",
        "run/NetworkManager/devices",
    ]);
    write_file(root.path(), "run/systemd/netif/state", "");
    root
}

fn named(root: &Path) -> Vec<PathBuf> {
    let all = DROP_INS.iter().map(|drop_in| drop_in.path(root));
    all.filter(|path| path.exists()).collect()
}

#[test]
fn only_what_differs_is_written_and_only_ours_is_removed() {
    let root = busy_host();
    write_file(
        root.path(),
        "etc/systemd/network/20-nic.network",
        "[Match]\nName=eth0\n",
    );
    let (written, problems) = install(root.path());
    assert_eq!((written.len(), problems.len()), (3, 0));
    let (written, problems) = install(root.path());
    assert_eq!((written.len(), problems.len()), (0, 0));

    write_file(
        root.path(),
        DROP_INS[1].path,
        &format!("{TAG}\n[Network]\n"),
    );
    let (written, _) = install(root.path());
    assert_eq!(written, [&DROP_INS[1]]);

    assert!(uninstall(root.path()).is_empty());
    assert!(named(root.path()).is_empty());
    assert!(
        root.path()
            .join("etc/systemd/network/20-nic.network")
            .exists()
    );
    let left = fs::read_dir(root.path().join("etc/systemd/network")).expect("a directory");
    assert_eq!(left.count(), 1);
}

#[test]
fn nothing_is_written_where_there_is_no_such_daemon() {
    let root = host(&["etc/NetworkManager"]);
    let (written, problems) = install(root.path());
    assert_eq!((written, problems.len()), (vec![&DROP_INS[2]], 0));
    assert!(!root.path().join("etc/systemd").exists());
}

#[test]
fn file_of_somebody_else_under_our_name_stays() {
    let root = busy_host();
    write_file(root.path(), DROP_INS[0].path, "[Match]\nName=eth9\n");
    let (written, problems) = install(root.path());
    assert_eq!(written.len(), 2);
    let problem = problems[0].to_string();
    assert!(
        problem.contains("00-caracal.network is not replaced"),
        "{problem}"
    );
    assert!(uninstall(root.path()).is_empty());
    assert_eq!(named(root.path()), [DROP_INS[0].path(root.path())]);
}

#[test]
fn found_until_installed_and_only_where_the_daemons_run() {
    let root = busy_host();
    let found: Vec<_> = findings(root.path(), &BTreeMap::new())
        .into_iter()
        .map(|(daemon, _)| daemon)
        .collect();
    assert_eq!(
        found,
        ["systemd-networkd", "systemd-networkd", "NetworkManager"]
    );
    install(root.path());
    assert_eq!(findings(root.path(), &BTreeMap::new()), []);

    // Debian makes these directories whether networkd runs or not.
    let idle = host(&[
        "etc/systemd",
        "run/systemd/netif/links",
        "etc/NetworkManager",
    ]);
    assert_eq!(findings(idle.path(), &BTreeMap::new()), []);
}

#[test]
fn file_in_etc_stands_for_those_of_its_name_elsewhere() {
    let root = busy_host();
    install(root.path());
    let name = "network/00-all.network";
    write_file(
        root.path(),
        &format!("run/systemd/{name}"),
        "[Match]\nName=*\n",
    );
    let found = findings(root.path(), &BTreeMap::new());
    assert!(
        found[0]
            .1
            .starts_with("/run/systemd/network/00-all.network"),
        "{found:?}"
    );
    // An empty file masks.
    write_file(root.path(), &format!("etc/systemd/{name}"), "");
    assert_eq!(findings(root.path(), &BTreeMap::new()), []);
}

#[test]
fn what_is_no_text_of_a_daemons_ends_in_an_answer() {
    let root = busy_host();
    let place = root.path().join("etc/NetworkManager/conf.d");
    fs::create_dir_all(place.join("directory.conf")).expect("a directory");
    let keyfile = b"# Ger\xe4te\n[keyfile]\nunmanaged-devices=interface-name:cara*\n";
    fs::write(place.join("latin1.conf"), keyfile).expect("written");
    let pipe = place.join("pipe.conf");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let endless = fs::File::create(place.join("endless.conf")).expect("a file");
    endless.set_len(1 << 40).expect("a hole");
    // The name of a file is taken away like that.
    std::os::unix::fs::symlink("/dev/null", place.join("hidden.conf")).expect("a link");
    write_file(
        root.path(),
        "usr/lib/NetworkManager/conf.d/hidden.conf",
        "[keyfile]\nunmanaged-devices=interface-name:cali*\n",
    );
    let found = findings(root.path(), &BTreeMap::new());
    assert!(
        found.iter().all(|(daemon, _)| *daemon != "NetworkManager"),
        "{found:?}"
    );
}
