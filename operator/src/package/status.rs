//! What a PackageDistribution's conditions say, from the counts that the server reports. Pure. Counts of an older
//! generation say nothing, and nothing is ready where there is no node or where nobody counted the nodes. Messages carry
//! no counts, and that the server fetches changes no condition: one changes when its meaning does, so that a new version
//! costs a write when it is accepted, one when it is signed, and one when it is everywhere.

use peerdist_crds::status::IngestFailure;
use peerdist_crds::{PackageDistribution, PackageDistributionStatus};

use crate::conditions::{DISTRIBUTED, Finding, INGESTED, PAUSED, READY, accepted, holds, is_word};

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

/// The conditions of a distribution that is acted upon.
pub fn derive(object: &PackageDistribution, expectation: Expectation) -> Vec<Finding> {
    let status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let heard = status.progress_generation.is_some() && status.progress_generation == generation;
    let progress = (heard && is_judged(&status)).then_some(&status);
    let ingested = ingested(progress);
    let was_distributed = holds(&status.conditions, DISTRIBUTED, generation);
    let distributed = distributed(progress, expectation, was_distributed);
    let was_ready = holds(&status.conditions, READY, generation);
    let paused = object.spec.rollout.paused;
    let ready = ready(&ingested, &distributed, paused, was_ready);
    accepted().into_iter().chain([ingested, distributed, paused_finding(paused), ready]).collect()
}

/// Whether the server has signed the package or says what keeps it from that.
fn is_judged(status: &PackageDistributionStatus) -> bool {
    status.digest.is_some() || failure(status).is_some()
}

fn failure(status: &PackageDistributionStatus) -> Option<&IngestFailure> {
    status.failure.as_ref().filter(|failure| is_word(&failure.reason))
}

fn ingested(progress: Option<&PackageDistributionStatus>) -> Finding {
    let Some(progress) = progress else { return not_reported(INGESTED) };
    match failure(progress) {
        Some(failure) if progress.digest.is_none() => Finding::no(INGESTED, &failure.reason, &failure.message),
        _ => Finding::yes(INGESTED, "Signed", "the package is fetched, checked and signed"),
    }
}

fn not_reported(kind: &'static str) -> Finding {
    let message = "the server has reported this generation neither as signed nor as failed: see status.percent and the \
                   server's log";
    Finding::unknown(kind, "NotReported", message)
}

/// Once said of a generation, it is not taken back because somebody has to count anew.
fn distributed(progress: Option<&PackageDistributionStatus>, expectation: Expectation, before: bool) -> Finding {
    let Some(progress) = progress else { return not_reported(DISTRIBUTED) };
    let Expectation { nodes: expected, central_nodes, counted } = expectation;
    let nodes = progress.nodes.unwrap_or_default();
    if counted && central_nodes == 0 {
        let message = "no node belongs to the Central Office, through which every package passes";
        Finding::no(DISTRIBUTED, "NoCentralNodes", message)
    } else if counted && expected == 0 {
        Finding::no(DISTRIBUTED, "NoNodes", "no node belongs to the offices of the package")
    } else if nodes.failed > 0 {
        Finding::no(DISTRIBUTED, "NodesFailed", "an error stops some nodes: see status.slowest")
    } else if nodes.complete <= 0 || nodes.complete.saturating_add(nodes.unreachable) < expected.max(nodes.targeted) {
        Finding::no(DISTRIBUTED, "InProgress", "nodes are still receiving: see status.percent")
    } else if counted || before {
        Finding::yes(DISTRIBUTED, "Complete", "every node that can be reached holds the package")
    } else {
        let message = "the nodes of some offices of the package are not counted yet: see the conditions of its offices";
        Finding::no(DISTRIBUTED, "NodesNotCounted", message)
    }
}

fn paused_finding(paused: bool) -> Finding {
    match paused {
        true => Finding::yes(PAUSED, "Requested", "spec.rollout.paused is set: nothing moves"),
        false => Finding::no(PAUSED, "NotRequested", "spec.rollout.paused is not set"),
    }
}

