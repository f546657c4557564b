//! Whether every node that should hold a package holds it, from the counts that the server reports. Pure. Messages carry no
//! counts; one names a node that an error stops, and stays until that node says something else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use peerdist_crds::PackageDistributionStatus;
use peerdist_crds::status::SlowNode;

use crate::conditions::{DISTRIBUTED, Finding, same_but_for_numbers};

/// What is said when an error stops nodes.
const NODES_FAILED: &str = "an error stops some nodes: see status.slowest";
/// Longest part of what a node says; the rest is in status.slowest.
const NODE_MESSAGE_CHARACTERS_MAX: usize = 250;

/// How many nodes the cluster expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expectation {
    /// That should hold the package, as far as they were counted.
    pub nodes: i32,
    /// Of the Central Office, through which every package passes.
    pub central_nodes: i32,
    /// Whether the nodes of every office were counted.
    pub counted: bool,
}

impl Expectation {
    /// From the nodes of each office, `None` for those that nobody counted.
    pub fn new(offices: impl Iterator<Item = Option<i32>>, central: Option<i32>) -> Self {
        let start = Self { nodes: 0, central_nodes: central.unwrap_or_default(), counted: central.is_some() };
        offices.fold(start, |sum, office| Self {
            nodes: sum.nodes.saturating_add(office.unwrap_or_default()),
            counted: sum.counted && office.is_some(),
            ..sum
        })
    }
}

/// Of a package that is signed. `said`: the condition, if it speaks about this generation. Once true, it is not taken back
/// because somebody has to count anew.
pub(super) fn distributed(
    progress: &PackageDistributionStatus,
    expectation: Expectation,
    said: Option<&Condition>,
) -> Finding {
    let Expectation { nodes: expected, central_nodes, counted } = expectation;
    let nodes = progress.nodes.unwrap_or_default();
    let was_distributed = said.is_some_and(|said| said.status == "True");
    if counted && central_nodes == 0 {
        let message = "no node belongs to the Central Office, through which every package passes";
        Finding::no(DISTRIBUTED, "NoCentralNodes", message)
    } else if counted && expected == 0 {
        Finding::no(DISTRIBUTED, "NoNodes", "no node belongs to the offices of the package")
    } else if nodes.failed > 0 {
        Finding::no(DISTRIBUTED, "NodesFailed", nodes_failed(&progress.slowest, said))
    } else if nodes.complete <= 0 || nodes.complete.saturating_add(nodes.unreachable) < expected.max(nodes.targeted) {
        Finding::no(DISTRIBUTED, "InProgress", "nodes are still receiving: see status.percent")
    } else if counted || was_distributed {
        Finding::yes(DISTRIBUTED, "Complete", "every node that can be reached holds the package")
    } else {
        let message = "the nodes of some offices of the package are not counted yet: see the conditions of its offices";
        Finding::no(DISTRIBUTED, "NodesNotCounted", message)
    }
}

/// Names the first node that the server names. Which one that is changes all the time, and so do numbers such as how much
/// room there is: what was said of a node stays as long as it is true but for its numbers.
fn nodes_failed(slowest: &[SlowNode], said: Option<&Condition>) -> String {
    let failing = || slowest.iter().filter(|node| !node.message.is_empty());
    let said = said.map(|said| &said.message).filter(|said| failing().any(|node| is_about(said, node)));
    match (said, failing().next()) {
        (Some(said), _) => said.clone(),
        (None, Some(node)) => format!("{}{}", beginning(node), shown(node)),
        (None, None) => NODES_FAILED.to_owned(),
    }
}

fn is_about(said: &str, node: &SlowNode) -> bool {
    said.strip_prefix(&beginning(node)).is_some_and(|rest| same_but_for_numbers(rest, &shown(node)))
}

fn beginning(node: &SlowNode) -> String {
    format!("{NODES_FAILED}; node {} of office {} says: ", node.node, node.office)
}

fn shown(node: &SlowNode) -> String {
    node.message.chars().take(NODE_MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use peerdist_crds::status::NodeCounts;

    use super::*;
    use crate::conditions::merge;

    const THREE: Expectation = Expectation { nodes: 3, central_nodes: 1, counted: true };

    fn slow(node: &str, message: &str) -> SlowNode {
        SlowNode {
            office: "store".to_owned(),
            node: node.to_owned(),
            message: message.to_owned(),
            ..SlowNode::default()
        }
    }

    /// The condition while these nodes are behind, after what was said.
    fn failing(slowest: &[SlowNode], said: Option<&Condition>) -> Condition {
        let nodes = Some(NodeCounts { targeted: 3, complete: 1, failed: 1, unreachable: 0 });
        let progress = PackageDistributionStatus { nodes, slowest: slowest.to_vec(), ..Default::default() };
        let finding = distributed(&progress, THREE, said);
        assert_eq!(finding.reason(), "NodesFailed");
        merge(&[], &[finding], Some(1), Timestamp::UNIX_EPOCH).remove(0)
    }

    #[test]
    fn nodes_that_fail_are_told_with_one_of_them_and_what_it_says() {
        let slowest =
            [slow("till-2", "need 100 bytes, have 3"), slow("till-1", "the path is taken"), slow("till-3", "")];
        let told =
            "an error stops some nodes: see status.slowest; node till-2 of office store says: need 100 bytes, have 3";
        assert_eq!(failing(&slowest, None).message, told);
        assert_eq!(failing(&[], None).message, NODES_FAILED);
        let endless = failing(&[slow("till-1", &"ä".repeat(5000))], None).message;
        assert_eq!(endless.chars().filter(|character| *character == 'ä').count(), NODE_MESSAGE_CHARACTERS_MAX);
    }

    #[test]
    fn what_was_said_of_a_node_stays_until_the_node_says_something_else() {
        let said = failing(&[slow("till-2", "need 100 bytes, have 3")], None);
        let after = |slowest: &[SlowNode]| failing(slowest, Some(&said)).message;
        let (other, same) = (slow("till-1", "the path is taken"), slow("till-2", "need 100 bytes, have 71"));
        assert_eq!(after(&[other.clone(), same]), said.message, "another one comes first, and a number is another");
        for slowest in [[other.clone(), slow("till-3", "need 100 bytes, have 3")], [other, slow("till-2", "")]] {
            let message = after(&slowest);
            assert!(message.ends_with("node till-1 of office store says: the path is taken"), "{message}");
        }
        let message = after(&[slow("till-2", "the disk is gone")]);
        assert!(message.ends_with("node till-2 of office store says: the disk is gone"), "{message}");
    }
}
