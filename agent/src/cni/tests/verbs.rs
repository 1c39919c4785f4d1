//! What each call does and leaves, and what it answers.

use std::fs;
use std::net::IpAddr;

use super::super::protocol::{CniError, Command};
use super::fakes::{Agent, Machine, call, netns, network};
use crate::names::host_interface;

fn only_address(result: &super::super::result::CniResult) -> &str {
    &result.ips.first().expect("an address").address
}

#[tokio::test]
async fn add_gives_address_interface_and_host_side() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    let result = agent.add("c1", "default.web").await.expect("attached");

    assert_eq!(only_address(&result), "172.17.8.2/32");
    let name = host_interface("default.web");
    let link = machine.state().links.get(&name).cloned().expect("a link");
    assert_eq!(
        link.addresses,
        ["172.17.8.2".parse::<IpAddr>().expect("an address")]
    );
    assert_eq!(
        (link.container_interface.as_str(), link.mtu),
        ("eth0", 1480)
    );
    let attached = agent.verbs.attached();
    assert_eq!(
        machine
            .state()
            .programmed
            .values()
            .cloned()
            .collect::<Vec<_>>(),
        attached
    );
    assert_eq!(attached[0].namespace, "default");
    assert_eq!(attached[0].mac, [2, 0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn node_of_both_families_gives_both_and_takes_both_back() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    let mut both = network();
    both.pod_cidrs
        .push("fd00:8::/64".parse().expect("a prefix"));
    agent.set_node(Ok(both));
    let result = agent.add("c1", "default.web").await.expect("attached");

    let shown = |text: Option<IpAddr>| text.map(|address| address.to_string());
    let ips = result.ips.into_iter();
    let ips: Vec<_> = ips.map(|ip| (ip.address, shown(ip.gateway))).collect();
    let (gateway, gateway6) = ("169.254.1.1", "fe80::ecee:eeff:feee:eeee");
    let expected = [("172.17.8.2/32", gateway), ("fd00:8::2/128", gateway6)];
    assert_eq!(
        ips,
        expected.map(|(address, gateway)| (address.to_owned(), Some(gateway.to_owned())))
    );
    let routes = result.routes.into_iter();
    let routes: Vec<_> = routes.map(|route| (route.dst, shown(route.gw))).collect();
    let expected = [("0.0.0.0/0", gateway), ("::/0", gateway6)];
    assert_eq!(
        routes,
        expected.map(|(dst, gateway)| (dst.to_owned(), Some(gateway.to_owned())))
    );
    assert_eq!(agent.verbs.attached()[0].addresses.len(), 2);

    // As after a restart: it knows both by what is on disk.
    drop(agent);
    let agent = Agent::start(state.path(), &machine);
    agent.verbs.recover().await.expect("recovered");
    agent.del("c1", "").await.expect("deleted");
    let records = fs::read_dir(state.path().join("ipam")).expect("a directory");
    let names = records.map(|file| file.expect("an entry").file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["last-given"]);
}

#[tokio::test]
async fn workload_without_a_name_is_named_by_its_container() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    let mut call = call(Command::Add, "c1", "");
    call.args = String::from("K8S_POD_NAME=alone;Foo=bar");
    agent
        .verbs
        .call(call, Some(netns()))
        .await
        .expect("attached");
    assert_eq!(machine.interfaces(), [host_interface("c1")]);
}

#[tokio::test]
async fn second_interface_of_a_container_gets_its_own_host_side() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    agent.add("c1", "default.web").await.expect("attached");
    for command in [Command::Add, Command::Add, Command::Del] {
        let mut call = call(command, "c1", "default.web");
        call.ifname = String::from("net1");
        agent.verbs.call(call, Some(netns())).await.expect("done");
        let links = if command == Command::Add { 2 } else { 1 };
        assert_eq!(machine.state().links.len(), links);
    }
    assert_eq!(machine.interfaces(), [host_interface("default.web")]);
}

