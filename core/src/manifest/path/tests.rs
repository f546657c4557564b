//! Which paths stay inside the tree.

use super::*;
use proptest::prelude::*;

fn path(text: &'static str) -> RelativePath {
    RelativePath::new(text.as_bytes()).unwrap()
}

#[test]
fn paths_that_could_leave_the_tree_are_refused_with_their_reason() {
    let long = "x".repeat(256);
    let deep = vec!["d"; 129].join("/");
    let corpus: [(&[u8], PathFault); 14] = [
        (b"", PathFault::Empty),
        (b"/etc/passwd", PathFault::Absolute),
        (b"/", PathFault::Absolute),
        (b"..", PathFault::ParentComponent),
        (b"../x", PathFault::ParentComponent),
        (b"a/../../x", PathFault::ParentComponent),
        (b"a/..", PathFault::ParentComponent),
        (b".", PathFault::DotComponent),
        (b"a/./b", PathFault::DotComponent),
        (b"a//b", PathFault::EmptyComponent),
        (b"a/", PathFault::EmptyComponent),
        (b"a\0b", PathFault::Nul),
        (long.as_bytes(), PathFault::ComponentTooLong),
        (deep.as_bytes(), PathFault::TooDeep),
    ];
    for (bad, fault) in corpus {
        assert_eq!(RelativePath::new(bad.to_vec()).unwrap_err().fault, fault, "{bad:?}");
    }
    let longest = vec!["x".repeat(255); 17].join("/");
    assert_eq!(RelativePath::new(longest.into_bytes()).unwrap_err().fault, PathFault::TooLong);
}

#[test]
fn unusual_names_are_fine() {
    for good in [&b"..."[..], b"..a", b"a b", b"\xff\xfe", b"\n", b"a/b/c", b"\\", b"-rf", b"con"] {
        assert!(RelativePath::new(good.to_vec()).is_ok(), "{good:?}");
    }
}

#[test]
fn directories_are_followed_by_their_content() {
    let mut paths = [path("a-b"), path("a/b"), path("a"), path("a/b/c"), path("a.c"), path("a/b-c")];
    paths.sort();
    let sorted: Vec<String> = paths.iter().map(ToString::to_string).collect();
    assert_eq!(sorted, ["a", "a/b", "a/b/c", "a/b-c", "a-b", "a.c"]);
}

#[test]
fn links_stay_inside_even_through_other_links() {
    let link = path("a/b/link");
    for good in ["x", "./x", "../x", "../../x", "..", "../..", "x/y", "x//y/", "."] {
        assert!(LinkTarget::new(good.as_bytes(), &link).is_ok(), "{good}");
    }
    for (bad, fault) in [
        ("", PathFault::Empty),
        ("/x", PathFault::Absolute),
        ("../../../x", PathFault::TargetOutside),
        ("./../.././..", PathFault::TargetOutside),
        ("x/../y", PathFault::TargetClimbsLate),
        ("../x/../../..", PathFault::TargetClimbsLate),
        ("x\0", PathFault::Nul),
    ] {
        assert_eq!(LinkTarget::new(bad.as_bytes(), &link).unwrap_err().fault, fault, "{bad}");
    }
}

proptest! {
    #[test]
    fn accepted_paths_have_only_plain_components(bytes in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40)) {
        if let Ok(path) = RelativePath::new(bytes) {
            prop_assert!(path.components().all(|part| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0)));
            prop_assert_eq!(path.components().count(), path.depth() + 1);
        }
    }

    #[test]
    fn accepted_targets_never_climb_above_the_package(target in "[a./]{1,12}", depth in 0usize..4) {
        let link = RelativePath::new(vec!["d"; depth + 1].join("/").into_bytes()).unwrap();
        if let Ok(target) = LinkTarget::new(target.into_bytes(), &link) {
            let mut level = depth as i64;
            for part in target.as_bytes().split(|&byte| byte == b'/') {
                level += match part { b"" | b"." => 0, b".." => -1, _ => 1 };
                prop_assert!(level >= 0);
            }
        }
    }
}
