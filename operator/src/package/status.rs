//! What a PackageDistribution's conditions say, from what the server reports. Pure. Counts of an older generation say
//! nothing, and nothing is ready where there is no node or where nobody counted the nodes (in
//! [`distributed`](super::distributed)). That the server fetches changes no condition: one changes when its meaning does,
//! so that a new version costs a write when it is accepted, one when it is signed, and one when it is everywhere.

use peerdist_crds::status::IngestFailure;
use peerdist_crds::{PackageDistribution, PackageDistributionStatus};

use super::distributed::{Expectation, distributed};
use crate::conditions::{DISTRIBUTED, Finding, INGESTED, PAUSED, READY, STALLED, accepted, find, holds, is_word};

/// The conditions of a distribution that is acted upon.
pub fn derive(object: &PackageDistribution, expectation: Expectation) -> Vec<Finding> {
    let status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let heard = status.progress_generation.is_some() && status.progress_generation == generation;
    let silence = silence(object);
    let progress = if heard && is_judged(&status) { Ok(&status) } else { Err(silence.as_str()) };
    let ingested = ingested(progress);
    let said = find(&status.conditions, DISTRIBUTED).filter(|said| said.observed_generation == generation);
    let distributed = match progress {
        Err(silence) => not_reported(DISTRIBUTED, silence),
        Ok(_) if ingested.is_false() => Finding::no(DISTRIBUTED, "NotIngested", "nothing to receive yet: see Ingested"),
        Ok(progress) => distributed(progress, expectation, said),
    };
    let was_ready = holds(&status.conditions, READY, generation);
    let paused = object.spec.rollout.paused;
    let ready = ready(&ingested, &distributed, paused, was_ready);
    acceptance(&ingested, progress).into_iter().chain([ingested, distributed, paused_finding(paused), ready]).collect()
}

/// The server tries again what may pass by itself, so that tools go on waiting; for what does not, they stop.
fn acceptance(ingested: &Finding, progress: Progress<'_>) -> [Finding; 2] {
    let [accepted, stalled] = accepted();
    let needs_edit = progress.ok().and_then(failure).is_some_and(|failure| failure.needs_edit);
    let stalled = match (ingested.is_false(), needs_edit) {
        (false, _) => stalled,
        (true, false) => Finding::no(STALLED, "NotIngested", "see Ingested: the server tries again by itself"),
        (true, true) => Finding::yes(STALLED, ingested.reason(), ingested.message()),
    };
    [accepted, stalled]
}

/// Whether the server has signed the package or says what keeps it from that.
fn is_judged(status: &PackageDistributionStatus) -> bool {
    status.digest.is_some() || failure(status).is_some()
}

fn failure(status: &PackageDistributionStatus) -> Option<&IngestFailure> {
    status.failure.as_ref().filter(|failure| is_word(&failure.reason))
}

/// What the server reports, or what is said as long as it does not.
type Progress<'object> = Result<&'object PackageDistributionStatus, &'object str>;

/// Before its time the server does nothing of it and has nothing to report.
fn silence(object: &PackageDistribution) -> String {
    match object.spec.schedule.as_ref().and_then(|schedule| schedule.not_before.as_deref()) {
        Some(moment) => format!(
            "nothing of it moves before {moment}, as spec.schedule.notBefore says; after that see status.percent and the \
             server's log"
        ),
        None => "the server has reported this generation neither as signed nor as failed: see status.percent and the \
                 server's log"
            .to_owned(),
    }
}

/// A failure that is told beside a digest is about this very version, too: its source has other content than was signed of
/// it, or is another source, of which nobody knows yet whether it has the same.
fn ingested(progress: Progress<'_>) -> Finding {
    match progress {
        Err(silence) => not_reported(INGESTED, silence),
        Ok(progress) => match failure(progress) {
            Some(failure) => Finding::no(INGESTED, &failure.reason, &failure.message),
            None => Finding::yes(INGESTED, "Signed", "the package is fetched, checked and signed"),
        },
    }
}

fn not_reported(kind: &'static str, silence: &str) -> Finding {
    Finding::unknown(kind, "NotReported", silence)
}

fn paused_finding(paused: bool) -> Finding {
    match paused {
        true => Finding::yes(PAUSED, "Requested", "spec.rollout.paused is set: nothing moves"),
        false => Finding::no(PAUSED, "NotRequested", "spec.rollout.paused is not set"),
    }
}

