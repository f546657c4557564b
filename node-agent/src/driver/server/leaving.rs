//! Which nodes have left for good: the cluster has no Node of their name, and they are silent. One that still speaks is
//! there, whatever the cluster says of it, and stays in the books until it ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use peerdist_core::names::NodeName;
use peerdist_core::server::KnownNode;

/// How often they are looked for.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A node that was not heard for so long is silent: three of its greetings.
const SILENCE: Duration = Duration::from_secs(30);

/// Those of the known nodes that have left. What the cluster lacks is asked of silent ones only.
pub(super) fn who_left<'a>(
    known: impl Iterator<Item = &'a KnownNode>,
    started: Instant,
    now: Instant,
    lacks: impl Fn(&NodeName) -> bool,
) -> BTreeSet<NodeName> {
    let left = known.filter(|known| known.silence(started, now) > SILENCE && lacks(&known.node.name));
    left.map(|known| known.node.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use peerdist_core::peer::NodeRef;

    use super::*;

    fn known(name: &str, last_seen: Option<Instant>) -> KnownNode {
        let (office, address) = ("store".parse().unwrap(), "10.0.0.1".parse().unwrap());
        KnownNode {
            node: NodeRef { name: name.parse().unwrap(), office, address },
            last_seen,
            plan_revision: 0,
            confirmed_revision: 0,
        }
    }

    #[test]
    fn nodes_have_left_that_are_silent_and_of_which_the_cluster_lacks_the_node() {
        let seen = Instant::now();
        let now = seen + SILENCE * 2;
        let nodes = [
            known("down", Some(seen)),
            known("gone", Some(seen)),
            known("gone-and-speaks", Some(now)),
            known("gone-before-the-server-started", None),
            known("not-back-yet", None),
        ];
        let left = who_left(nodes.iter(), seen, now, |name| name.as_str().starts_with("gone"));
        let left: Vec<&str> = left.iter().map(NodeName::as_str).collect();
        assert_eq!(left, ["gone", "gone-before-the-server-started"]);
        assert!(who_left(nodes.iter(), seen, now, |_| false).is_empty(), "nobody knows who has left");
        let after_a_start = who_left(nodes.iter(), now, now, |name| name.as_str().starts_with("gone"));
        assert_eq!(after_a_start.iter().map(NodeName::as_str).collect::<Vec<_>>(), ["gone"]);
    }
}
