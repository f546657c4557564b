//! What Kubernetes lets nobody change of a StatefulSet: whether it has a claim, and which. A server that has one storage
//! keeps it, so that everything else that is asked for can be applied. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use peerdist_crds::Quantity;

use crate::settings::ServerStorage;

/// The storage that the server keeps instead of the one that is asked for. `None`: it can have that.
pub(super) fn kept(asked: &ServerStorage, live: Option<&StatefulSet>) -> Option<ServerStorage> {
    let live = storage_of(live?)?;
    let both_directories = matches!((asked, &live), (ServerStorage::HostPath(_), ServerStorage::HostPath(_)));
    (!both_directories && *asked != live).then_some(live)
}

/// What to tell whoever asked for the other.
pub(super) fn message(asked: &ServerStorage, kept: &ServerStorage, namespace: &str) -> String {
    format!(
        "server.storage in the chart's values is {asked} and cannot be changed after installing: expected {kept}, which \
         the server keeps; set it back, or give up what the server stores: kubectl delete --namespace {namespace} \
         statefulset peerdist-server, and the persistentvolumeclaim storage-peerdist-server-0 if there is one"
    )
}

fn storage_of(set: &StatefulSet) -> Option<ServerStorage> {
    match set.spec.volume_claim_templates.iter().flatten().next() {
        Some(claim) => claim_of(claim),
        None => directory_of(set),
    }
}

fn claim_of(claim: &PersistentVolumeClaim) -> Option<ServerStorage> {
    let spec = claim.spec.as_ref()?;
    let size: Quantity = spec.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()?;
    Some(ServerStorage::Claim { size, storage_class_name: spec.storage_class_name.clone() })
}

fn directory_of(set: &StatefulSet) -> Option<ServerStorage> {
    let volumes = set.spec.template.spec.as_ref()?.volumes.iter().flatten();
    let storage = volumes.filter(|volume| volume.name == "storage").find_map(|volume| volume.host_path.as_ref())?;
    Some(ServerStorage::HostPath(storage.path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::tests::{judged, office, site};
    use crate::server::build;
    use crate::settings::Settings;

    fn settings(storage: &str) -> Settings {
        Settings::parse(&format!("image: a\nserver: {{storage: {{{storage}}}}}")).unwrap()
    }

    fn asked(storage: &str) -> ServerStorage {
        settings(storage).server.storage
    }

    fn live(storage: &str) -> StatefulSet {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let built = build(fleet.accepted().next().unwrap(), None, &[], &settings(storage), "peerdist");
        serde_json::from_value(built.stateful_set.body).unwrap()
    }

    #[test]
    fn what_cannot_be_changed_is_kept_and_everything_else_is_as_asked() {
        let (small, large) = ("claim: {size: 1Gi}", "claim: {size: 2Gi}");
        let fast = "claim: {size: 1Gi, storageClassName: fast}";
        let (here, there) = ("hostPath: /a", "hostPath: /b");
        for (wanted, has, expected) in [
            (small, small, None),
            (fast, fast, None),
            (here, there, None),
            (large, small, Some(small)),
            (fast, small, Some(small)),
            (small, fast, Some(fast)),
            (small, here, Some(here)),
            (here, small, Some(small)),
        ] {
            assert_eq!(kept(&asked(wanted), Some(&live(has))), expected.map(asked), "{wanted} after {has}");
        }
        assert_eq!(kept(&asked(small), None), None);
    }

    #[test]
    fn who_asks_for_another_storage_is_told_the_field_and_what_to_do() {
        let text = message(&asked("claim: {size: 2Gi, storageClassName: fast}"), &asked("hostPath: /a"), "edge");
        for part in [
            "server.storage in the chart's values is claim {size: 2Gi, storageClassName: fast}",
            "expected hostPath /a",
            "kubectl delete --namespace edge statefulset peerdist-server",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