/// Neither nodes that join later nor a server that counts anew take back what was said of this generation; that something
/// else was signed than is wanted does.
fn ready(ingested: &Finding, distributed: &Finding, paused: bool, was_ready: bool) -> Finding {
    if (was_ready && !ingested.is_false()) || (ingested.is_true() && distributed.is_true()) {
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
    use peerdist_crds::package_distribution::Schedule;
    use serde_json::{Value, json};

    use super::*;
    use crate::conditions::merge;

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

    /// What was said of a generation.
    fn said(kind: &str, generation: i64) -> Value {
        json!([{
            "type": kind, "status": "True", "reason": "Complete", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation,
        }])
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
    }

    #[test]
    fn a_failure_takes_ready_back_although_the_version_was_signed_and_distributed() {
        for (digest, reason) in [(true, "VersionReused"), (true, "SourceMissing"), (false, "SourceMissing")] {
            let mut status = progress(2, 3, 0, 0);
            status["failure"] = json!({"reason": reason, "message": "m"});
            status["conditions"] = said("Ready", 2);
            if !digest {
                status["digest"] = Value::Null;
            }
            let conditions = merge(&[], &derive(&package(status, false), THREE), Some(2), Timestamp::UNIX_EPOCH);
            for (kind, reason, message) in [
                (INGESTED, reason, "m"),
                (READY, reason, "m"),
                (DISTRIBUTED, "NotIngested", "nothing to receive yet: see Ingested"),
                (STALLED, "NotIngested", "see Ingested: the server tries again by itself"),
            ] {
                let told = find(&conditions, kind).unwrap();
                let told = (told.status.as_str(), told.reason.as_str(), told.message.as_str());
                assert_eq!(told, ("False", reason, message), "{kind} {digest}");
            }
        }
    }

    #[test]
    fn what_the_server_does_not_try_again_stalls_the_object() {
        let failure = json!({"reason": "DigestMismatch", "message": "spec.source.digest: m", "needsEdit": true});
        let status = json!({"progressGeneration": 2, "failure": failure});
        let conditions = merge(&[], &derive(&package(status, false), THREE), Some(2), Timestamp::UNIX_EPOCH);
        let told = find(&conditions, STALLED).unwrap();
        let told = (told.status.as_str(), told.reason.as_str(), told.message.as_str());
        assert_eq!(told, ("True", "DigestMismatch", "spec.source.digest: m"));
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
            status["conditions"] = said("Ready", generation);
            package(status, false)
        };
        let more = Expectation { nodes: 9, ..THREE };
        assert_eq!(ready(&with_ready(2), more).0, "True");
        assert_eq!(ready(&with_ready(1), more), ("False".to_owned(), "InProgress".to_owned()));
    }

    #[test]
    fn a_server_that_begins_anew_with_an_empty_library_takes_nothing_back() {
        let brings_it_in = json!({"progressGeneration": 2, "nodes": {"targeted": 0, "complete": 0}});
        for mut status in [brings_it_in, progress(2, 0, 0, 0), progress(2, 1, 0, 0)] {
            status["conditions"] = said("Ready", 2);
            let (told, reason) = ready(&package(status.clone(), false), THREE);
            assert_eq!((told.as_str(), reason.as_str()), ("True", "Complete"), "{status}");
        }
    }

    #[test]
    fn counting_anew_takes_nothing_back_that_was_said_of_this_generation() {
        let mut status = progress(2, 3, 0, 0);
        status["conditions"] = said("Distributed", 2);
        let not_counted = Expectation { counted: false, ..THREE };
        assert_eq!(ready(&package(status, false), not_counted).0, "True");
        assert_eq!(Expectation::new([Some(i32::MAX), Some(1)].into_iter(), Some(1)).nodes, i32::MAX);
    }

    #[test]
    fn a_package_whose_time_has_not_come_says_when_it_comes_until_the_server_reports_it() {
        let message = |not_before: Option<&str>, status: Value| {
            let mut object = package(status, false);
            object.spec.schedule = Some(Schedule { not_before: not_before.map(str::to_owned) });
            let conditions = merge(&[], &derive(&object, THREE), Some(2), Timestamp::UNIX_EPOCH);
            let ready = find(&conditions, READY).unwrap();
            (ready.reason.clone(), ready.message.contains("nothing of it moves before 2026-12-01T22:00:00Z"))
        };
        let moment = Some("2026-12-01T22:00:00Z");
        for (not_before, status, expected) in [
            (moment, json!({}), ("NotReported", true)),
            (None, json!({}), ("NotReported", false)),
            (moment, progress(2, 1, 0, 0), ("InProgress", false)),
        ] {
            let (reason, is_told) = message(not_before, status);
            assert_eq!((reason.as_str(), is_told), expected, "{not_before:?}");
        }
    }

    #[test]
    fn a_paused_distribution_says_so() {
        let object = package(progress(2, 1, 0, 0), true);
        assert_eq!(ready(&object, THREE), ("False".to_owned(), "Paused".to_owned()));
        let conditions = merge(&[], &derive(&object, THREE), Some(2), Timestamp::UNIX_EPOCH);
        assert!(holds(&conditions, PAUSED, Some(2)));
    }
}
