//! The story of an identity told in days: what is made anew on which, and what stays.

use std::collections::BTreeMap;

use super::*;

/// An identity that is as old as a test says.
struct Story {
    start: Timestamp,
    held: Option<Held>,
    requests: Requests,
}

impl Story {
    fn begin(root: &CertifiedKey) -> Self {
        let start = Timestamp::now();
        Self { start, held: Some(begin(root, start).unwrap()), requests: Requests::default() }
    }

    fn day(&mut self, day: i64, root: &CertifiedKey) -> Vec<Step> {
        self.hour(24 * day, root)
    }

    fn hour(&mut self, hour: i64, root: &CertifiedKey) -> Vec<Step> {
        let now = self.start + SignedDuration::from_hours(hour);
        let (held, steps) = go_on(self.held.take().unwrap(), root, &self.requests, now).unwrap();
        self.held = Some(held);
        steps
    }

    fn identity(&self) -> &ServerIdentity {
        &self.held.as_ref().unwrap().identity
    }

    fn files(&self) -> BTreeMap<&'static str, Vec<u8>> {
        self.identity().files()
    }

    fn changed(&self, before: &BTreeMap<&'static str, Vec<u8>>) -> Vec<&'static str> {
        let after = self.files();
        before.keys().copied().filter(|name| before[name] != after[name]).collect()
    }
}

fn root() -> CertifiedKey {
    CertifiedKey::new_root(Timestamp::now().into()).unwrap()
}

#[test]
fn nothing_changes_before_its_time() {
    let root = root();
    let mut story = Story::begin(&root);
    let before = story.files();
    for day in [0, 1, 30, 59] {
        assert_eq!(story.day(day, &root), []);
    }
    assert!(story.changed(&before).is_empty());
}

#[test]
fn intermediate_is_renewed_with_a_third_left_and_manifest_key_after_its_time() {
    let root = root();
    let mut story = Story::begin(&root);
    let before = story.files();
    assert_eq!(story.day(61, &root), [Step::Intermediate]);
    assert_eq!(story.changed(&before), ["intermediate.key", "intermediate.pem"]);
    assert_eq!(story.day(62, &root), []);
    assert_eq!(story.day(90, &root), [Step::ManifestKey]);
    assert_eq!(story.day(91, &root), []);
}

#[test]
fn next_manifest_key_is_the_one_that_nodes_know_already() {
    let root = root();
    let mut story = Story::begin(&root);
    let known = story.identity().verifying_keys();
    story.requests.manifest_key = Some("1".to_owned());
    assert_eq!(story.day(1, &root), [Step::ManifestKey]);
    let keys = story.identity().verifying_keys();
    assert_eq!(keys[0], known[1]);
    assert!(!known.contains(&keys[1]));
}

#[test]
fn each_request_is_done_once() {
    let root = root();
    let mut story = Story::begin(&root);
    story.requests = Requests { intermediate: Some("a".to_owned()), manifest_key: Some("b".to_owned()) };
    assert_eq!(story.day(1, &root), [Step::Intermediate, Step::ManifestKey]);
    assert_eq!(story.day(1, &root), []);
    story.requests.manifest_key = Some("c".to_owned());
    assert_eq!(story.day(2, &root), [Step::ManifestKey]);
    story.requests = Requests::default();
    assert_eq!(story.day(3, &root), [], "who takes the annotation away asks for nothing");
    assert_eq!(story.held.as_ref().unwrap().done.manifest_key.as_deref(), Some("c"));
}