/// Nodes that join later do not take back what was said of this generation.
fn ready(ingested: &Finding, distributed: &Finding, paused: bool, was_ready: bool) -> Finding {
    if was_ready || (ingested.is_true() && distributed.is_true()) {
        return Finding::yes(READY, "Complete", "every node that can be reached holds the package");
    }
    if paused {
        return Finding::no(READY, "Paused", "spec.rollout.paused is set: nothing moves");
    }
    let cause = if ingested.is_true() { distributed } else { ingested };
    Finding::no(READY, cause.reason(), cause.message())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::conditions::{find, merge};

    const THREE: Expectation = Expectation { nodes: 3, central_nodes: 1, counted: true };

    fn package(status: Value, paused: bool) -> PackageDistribution {
        let spec = json!({"version": "1", "source": {"uri": "https://a/b"}, "rollout": {"paused": paused}});
        let metadata = json!({"name": "app", "namespace": "retail", "generation": 2});
        let object = json!({
            "apiVersion": peerdist_crds::API_VERSION, "kind": "PackageDistribution",
            "metadata": metadata, "spec": spec, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn progress(generation: i64, complete: i32, failed: i32, unreachable: i32) -> Value {
        let nodes = json!({"targeted": 3, "complete": complete, "failed": failed, "unreachable": unreachable});
        json!({"progressGeneration": generation, "digest": "blake3:00", "nodes": nodes})
    }

    fn ready(object: &PackageDistribution, expectation: Expectation) -> (String, String) {
        let conditions = merge(&[], &derive(object, expectation), Some(2), Timestamp::UNIX_EPOCH);
        let condition = find(&conditions, READY).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    #[test]
    fn ready_is_never_said_too_early() {
        let none = Expectation { nodes: 0, ..THREE };
        let no_central = Expectation { central_nodes: 0, ..THREE };
        let fetching = json!({"progressGeneration": 2, "nodes": {"complete": 3}});
        let failing = json!({"progressGeneration": 2, "failure": {"reason": "SourceMissing", "message": "m"}});
        for (status, expectation, expected) in [
            (json!({}), THREE, "NotReported"),
            (json!({"observedGeneration": -1}), THREE, "NotReported"),
            (progress(1, 3, 0, 0), THREE, "NotReported"),
            (fetching, THREE, "NotReported"),
            (failing, THREE, "SourceMissing"),
            (progress(2, 0, 0, 0), none, "NoNodes"),
            (progress(2, 3, 0, 0), no_central, "NoCentralNodes"),
            (progress(2, 2, 0, 0), THREE, "InProgress"),
            // Three of six are nodes that were replaced long ago.
            (
                json!({"progressGeneration": 2, "digest": "blake3:00", "nodes": {"targeted": 6, "complete": 1, "unreachable": 3}}),
                THREE,
                "InProgress",
            ),
            (progress(2, 0, 0, 3), THREE, "InProgress"),
            (progress(2, 2, 1, 0), THREE, "NodesFailed"),
            (progress(2, 3, 0, 0), Expectation::new([Some(3), None].into_iter(), Some(1)), "NodesNotCounted"),
            (progress(2, 3, 0, 0), Expectation::new([Some(3)].into_iter(), None), "NodesNotCounted"),
            (progress(2, 2, 0, 0), Expectation::new([Some(3), None].into_iter(), Some(1)), "InProgress"),
        ] {
            let object = package(status.clone(), false);
            assert_eq!(ready(&object, expectation), ("False".to_owned(), expected.to_owned()), "{status}");
        }
    }

    #[test]
    fn fetching_changes_no_condition_and_neither_does_what_the_server_counts() {
        let findings = |status: Value| derive(&package(status, false), THREE);
        for percent in [0, 40] {
            let counted = json!({"progressGeneration": 2, "percent": percent, "nodes": {"targeted": 3}});
            assert_eq!(findings(counted), findings(json!({})));
        }
        let unnamed = json!({"progressGeneration": 2, "failure": {"reason": "no word", "message": "m"}});
        assert_eq!(findings(unnamed), findings(json!({})));
        assert_eq!(findings(progress(2, 1, 0, 0)), findings(progress(2, 0, 0, 1)));
        let mut signed = progress(2, 1, 0, 0);
        signed["failure"] = json!({"reason": "SourceMissing", "message": "m"});
        assert_eq!(findings(signed), findings(progress(2, 1, 0, 0)), "a signed package stays signed");
    }

    #[test]
    fn ready_is_said_when_all_that_can_be_reached_hold_it() {
        let yes = ("True".to_owned(), "Complete".to_owned());
        assert_eq!(ready(&package(progress(2, 3, 0, 0), false), THREE), yes);
        assert_eq!(ready(&package(progress(2, 2, 0, 1), false), THREE), yes);
    }

    #[test]
    fn nodes_that_join_later_do_not_take_it_back_but_a_new_generation_does() {
        let with_ready = |generation: i64| {
            let mut status = progress(2, 3, 0, 0);
            status["conditions"] = json!([{
                "type": "Ready", "status": "True", "reason": "Complete", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation,
            }]);
            package(status, false)
        };
        let more = Expectation { nodes: 9, ..THREE };
        assert_eq!(ready(&with_ready(2), more).0, "True");
        assert_eq!(ready(&with_ready(1), more), ("False".to_owned(), "InProgress".to_owned()));
    }

    #[test]
    fn counting_anew_takes_nothing_back_that_was_said_of_this_generation() {
        let mut status = progress(2, 3, 0, 0);
        status["conditions"] = json!([{
            "type": "Distributed", "status": "True", "reason": "Complete", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
        }]);
        let not_counted = Expectation { counted: false, ..THREE };
        assert_eq!(ready(&package(status, false), not_counted).0, "True");
        assert_eq!(Expectation::new([Some(i32::MAX), Some(1)].into_iter(), Some(1)).nodes, i32::MAX);
    }

    #[test]
    fn a_paused_distribution_says_so() {
        let object = package(progress(2, 1, 0, 0), true);
        assert_eq!(ready(&object, THREE), ("False".to_owned(), "Paused".to_owned()));
        let conditions = merge(&[], &derive(&object, THREE), Some(2), Timestamp::UNIX_EPOCH);
        assert!(holds(&conditions, PAUSED, Some(2)));
    }
}
