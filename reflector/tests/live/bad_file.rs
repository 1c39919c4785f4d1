//! A file that cannot be used leaves the running configuration as it is, and is shown until it is
//! mended; SIGHUP reads the file.

use std::fs;

use crate::rig::*;

const WHOLE: &str = "ok\n";
const UNUSED: &str = "ok\nthe newest configuration is not in use; the one before goes on\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_shown_and_changes_nothing_until_it_is_mended() {
    let peers = [range("nodes", "127.0.0.16/28")];
    let reflector = Reflector::start(&peers).await;
    let _node = RackNode::start(17, &reflector);
    let before = reflector.is_established(17).await;
    let good = reflector.text(&peers);
    let bad_document =
        "kind: BGPPeer\nmetadata: {name: other}\nspec: {peerIP: 192.0.2.300, asNumber: 64512}\n";
    let with_bad = reflector.text(&[bad_document.to_owned()]);
    for (name, text, problem) in [
        (
            "a wrong document instead of a right one",
            Some(with_bad.as_str()),
            "rack-a.yaml: BGPPeer/other: spec.peerIP: ",
        ),
        ("no YAML", Some("spec: [\n"), "rack-a.yaml: "),
        (
            "empty",
            Some(""),
            "rack-a.yaml: BGPConfiguration/default: spec.routerID: ",
        ),
        ("gone", None, "rack-a.yaml: -: -: failed to read "),
    ] {
        match text {
            Some(text) => reflector.write(text),
            None => fs::remove_file(reflector.file()).expect("removed"),
        }
        let readyz = || reflector.get("/readyz").expect("it serves");
        let is_shown = || {
            let (status, body) = readyz();
            let problems = body.strip_prefix(UNUSED).unwrap_or_default();
            status == 200 && problems.lines().any(|line| line.starts_with(problem))
        };
        wait_for(&format!("{name}: {:?}", readyz()), is_shown).await;
        assert_eq!(
            reflector.metric("caracal_config_current ").as_deref(),
            Some("0")
        );
        assert_ne!(
            reflector.metric("caracal_config_errors ").as_deref(),
            Some("0")
        );
        let after = reflector.peer(17).expect("it is there");
        assert_eq!(
            (after.since, after.flaps),
            (before.since.clone(), 0),
            "{name}"
        );

        reflector.write(&good);
        wait_for("mended", || readyz() == (200, WHOLE.to_owned())).await;
        assert_eq!(
            reflector.metric("caracal_config_current ").as_deref(),
            Some("1")
        );
        assert_eq!(
            reflector.metric("caracal_config_errors ").as_deref(),
            Some("0")
        );
    }
    let after = reflector.is_established(17).await;
    assert_eq!((after.since, after.flaps), (before.since, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_place_of_the_file_is_shown_and_holds_nothing_up() {
    let nodes = range("nodes", "127.0.0.16/28");
    let reflector = Reflector::start(std::slice::from_ref(&nodes)).await;
    fs::remove_file(reflector.file()).expect("removed");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&reflector.file(), mode).expect("made");
    let is_shown = || {
        let (_, body) = reflector.get("/readyz").expect("it serves");
        body.contains("not a regular file")
    };
    wait_for("it is shown", is_shown).await;
    reflector.write_peers(&[nodes, absent()]);
    wait_for("the file is followed", || reflector.has_absent()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_that_is_hung_up_on_goes_on_with_its_file() {
    let nodes = range("nodes", "127.0.0.16/28");
    let reflector = Reflector::start(std::slice::from_ref(&nodes)).await;
    let _node = RackNode::start(17, &reflector);
    let before = reflector.is_established(17).await;
    reflector.hang_up();
    reflector.write_peers(&[nodes, absent()]);
    reflector.hang_up();
    wait_for("the file is followed", || reflector.has_absent()).await;
    let after = reflector.is_established(17).await;
    assert_eq!((after.since, after.flaps), (before.since, 0));
}
