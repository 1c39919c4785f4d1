use super::*;

fn path(text: &str) -> AsPath {
    text.parse().expect(text)
}

fn confed(kind: SegmentKind, asns: &[u32]) -> Segment {
    Segment {
        kind,
        asns: asns.iter().copied().map(Asn).collect(),
    }
}

fn octets(path: &AsPath, four_octet_as: bool) -> Vec<u8> {
    let mut out = Vec::new();
    path.encode(four_octet_as, &mut out);
    out
}

#[test]
fn text_is_read_as_it_is_written() {
    for text in ["", "65001", "65001 65002 {1 2}", "{1 2} 3", "1 {2} {3} 4"] {
        assert_eq!(path(text).to_string(), text);
    }
    for text in [
        "x",
        "1 -2",
        "0",
        "1 0",
        "4294967296",
        "{1",
        "1}",
        "(1)",
        "1 {} 2",
    ] {
        assert!(text.parse::<AsPath>().is_err(), "{text:?}");
    }
    let mut path = path("65001 {1 2}");
    path.segments
        .insert(0, confed(SegmentKind::ConfedSequence, &[65100, 65101]));
    path.segments
        .insert(1, confed(SegmentKind::ConfedSet, &[3, 4]));
    assert_eq!(path.to_string(), "(65100 65101) [3 4] 65001 {1 2}");
}

#[test]
fn octets_of_rfc_4271_and_6793_are_decoded() {
    // AS_SEQUENCE 65001 65002, AS_SET 1, laid out by hand after RFC 4271 §4.3 b.
    let two = [2, 2, 0xFD, 0xE9, 0xFD, 0xEA, 1, 1, 0, 1];
    let four = [2, 2, 0, 0, 0xFD, 0xE9, 0, 0, 0xFD, 0xEA, 1, 1, 0, 0, 0, 1];
    assert_eq!(AsPath::decode(&two, false), Ok(path("65001 65002 {1}")));
    assert_eq!(AsPath::decode(&four, true), Ok(path("65001 65002 {1}")));
    assert_eq!(octets(&path("65001 65002 {1}"), false), two);
    assert_eq!(octets(&path("65001 65002 {1}"), true), four);
    assert_eq!(octets(&path("4200000000"), false), [2, 1, 0x5B, 0xA0]);
}

#[test]
fn malformed_octets_are_refused() {
    for (name, bytes, cause) in [
        ("type 0", &[0, 1, 0, 1][..], BadAsPath::UnknownSegmentType),
        ("type 5", &[5, 1, 0, 1], BadAsPath::UnknownSegmentType),
        ("empty segment", &[2, 0], BadAsPath::EmptySegment),
        ("overrun", &[2, 2, 0, 1], BadAsPath::SegmentOverrun),
        ("stray octet", &[2, 1, 0, 1, 2], BadAsPath::StrayOctet),
        ("AS 0", &[2, 2, 0, 1, 0, 0], BadAsPath::AsZero),
    ] {
        assert_eq!(AsPath::decode(bytes, false), Err(cause), "{name}");
    }
}

#[test]
fn length_counts_sets_once_and_confederations_not_at_all() {
    let mut path = path("1 2 {3 4 5} 6");
    path.segments
        .insert(0, confed(SegmentKind::ConfedSequence, &[65100, 65101]));
    assert_eq!(path.length(), 4);
    assert_eq!(AsPath::default().length(), 0);
}

#[test]
fn ends_of_a_path_are_known_unless_they_are_sets() {
    for (name, path, first, origin) in [
        ("empty", path(""), None, None),
        ("sequence", path("1 2 3"), Some(1), Some(3)),
        ("set at the end", path("1 2 {3}"), Some(1), None),
        ("set in front", path("{1} 2"), None, Some(2)),
    ] {
        assert_eq!(path.first_as(), first.map(Asn), "{name}");
        assert_eq!(path.origin_as(), origin.map(Asn), "{name}");
    }
    let mut inside = path("1 2");
    inside
        .segments
        .insert(0, confed(SegmentKind::ConfedSequence, &[65100]));
    assert_eq!(inside.first_as(), Some(Asn(1)));
}

