use super::*;

fn file(path: &str, text: &str) -> ConfigurationFile {
    ConfigurationFile {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

const OURS: &str = "[Match]\nName=cara*\n\n[Link]\nUnmanaged=yes\n";
const KEPT: &str = "[Network]\nManageForeignRoutes=no\n";

/// Whether what was found says so, or nothing was found and nothing expected.
fn is_said(found: Option<&str>, expected: Option<&str>) -> bool {
    match (found, expected) {
        (Some(found), Some(words)) => found.contains(words),
        (found, expected) => found.is_none() && expected.is_none(),
    }
}

#[test]
fn conditions_are_read_as_networkd_reads_them() {
    let workload = links().next().expect("a workload");
    for (text, does) in [
        ("Name=*", true),
        ("Name=eth* cara*", true),
        ("Name=eth*\nName=cara*", true),
        ("Name=cara*\nName=", false),
        ("Name=cara[0-9]*", true),
        ("Name=cara[!0-9]*", false),
        ("Name=cara?1*", true),
        ("Name=cara", false),
        ("Name=!cara* eth0", false),
        ("Name=!eth0 eth1", true),
        ("Name=*\nKind=!*", false),
        ("Name=*\nType=ether", true),
        ("Type=wlan", false),
        ("Driver=veth", true),
        ("Kind=veth\nName=host0", false),
        ("Name=*\nMACAddress=02:00:00:00:00:01", false),
        ("Name=*\nVirtualization=container", true),
        ("# Name=*", false),
        ("", false),
    ] {
        let file = file("/a", &format!("[Match]\n{text}\n"));
        assert_eq!(does_match(&file, workload), does, "{text}");
    }
}

#[test]
fn first_file_by_name_decides_about_our_links() {
    let ours = || file("/etc/systemd/network/00-caracal.network", OURS);
    let all = || file("/etc/systemd/network/90-all.network", "[Match]\nName=*\n");
    let tunnels = file("/etc/systemd/network/00-a.network", "[Match]\nKind=vxlan\n");
    let nic = file("/etc/systemd/network/00-a.network", "[Match]\nName=eth0\n");
    for (networks, expected) in [
        (vec![], Some("no file keeps it off")),
        (vec![nic.clone()], Some("no file keeps it off")),
        (vec![all()], Some("90-all.network is the first")),
        (vec![ours(), all()], None),
        (vec![nic, ours()], None),
        (vec![all(), ours()], Some("90-all.network is the first")),
        (vec![tunnels, ours()], Some("such as caracal-vxlan")),
    ] {
        let found = links_finding(&networks);
        assert!(
            is_said(found.as_deref(), expected),
            "{networks:?}: {found:?}"
        );
    }
}

#[test]
fn last_word_about_foreign_routes_counts() {
    let yes = "[Network]\nManageForeignRoutes = yes\n";
    for (texts, expected) in [
        (vec![], Some("unless a file says no")),
        (
            vec!["[DHCPv4]\nManageForeignRoutes=no\n"],
            Some("unless a file says no"),
        ),
        (vec![KEPT], None),
        (vec!["[Network]\nManageForeignRoutes=off\n"], None),
        (vec![yes, KEPT], None),
        (vec![KEPT, yes], Some("/1 says ManageForeignRoutes=yes")),
    ] {
        let files = texts.iter().enumerate();
        let files: Vec<_> = files
            .map(|(at, text)| file(&format!("/{at}"), text))
            .collect();
        let found = routes_finding(&files);
        assert!(is_said(found.as_deref(), expected), "{texts:?}: {found:?}");
    }
}
