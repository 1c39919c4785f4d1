use super::*;

#[test]
fn communities_are_read_as_they_are_written() {
    for (text, value) in [
        ("65001:7", 0xFDE9_0007),
        ("0:0", 0),
        ("no-export", 0xFFFF_FF01),
        ("no-advertise", 0xFFFF_FF02),
        ("no-export-subconfed", 0xFFFF_FF03),
        ("no-peer", 0xFFFF_FF04),
        ("graceful-shutdown", 0xFFFF_0000),
        ("blackhole", 0xFFFF_029A),
        ("llgr-stale", 0xFFFF_0006),
        ("no-llgr", 0xFFFF_0007),
    ] {
        assert_eq!(text.parse(), Ok(Community(value)), "{text}");
        assert_eq!(Community(value).to_string(), text);
    }
    assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
}

#[test]
fn text_that_is_no_community_is_refused() {
    for text in [
        "", ":", "65536:1", "1:65536", "1:2:3", "-1:2", "export", "1:x",
    ] {
        assert!(text.parse::<Community>().is_err(), "{text:?}");
    }
    for text in ["", "1:2", "1:2:3:4", "1:2:4294967296", "a:b:c"] {
        assert!(text.parse::<LargeCommunity>().is_err(), "{text:?}");
    }
    for text in [
        "",
        "rt",
        "rt:1",
        "rt:65536:65536",
        "rt:10.0.0.1:65536",
        "xx:1:2",
        "rt:1:2:x",
    ] {
        assert!(text.parse::<ExtendedCommunity>().is_err(), "{text:?}");
    }
}

#[test]
fn extended_communities_are_read_as_they_are_written() {
    for (text, octets) in [
        ("rt:65001:7", [0, 2, 0xFD, 0xE9, 0, 0, 0, 7]),
        ("rt:192.0.2.1:7", [1, 2, 192, 0, 2, 1, 0, 7]),
        ("rt:4200000000:7", [2, 2, 0xFA, 0x56, 0xEA, 0, 0, 7]),
        (
            "soo:65001:4294967295",
            [0, 3, 0xFD, 0xE9, 255, 255, 255, 255],
        ),
    ] {
        assert_eq!(text.parse(), Ok(ExtendedCommunity(octets)), "{text}");
        assert_eq!(ExtendedCommunity(octets).to_string(), text);
    }
}

#[test]
fn any_extended_community_has_a_text() {
    for kind in 0..=255 {
        for subtype in 0..=255 {
            let community = ExtendedCommunity([kind, subtype, 1, 2, 3, 4, 5, 6]);
            assert!(!community.to_string().is_empty(), "{kind} {subtype}");
        }
    }
}

#[test]
fn large_communities_are_read_as_they_are_written() {
    let community = LargeCommunity([4_200_000_000, 1, 0]);
    assert_eq!("4200000000:1:0".parse(), Ok(community));
    assert_eq!(community.to_string(), "4200000000:1:0");
}