#[test]
fn another_root_is_trusted_first_then_signs_and_the_former_goes_at_last() {
    let (old, new) = (root(), root());
    let mut story = Story::begin(&old);
    let (o, n) = (old.certificate.clone(), new.certificate.clone());
    let before = story.files();
    assert_eq!(story.day(10, &new), [Step::RootComes]);
    assert_eq!(story.changed(&before), ["roots.pem"]);
    assert_eq!(story.identity().roots, [o.clone(), n.clone()]);
    assert_eq!(story.day(17, &new), []);
    assert_eq!(story.day(18, &new), [Step::RootSigns]);
    assert_eq!(story.identity().roots, [n.clone(), o]);
    assert!(story.identity().intermediate.is_fresh(&new.certificate, story.start.into()));
    assert_eq!(story.day(55, &new), []);
    assert_eq!(story.day(56, &new), [Step::RootsGo]);
    assert_eq!(story.identity().roots, [n]);
    assert_eq!(story.day(57, &new), []);
}

#[test]
fn a_request_while_a_root_comes_is_answered_by_that_root_as_soon_as_nodes_may_know_it() {
    let (old, new) = (root(), root());
    let mut story = Story::begin(&old);
    let (o, n) = (old.certificate.clone(), new.certificate.clone());
    assert_eq!(story.day(10, &new), [Step::RootComes]);
    story.requests.intermediate = Some("a".to_owned());
    assert_eq!(story.hour(24 * 10, &new), [], "no node can know it yet");
    assert_eq!(story.hour(24 * 10 + 1, &new), [Step::RootSigns]);
    assert_eq!(story.identity().roots, [n, o]);
    assert_eq!(story.held.as_ref().unwrap().done.intermediate.as_deref(), Some("a"));
    assert_eq!(story.hour(24 * 10 + 1, &new), [], "one intermediate answers the request");
    story.requests.intermediate = Some("b".to_owned());
    assert_eq!(story.hour(24 * 10 + 2, &new), [Step::Intermediate], "the key of the root that signs is there");
    assert_eq!(story.identity().roots.len(), 2, "the change goes on");
}

#[test]
fn a_root_goes_when_no_peer_takes_a_certificate_of_it_any_more() {
    let (old, new) = (root(), root());
    let taken = i64::try_from((NODE_LIFETIME + EXPIRED_TOLERANCE).as_secs()).unwrap() / 3600;
    // The server goes away just before the new root signs. On the 89th day that is as soon as the root comes, since the
    // intermediate ends.
    for (comes, signs) in [(10, 18), (89, 89)] {
        let mut story = Story::begin(&old);
        story.day(comes, &new);
        story.day(signs, &new);
        assert_eq!(story.identity().roots, [new.certificate.clone(), old.certificate.clone()], "{comes}");
        story.hour(24 * signs + taken, &new);
        assert!(story.identity().roots.contains(&old.certificate), "{comes}");
        story.hour(24 * signs + taken + 24, &new);
        assert_eq!(story.identity().roots, std::slice::from_ref(&new.certificate), "{comes}");
    }
}

#[test]
fn a_root_that_comes_late_signs_before_the_old_intermediate_ends() {
    let (old, new) = (root(), root());
    let mut story = Story::begin(&old);
    assert_eq!(story.day(84, &new), [Step::RootComes]);
    assert_eq!(story.day(86, &new), []);
    assert_eq!(story.day(87, &new), [Step::RootSigns]);
    let mut late = Story::begin(&old);
    assert_eq!(late.day(89, &new), [Step::RootSigns], "less time than nodes need is better than none");
}

#[test]
fn roots_that_follow_each_other_fast_stay_few() {
    let mut story = Story::begin(&root());
    let roots: Vec<CertifiedKey> = (0..8).map(|_| root()).collect();
    for (day, root) in roots.iter().enumerate() {
        assert_eq!(story.day(1 + day as i64, root), [Step::RootComes]);
        assert!(story.identity().roots.len() <= ROOTS_MAX);
        assert_eq!(story.identity().roots[1], root.certificate);
    }
}

#[test]
fn a_root_that_comes_back_ends_the_change() {
    let (old, new) = (root(), root());
    let mut story = Story::begin(&old);
    story.day(1, &new);
    assert_eq!(story.day(2, &old), []);
    assert_eq!(story.day(39, &old), [Step::RootsGo]);
    assert_eq!(story.identity().roots, [old.certificate]);
}