#[tokio::test]
async fn repeated_add_gives_the_same_address() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    let first = agent.add("c1", "default.web").await.expect("attached");
    let again = agent.add("c1", "default.web").await.expect("attached");
    assert_eq!(first, again);
    drop(agent);
    let agent = Agent::start(state.path(), &machine);
    agent.verbs.recover().await.expect("recovered");
    assert_eq!(
        agent.add("c1", "default.web").await.expect("attached"),
        first
    );
    assert_eq!(machine.state().links.len(), 1);
}

#[tokio::test]
async fn del_is_idempotent_and_knows_no_unknown_container() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    agent.add("other", "default.other").await.expect("attached");
    agent.add("c1", "default.web").await.expect("attached");
    for _ in 0..3 {
        agent.del("c1", "default.web").await.expect("deleted");
        assert_eq!(machine.interfaces(), [host_interface("default.other")]);
        assert_eq!(agent.verbs.attached().len(), 1);
    }
    agent.del("never-seen", "").await.expect("deleted");
    assert_eq!(machine.state().programmed.len(), 1);
}

#[tokio::test]
async fn del_works_while_the_node_is_not_ready() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    agent.add("c1", "default.web").await.expect("attached");
    agent.set_node(Err(String::from("the store is not synced")));
    agent.del("c1", "").await.expect("deleted");
    assert!(machine.interfaces().is_empty());
}

#[tokio::test]
async fn pod_that_comes_back_before_its_del_keeps_what_it_got() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    agent.add("old", "default.db-0").await.expect("attached");
    let new = agent.add("new", "default.db-0").await.expect("attached");
    assert_eq!(only_address(&new), "172.17.8.3/32");

    for (args, _) in [
        ("default.db-0", "as it was added"),
        ("", "without CNI_ARGS"),
    ] {
        agent.del("old", args).await.expect("deleted");
        assert_eq!(machine.interfaces(), [host_interface("default.db-0")]);
        let programmed = machine
            .state()
            .programmed
            .keys()
            .cloned()
            .collect::<Vec<_>>();
        assert_eq!(programmed.len(), 1);
        assert_eq!(programmed[0].container_id, "new");
    }
    agent.del("new", "default.db-0").await.expect("deleted");
    assert!(machine.interfaces().is_empty());
    assert!(machine.state().programmed.is_empty());
}

#[tokio::test]
async fn failed_step_is_rolled_back() {
    for (step, code) in [("attach", 100), ("program", 100), ("disk", 102)] {
        let state = tempfile::tempdir().expect("a directory");
        let machine = Machine::default();
        let agent = Agent::start(state.path(), &machine);
        machine.break_step(step);
        if step == "disk" {
            fs::remove_dir_all(state.path().join("attachments")).expect("removed");
        }
        let error = agent.add("c1", "default.web").await.expect_err(step);
        assert_eq!(error.code.number(), code, "{step}: {error:?}");
        machine.mend();
        if step == "disk" {
            fs::create_dir(state.path().join("attachments")).expect("made");
        }
        assert!(machine.interfaces().is_empty(), "{step}");
        assert!(machine.state().programmed.is_empty(), "{step}");
        assert!(agent.verbs.attached().is_empty(), "{step}");
        let records = fs::read_dir(state.path().join("ipam")).expect("a directory");
        let names = records.map(|file| file.expect("an entry").file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["last-given"], "{step}");
    }
}

#[tokio::test]
async fn what_a_failed_way_back_leaves_is_told_and_goes_with_del() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    machine.break_step("program");
    machine.break_step("detach");
    let error = agent.add("c1", "default.web").await.expect_err("broken");
    for text in ["program is broken", "detach is broken"] {
        assert!(error.details.contains(text), "{error:?}");
    }
    machine.mend();
    agent.del("c1", "").await.expect("deleted");
    assert!(machine.interfaces().is_empty());
    assert!(agent.verbs.attached().is_empty());
}

