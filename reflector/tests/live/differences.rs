//! What a difference of the file does to its peer, and that the others do not notice.

use bgp::speaker::status::PeerStatus;

use crate::rig::*;

/// Two clients, which every test leaves alone: one of a range for many, one with a range of its own.
struct Bystanders {
    reflector: Reflector,
    nodes: [RackNode; 2],
    peers: Vec<String>,
    before: [PeerStatus; 2],
}

const ALONE: u8 = 2;
const OF_RANGE: u8 = 17;

impl Bystanders {
    async fn start() -> Bystanders {
        let peers = vec![range("nodes", "127.0.0.16/28"), client(ALONE, "")];
        let reflector = Reflector::start(&peers).await;
        let nodes = [ALONE, OF_RANGE].map(|last| RackNode::start(last, &reflector));
        let before = [
            reflector.is_established(ALONE).await,
            reflector.is_established(OF_RANGE).await,
        ];
        Bystanders {
            reflector,
            nodes,
            peers,
            before,
        }
    }

    /// Has the file say this besides.
    fn write_with(&self, more: &[String]) {
        let all: Vec<String> = self.peers.iter().chain(more).cloned().collect();
        self.reflector.write_peers(&all);
    }

    async fn assert_undisturbed(&self) {
        let after = [ALONE, OF_RANGE].map(|last| self.reflector.peer(last).expect("it is there"));
        let session = |peer: &PeerStatus| (peer.state.clone(), peer.since.clone(), peer.flaps);
        for (before, after) in self.before.iter().zip(&after) {
            assert_eq!(session(before), session(after), "{}", before.name);
            assert_eq!(after.flaps, 0, "{}", before.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_comes_and_goes_unnoticed_by_the_others() {
    let rack = Bystanders::start().await;
    rack.write_with(&[client(5, ""), absent()]);
    wait_for("it is there", || rack.reflector.has_absent()).await;
    let _node = RackNode::start(5, &rack.reflector);
    rack.reflector.is_established(5).await;
    rack.nodes[0].learns(&["10.5.0.0/16", "10.17.0.0/16"]).await;
    rack.assert_undisturbed().await;

    rack.write_with(&[]);
    wait_for("it is gone", || rack.reflector.peer(5).is_none()).await;
    wait_for("both are gone", || !rack.reflector.has_absent()).await;
    rack.nodes[0].learns(&["10.17.0.0/16"]).await;
    rack.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_comes_and_goes_unnoticed_by_the_others() {
    let rack = Bystanders::start().await;
    let _node = RackNode::start(33, &rack.reflector);
    rack.write_with(&[range("more", "127.0.0.32/28")]);
    rack.reflector.is_established(33).await;
    rack.assert_undisturbed().await;

    rack.write_with(&[]);
    wait_for("it is gone", || rack.reflector.peer(33).is_none()).await;
    rack.nodes[1].learns(&["10.2.0.0/16"]).await;
    rack.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_resets_its_peer_alone() {
    let rack = Bystanders::start().await;
    rack.write_with(&[client(5, "")]);
    let mut node = RackNode::start(5, &rack.reflector);
    rack.reflector.is_established(5).await;

    let file = rack.reflector.password_file("secret\n");
    let password = format!(", password: {{file: {}}}", file.display());
    rack.write_with(&[client(5, &password)]);
    let flaps = || rack.reflector.peer(5).map(|peer| peer.flaps);
    wait_for("the session without it ends", || flaps() == Some(1)).await;
    node.follow_password(&rack.reflector, "secret").await;
    rack.reflector.is_established(5).await;
    rack.assert_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_changes_what_its_peer_hears_and_resets_nobody() {
    let rack = Bystanders::start().await;
    rack.write_with(&[client(5, "")]);
    let node = RackNode::start(5, &rack.reflector);
    node.learns(&["10.2.0.0/16", "10.17.0.0/16"]).await;
    let before = rack.reflector.is_established(5).await;

    let filter = "kind: BGPFilter\nmetadata: {name: none-of-17}\nspec:\n  exportV4: \
                  [{action: Reject, matchOperator: In, cidr: 10.17.0.0/16}]\n";
    let filtered = client(5, ", filters: [none-of-17]");
    rack.write_with(&[filter.to_owned(), filtered]);
    node.learns(&["10.2.0.0/16"]).await;
    let after = rack.reflector.is_established(5).await;
    assert_eq!((after.since, after.flaps), (before.since, 0));
    rack.assert_undisturbed().await;

    let why = rack.reflector.ask("/v1/why?prefix=10.17.0.0/16");
    let peers = why["peers"].as_array().expect("a list");
    let of = |last: u8| {
        let address = loopback(last).to_string();
        let mut peers = peers.iter();
        let peer = peers.find(|one| one["peer"] == address.as_str());
        peer.map(|one| (one["advertised"].clone(), one["reason"].clone()))
    };
    let refused = (false.into(), "rejected by filter none-of-17".into());
    assert_eq!(of(5), Some(refused));
    let own = (false.into(), "its own route".into());
    assert_eq!(of(OF_RANGE), Some(own));
    let told = (true.into(), serde_json::Value::Null);
    assert_eq!(of(ALONE), Some(told));
    let from = &why["paths"][0]["peer"];
    assert_eq!(from, loopback(OF_RANGE).to_string().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_the_open_says_resets_its_peer_alone_and_others_nobody() {
    let rack = Bystanders::start().await;
    rack.write_with(&[client(5, "")]);
    let _node = RackNode::start(5, &rack.reflector);
    let before = rack.reflector.is_established(5).await;

    // Shown as soon as it is followed: there is one more peer then.
    let of_dialling = client(5, ", connectRetryTime: 3s");
    rack.write_with(&[of_dialling, absent()]);
    wait_for("followed", || rack.reflector.has_absent()).await;
    let after = rack.reflector.is_established(5).await;
    assert_eq!((after.since, after.flaps), (before.since, 0));

    let of_open = client(5, ", holdTime: 30s");
    rack.write_with(&[of_open, absent()]);
    let hold = || {
        rack.reflector
            .peer(5)
            .and_then(|peer| peer.hold_time_seconds)
    };
    wait_for("agreed anew", || hold() == Some(30)).await;
    assert_eq!(rack.reflector.is_established(5).await.flaps, 1);
    rack.assert_undisturbed().await;
}