#[test]
fn what_a_path_begins_with_may_span_segments() {
    let mut with_confed = path("65001 65002");
    let confed = confed(SegmentKind::ConfedSequence, &[65100]);
    with_confed.segments.insert(0, confed);
    for (name, path, asns, expected) in [
        ("nothing is asked", path("65001"), &[][..], true),
        ("nothing is asked of nothing", path(""), &[], true),
        ("the empty path", path(""), &[65001], false),
        ("the first", path("65001 65002"), &[65001], true),
        ("not the second", path("65001 65002"), &[65002], false),
        ("in order", path("65001 65002 65003"), &[65001, 65002], true),
        ("out of order", path("65001 65002"), &[65002, 65001], false),
        ("the whole", path("65001 65002"), &[65001, 65002], true),
        (
            "longer than the path",
            path("65001"),
            &[65001, 65001],
            false,
        ),
        ("a set is one place", path("{1 2} 3"), &[2, 3], true),
        ("a set is not two places", path("{1 2} 3"), &[1, 2], false),
        ("into the next segment", path("7 {1 2} 3"), &[7, 1, 3], true),
        ("confederation aside", with_confed, &[65001, 65002], true),
    ] {
        let asns: Vec<Asn> = asns.iter().copied().map(Asn).collect();
        assert_eq!(path.begins_with(&asns), expected, "{name}");
    }
}

#[test]
fn contains_looks_into_every_segment() {
    let path = path("1 2 {3 4}");
    assert!(path.contains(Asn(2)) && path.contains(Asn(4)));
    assert!(!path.contains(Asn(5)));
}

#[test]
fn as_path_255_prepend_new_segment() {
    for (name, before, count, sizes) in [
        ("empty", 0, 1, &[1][..]),
        ("room for one", 254, 1, &[255]),
        ("full", 255, 1, &[1, 255]),
        ("across the edge", 254, 3, &[2, 255]),
        ("several segments", 0, 600, &[90, 255, 255]),
        ("nothing", 3, 0, &[3]),
    ] {
        let mut path = AsPath::sequence((0..before).map(|_| Asn(2)));
        path.prepend(Asn(1), count);
        let found: Vec<usize> = path.segments.iter().map(|s| s.asns.len()).collect();
        assert_eq!(found, sizes, "{name}");
        assert_eq!(path.length(), before + count, "{name}");
        let encoded = octets(&path, true);
        assert_eq!(AsPath::decode(&encoded, true), Ok(path), "{name}");
    }
}

#[test]
fn prepending_to_a_set_makes_a_sequence() {
    let mut path = path("{2 3}");
    path.prepend(Asn(1), 2);
    assert_eq!(path.to_string(), "1 1 {2 3}");
}

#[test]
fn merging_follows_rfc_6793() {
    for (name, as_path, as4_path, merged) in [
        (
            "same length",
            "23456 23456",
            "4200000000 4200000001",
            "4200000000 4200000001",
        ),
        (
            "two-octet ASes prepended",
            "1 2 23456",
            "4200000000",
            "1 2 4200000000",
        ),
        (
            "longer AS4_PATH ignored",
            "23456",
            "4200000000 4200000001",
            "23456",
        ),
        (
            "set counts once",
            "1 {2 3} 23456",
            "4200000000",
            "1 {2 3} 4200000000",
        ),
        (
            "set dropped",
            "1 {2 3} 23456",
            "{2 3} 4200000000",
            "1 {2 3} 4200000000",
        ),
        ("nothing known", "1 2", "", "1 2"),
    ] {
        assert_eq!(
            path(as_path).merge(path(as4_path)).to_string(),
            merged,
            "{name}"
        );
    }
}

#[test]
fn merging_keeps_confederation_segments_next_to_what_is_kept() {
    let mut as_path = path("1 23456");
    as_path
        .segments
        .insert(0, confed(SegmentKind::ConfedSequence, &[65100]));
    assert_eq!(
        as_path.merge(path("4200000000")).to_string(),
        "(65100) 1 4200000000"
    );
}
