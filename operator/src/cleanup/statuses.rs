//! What objects say that stay when peerdist goes: of nodes, nothing any more. Their conditions are applied as the operator
//! applies them, so that one that is installed again takes them over; what the server counted is taken away in its name,
//! since the next operator would believe it. Whether an object was accepted stays: that is about its spec.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use peerdist_crds::readable::Readable;
use peerdist_crds::{Office, PackageDistribution};
use serde_json::{Value, json};

use super::{CleanupError, failed};
use crate::apply::describe;
use crate::conditions::{DISTRIBUTED, Finding, INGESTED, READY, find, merge_some};
use crate::held::Written;
use crate::names::{FIELD_MANAGER, SERVER_FIELD_MANAGER};
use crate::pages::for_all;

/// Conditions about nodes, and about what the server has.
const TAKEN_BACK: [&str; 3] = [READY, DISTRIBUTED, INGESTED];
/// Why nobody knows.
const REASON: &str = "Uninstalled";
const MESSAGE: &str = "peerdist was uninstalled and looks after nothing: install it again, or delete the object";
/// What it is for, in errors.
const ACTION: &str = "take back what is said of nodes";

/// Takes back what is said of packages and offices. The server must not write any more.
pub(super) async fn take_back(client: &Client) -> Result<(), CleanupError> {
    let packages: Api<Readable<PackageDistribution>> = Api::all(client.clone());
    for_all(&packages, ListParams::default(), async |Readable(object): Readable<PackageDistribution>| {
        of_package(client, &object).await
    })
    .await
    .map_err(failed(ACTION))?;
    let offices: Api<Readable<Office>> = Api::all(client.clone());
    for_all(&offices, ListParams::default(), async |Readable(object): Readable<Office>| {
        of_office(client, &object).await
    })
    .await
    .map_err(failed(ACTION))
}

async fn of_package(client: &Client, object: &PackageDistribution) -> Result<(), kube::Error> {
    let Some(status) = &object.status else { return Ok(()) };
    let generation = status.observed_generation;
    if let Some(conditions) = taken_back(&status.conditions, generation, Timestamp::now()) {
        let status = json!({"observedGeneration": generation, "conditions": conditions});
        apply(client, object, FIELD_MANAGER, status).await?;
    }
    if status.progress_generation.is_some() {
        apply(client, object, SERVER_FIELD_MANAGER, json!({})).await?;
    }
    Ok(())
}

/// Counts of its nodes are the operator's own, and go since they are not among what is applied.
async fn of_office(client: &Client, object: &Office) -> Result<(), kube::Error> {
    let Some(status) = &object.status else { return Ok(()) };
    let generation = status.observed_generation;
    let Some(conditions) = taken_back(&status.conditions, generation, Timestamp::now()) else { return Ok(()) };
    let mut applied = json!({"observedGeneration": generation, "conditions": conditions});
    if let Some(labels) = &status.labels {
        applied["labels"] = json!(labels);
    }
    apply(client, object, FIELD_MANAGER, applied).await
}

/// All conditions, with those that are taken back. `None`: nothing is said that would have to be.
fn taken_back(conditions: &[Condition], generation: Option<i64>, now: Timestamp) -> Option<Vec<Condition>> {
    let is_said = |kind: &&str| find(conditions, kind).is_some_and(|condition| condition.reason != REASON);
    let said = TAKEN_BACK.into_iter().filter(is_said);
    let findings: Vec<Finding> = said.map(|kind| Finding::unknown(kind, REASON, MESSAGE)).collect();
    (!findings.is_empty()).then(|| merge_some(conditions, &findings, generation, now))
}

/// Applies all that somebody says in a status: what it said before and does not say now goes.
async fn apply<K: Resource<DynamicType = ()>>(
    client: &Client,
    object: &K,
    manager: &str,
    status: Value,
) -> Result<(), kube::Error> {
    let (resource, name) = (ApiResource::erase::<K>(&()), object.name_any());
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        // One of another identity is not meant.
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let api: Api<Written> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    match api.patch_status(&name, &PatchParams::apply(manager).force(), &Patch::Apply(&body)).await {
        // It was deleted meanwhile, and perhaps made anew: of that one nothing is said.
        Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => Ok(()),
        // An object that no release can write any more must not hold back what is to go.
        Err(kube::Error::Api(refused)) => {
            println!("{} {name}: its status stays: {}", resource.kind, describe(&kube::Error::Api(refused)));
            Ok(())
        }
        answer => answer.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{ACCEPTED, STALLED, merge};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_said_of_nodes_is_taken_back_once_and_the_rest_stays() {
        let said = [
            Finding::yes(ACCEPTED, "Valid", "m"),
            Finding::no(STALLED, "Valid", "m"),
            Finding::yes(INGESTED, "Signed", "m"),
            Finding::unknown(DISTRIBUTED, "NotReported", "m"),
            Finding::yes(READY, "Complete", "m"),
        ];
        let before = merge(&[], &said, Some(3), at(1));
        let after = taken_back(&before, Some(3), at(2)).unwrap();
        let shown = |kind| {
            let condition = find(&after, kind).unwrap();
            (condition.status.as_str(), condition.reason.as_str(), condition.last_transition_time.0)
        };
        assert_eq!(shown(READY), ("Unknown", REASON, at(2)));
        assert_eq!(shown(INGESTED), ("Unknown", REASON, at(2)));
        assert_eq!(shown(DISTRIBUTED), ("Unknown", REASON, at(1)), "nobody knew before either");
        for kind in [ACCEPTED, STALLED] {
            assert_eq!(find(&after, kind), find(&before, kind));
        }
        assert!(after.iter().all(|condition| condition.observed_generation == Some(3)));
        assert_eq!(taken_back(&after, Some(3), at(3)), None);
    }

    #[test]
    fn nothing_is_said_of_an_object_that_nobody_looked_at() {
        assert_eq!(taken_back(&[], None, at(1)), None);
        let office = merge(&[], &[Finding::no(READY, "NoNodes", "m")], Some(1), at(1));
        let kinds: Vec<String> =
            taken_back(&office, Some(1), at(2)).unwrap().into_iter().map(|condition| condition.type_).collect();
        assert_eq!(kinds, [READY]);
    }
}