#[tokio::test]
async fn address_stays_taken_until_nothing_of_its_holder_is_left() {
    for step in ["clear", "detach"] {
        let state = tempfile::tempdir().expect("a directory");
        let machine = Machine::default();
        let agent = Agent::start(state.path(), &machine);
        let mut small = network();
        small.pod_cidrs = vec!["172.17.8.0/30".parse().expect("a prefix")];
        agent.set_node(Ok(small));
        agent.add("c1", "default.web").await.expect("attached");

        machine.break_step(step);
        agent.del("c1", "default.web").await.expect_err(step);
        machine.mend();
        let error = agent.add("c2", "default.other").await.expect_err(step);
        assert_eq!(error.code.number(), 101, "{step}: {error:?}");
        agent.del("c1", "default.web").await.expect("deleted");
        agent.add("c2", "default.other").await.expect("attached");
    }
}

#[tokio::test]
async fn unready_node_says_try_again_later() {
    let state = tempfile::tempdir().expect("a directory");
    let agent = Agent::start(state.path(), &Machine::default());
    let unready = Err(String::from("Node a1 is not in the store"));
    let without_pool = Ok(crate::requests::NodeNetwork::default());
    for (state, reason) in [
        (unready, "Node a1 is not in the store"),
        (
            without_pool,
            "the node has no podCIDR that holds a workload address: none",
        ),
    ] {
        agent.set_node(state);
        let error = agent.add("c1", "default.web").await.expect_err(reason);
        assert_eq!(error.code.number(), 11);
        assert_eq!(error.details, reason);
    }
}

#[tokio::test]
async fn bad_calls_are_answered_with_the_code_of_the_specification() {
    let state = tempfile::tempdir().expect("a directory");
    let agent = Agent::start(state.path(), &Machine::default());
    type Change = fn(&mut super::super::protocol::Call);
    let cases: [(&str, Change, u32, &str); 9] = [
        (
            "path in the id",
            |call| call.container_id = String::from("../x"),
            4,
            "CNI_CONTAINERID",
        ),
        (
            "no id",
            |call| call.container_id.clear(),
            4,
            "CNI_CONTAINERID",
        ),
        (
            "long ifname",
            |call| call.ifname = "e".repeat(16),
            4,
            "CNI_IFNAME",
        ),
        (
            "slash in ifname",
            |call| call.ifname = String::from("a/b"),
            4,
            "CNI_IFNAME",
        ),
        (
            "bad args",
            |call| call.args = String::from("K8S_POD_NAME"),
            4,
            "CNI_ARGS",
        ),
        (
            "check",
            |call| call.command = Command::Check,
            4,
            "CHECK is not supported yet",
        ),
        (
            "version",
            |call| call.config["cniVersion"] = "0.2.0".into(),
            1,
            "0.2.0",
        ),
        ("no name", |call| call.config["name"] = "".into(), 7, "name"),
        (
            "type",
            |call| call.config["type"] = "bridge".into(),
            7,
            "bridge",
        ),
    ];
    for (name, change, code, text) in cases {
        let mut call = call(Command::Add, "c1", "default.web");
        change(&mut call);
        let answer: Result<_, CniError> = agent.verbs.call(call, Some(netns())).await;
        let error = answer.expect_err(name);
        assert_eq!(error.code.number(), code, "{name}");
        assert!(error.message.contains(text), "{name}: {}", error.message);
    }
    let error = agent.verbs.call(call(Command::Add, "c1", ""), None).await;
    assert_eq!(error.expect_err("no namespace").code.number(), 4);
}

#[tokio::test]
async fn unreadable_attachment_keeps_its_address_and_can_be_deleted() {
    let state = tempfile::tempdir().expect("a directory");
    let machine = Machine::default();
    let agent = Agent::start(state.path(), &machine);
    agent.add("c1", "default.web").await.expect("attached");
    drop(agent);
    fs::write(state.path().join("attachments/c1@eth0.json"), "{").expect("written");

    let agent = Agent::start(state.path(), &machine);
    agent.verbs.recover().await.expect("recovered");
    assert_eq!(machine.interfaces(), [host_interface("default.web")]);
    let other = agent.add("c2", "default.other").await.expect("attached");
    assert_eq!(only_address(&other), "172.17.8.3/32");
    agent.del("c1", "").await.expect("deleted");
    assert_eq!(machine.interfaces(), [host_interface("default.other")]);
    assert!(!state.path().join("attachments/c1@eth0.json").exists());
}
