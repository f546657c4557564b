//! Desired state from a Kubernetes cluster: the Offices that the operator accepted, and the PackageDistributions.
//!
//! The operator judges offices, with all nodes of the cluster in view, and says so in their conditions; here its word
//! counts. An edit that it has not judged yet, or refused, leaves the last good form in force. Progress that the server
//! itself writes into an object changes nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::ObjectMeta;
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use peerdist_core::distribution::{Distribution, SourceError as SourceUriError, SourceUri};
use peerdist_core::names::{DistributionKey, OfficeName};
use peerdist_core::office::{Office as ValidOffice, OfficeTree, OfficeTreeError};
use peerdist_crds::readable::{Kind, Readable, unwrapped};
use peerdist_crds::{FieldError, Office, PackageDistribution};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::error::{ErrorScope, NO_OFFICE_SELECTED, ObjectError, object_of};
use super::last_good::LastGood;
use super::objects::{ERRORS_MAX, Reading};
use super::revision::{Generations, revise};
use super::{ClusterObjects, DesiredSource, DesiredState, DesiredUpdate, PackageObject};
use crate::cluster::{WatchLog, WatchPauses};
use crate::source::FileRule;
use crate::source::error::WITH_VERSION;

/// Changes are gathered this long: an apply of many objects is one change.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Condition in which the operator says that it acts upon an object.
const ACCEPTED: &str = "Accepted";

/// Desired state from the objects of a cluster.
pub struct ClusterSource {
    offices: Store<Office>,
    packages: Store<PackageDistribution>,
    files: FileRule,
    changed: Arc<Notify>,
    state: Option<Arc<DesiredState>>,
    last_good: LastGood,
    told: Option<(Option<Arc<DesiredState>>, Vec<ObjectError>)>,
    _watches: JoinSet<()>,
}

impl ClusterSource {
    /// Begins to watch. What cannot be watched is tried again and logged. Good objects are kept in the folder, so that
    /// one that is bad at the next start stays what it was. Files of this machine are sources as far as the rule goes.
    pub fn start(client: &Client, folder: &Path, files: FileRule) -> Self {
        let (changed, mut watches) = (Arc::new(Notify::new()), JoinSet::new());
        Self {
            offices: keep(Api::all(client.clone()), &changed, &mut watches),
            packages: keep(Api::all(client.clone()), &changed, &mut watches),
            files,
            changed,
            state: None,
            last_good: LastGood::open(folder),
            told: None,
            _watches: watches,
        }
    }

    async fn wait(&self) {
        if self.told.is_some() {
            self.changed.notified().await;
            tokio::time::sleep(SETTLE_TIME).await;
        } else if self.offices.wait_until_ready().await.is_err() || self.packages.wait_until_ready().await.is_err() {
            // The watches end with this source only.
            std::future::pending().await
        }
    }
}

impl DesiredSource for ClusterSource {
    async fn next(&mut self) -> DesiredUpdate {
        loop {
            self.wait().await;
            let packages = self.packages.state();
            let reading = read(&self.offices.state(), &packages, self.state.as_deref(), &self.files);
            let refused: Vec<String> = reading.refused.iter().map(object_of).collect();
            let previous =
                self.state.clone().or_else(|| Some(Arc::new(before(&self.last_good, &packages, &reading, &refused)?)));
            let update = revise(previous.as_deref(), reading, Generations::Given);
            self.state = update.state.clone().or(self.state.take());
            let news = (update.state.clone(), update.errors.clone());
            if self.told.as_ref() != Some(&news) {
                if update.state.is_some() {
                    self.last_good.keep(packages.iter().filter_map(|package| kept_form(package)), &refused);
                }
                self.told = Some(news);
                return update;
            }
        }
    }
}

/// What an earlier run of the server knew of objects that are refused now. An object that was made anew under the same
/// name since is another one.
fn before(
    last_good: &LastGood,
    packages: &[Arc<PackageDistribution>],
    reading: &Reading,
    refused: &[String],
) -> Option<DesiredState> {
    let state = reading.state.as_ref()?;
    let kept = last_good.of_refused(refused).filter_map(|(_, value)| serde_json::from_value(value.clone()).ok());
    let is_there = |kept: &PackageDistribution| packages.iter().any(|package| package.uid() == kept.uid());
    // What was published from a folder that is no source any more stays: that nothing is read there is seen to by whoever
    // opens it.
    let files = FileRule::any();
    let distributions = kept.filter(is_there).filter_map(|kept| distribution(&kept, &state.offices, &files).ok());
    Some(DesiredState {
        distributions: distributions.map(|distribution| (distribution.key.clone(), distribution)).collect(),
        ..state.clone()
    })
}

/// What of an object is kept for the next start: not its status, which changes all the time.
fn kept_form(package: &PackageDistribution) -> Option<(String, Value)> {
    let metadata = &package.metadata;
    let object = object_of(&peerdist_crds::package_distribution::key(package).ok()?);
    let form = PackageDistribution {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            ..ObjectMeta::default()
        },
        spec: package.spec.clone(),
        status: None,
    };
    Some((object, serde_json::to_value(form).ok()?))
}

fn keep<K>(api: Api<Readable<K>>, changed: &Arc<Notify>, watches: &mut JoinSet<()>) -> Store<K>
where
    K: Kind + Clone + Debug + Send + Sync + 'static,
    K::Status: DeserializeOwned,
{
    let (store, writer) = reflector::store();
    let changed = changed.clone();
    watches.spawn(async move {
        let events = watcher(api, watcher::Config::default()).backoff(WatchPauses::default());
        let events = events.map(|event| event.map(unwrapped));
        let events = events.modify(|object: &mut K| object.managed_fields_mut().clear());
        let mut events = pin!(reflector(writer, events));
        let mut log = WatchLog::new(&K::kind(&()));
        while let Some(event) = events.next().await {
            log.note(&event);
            if event.is_ok() {
                changed.notify_one();
            }
        }
    });
    store
}

fn read(
    offices: &[Arc<Office>],
    packages: &[Arc<PackageDistribution>],
    previous: Option<&DesiredState>,
    files: &FileRule,
) -> Reading {
    let mut errors = Vec::new();
    // Without a last good form nobody knows whether an office that is not judged yet had one: nodes would drop what they
    // hold for it.
    if previous.is_none() && offices.iter().any(|office| verdict(office).is_none()) {
        let fault = FieldError::new("", "NotJudged", "the operator has not judged every Office yet: see its log");
        return Reading::unusable(vec![error("Offices".to_owned(), ErrorScope::Set, &fault)]);
    }
    let uids =
        offices.iter().filter_map(|office| Some((OfficeName::new(&office.name_any()).ok()?, office.uid()?))).collect();
    errors.extend(offices.iter().filter_map(|office| not_understood(office)));
    let offices: Vec<ValidOffice> = offices.iter().filter_map(|office| in_force(office, previous)).collect();
    let tree = match one_tree(offices, &mut errors) {
        Ok(tree) => tree,
        Err(errors) => return Reading::unusable(errors),
    };
    let (mut distributions, mut refused) = (BTreeMap::new(), BTreeSet::new());
    let mut objects =
        ClusterObjects { packages: packages.iter().filter_map(|package| known(package)).collect(), offices: uids };
    for package in packages.iter().filter(|package| package.metadata.deletion_timestamp.is_none()) {
        match distribution(package, &tree, files) {
            Ok(distribution) => {
                distributions.insert(distribution.key.clone(), distribution);
            }
            Err((key, faults)) => {
                let object =
                    format!("PackageDistribution {}/{}", package.namespace().unwrap_or_default(), package.name_any());
                let faults: Vec<ObjectError> =
                    faults.iter().map(|fault| error(object.clone(), ErrorScope::Object, fault)).collect();
                if let Some(object) = key.as_ref().and_then(|key| objects.packages.get_mut(key)) {
                    object.refusal = faults.first().cloned();
                }
                errors.extend(faults);
                refused.extend(key);
            }
        }
    }
    // Objects come in no order, and the same ones are to be told each time.
    errors.sort_by(|one, other| one.object.cmp(&other.object));
    errors.truncate(ERRORS_MAX);
    let state = DesiredState {
        offices: tree,
        distributions,
        embedded_nodes: BTreeMap::new(),
        secrets: Arc::default(),
        objects,
    };
    Reading { state: Some(state), refused, errors }
}

/// What the cluster says of a distribution besides its content. A name that cannot be one is in the errors already.
fn known(package: &PackageDistribution) -> Option<(DistributionKey, PackageObject)> {
    let object = PackageObject {
        uid: package.uid()?,
        generation: package.metadata.generation?,
        is_deleted: package.metadata.deletion_timestamp.is_some(),
        refusal: None,
    };
    Some((peerdist_crds::package_distribution::key(package).ok()?, object))
}

/// The offices that form one tree. One that does not fit, such as the child of a parent that was refused or deleted,
/// is left out with an error, and so are those below it.
fn one_tree(mut offices: Vec<ValidOffice>, errors: &mut Vec<ObjectError>) -> Result<OfficeTree, Vec<ObjectError>> {
    loop {
        let faults = match OfficeTree::new(offices.clone()) {
            Ok(tree) => return Ok(tree),
            Err(faults) => faults,
        };
        let told = |scope, fault: &OfficeTreeError| {
            let object = fault.office().map_or_else(|| "Offices".to_owned(), |office| format!("Office {office}"));
            error(object, scope, &FieldError::new(fault.field(), fault.reason(), fault.to_string()))
        };
        let count = offices.len();
        offices.retain(|office| !faults.iter().any(|fault| fault.office() == Some(&office.name)));
        if offices.len() == count || offices.is_empty() {
            return Err(faults.iter().map(|fault| told(ErrorScope::Set, fault)).collect());
        }
        errors.extend(faults.iter().map(|fault| told(ErrorScope::Object, fault)));
    }
}

/// Whether the operator acts upon the object in this form; `None` while it has not said so.
fn verdict(object: &Office) -> Option<bool> {
    if object.metadata.deletion_timestamp.is_some() {
        return Some(false);
    }
    let conditions = &object.status.as_ref()?.conditions;
    let accepted = conditions.iter().find(|condition| condition.type_ == ACCEPTED)?;
    (accepted.observed_generation == object.metadata.generation).then_some(accepted.status == "True")
}

/// The operator may be of a newer release than the server, and has accepted what this one cannot read.
fn not_understood(object: &Office) -> Option<ObjectError> {
    let fault = object.spec.not_understood.as_ref()?;
    Some(error(format!("Office {}", object.name_any()), ErrorScope::Object, fault))
}

/// The office in the form that the operator acts upon, as far as this process has seen it.
fn in_force(object: &Office, previous: Option<&DesiredState>) -> Option<ValidOffice> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if verdict(object) == Some(true)
        && let Ok(mut office) = peerdist_crds::office::validate(object)
    {
        // Labels may be edited without a new generation: those count that the operator has seen and told.
        if let Some(labels) = object.status.as_ref().and_then(|status| status.labels.clone()) {
            office.labels = labels;
        }
        return Some(office);
    }
    let name = OfficeName::new(&object.name_any()).ok()?;
    previous?.offices.office(&name).cloned()
}

fn distribution(
    object: &PackageDistribution,
    tree: &OfficeTree,
    files: &FileRule,
) -> Result<Distribution, (Option<DistributionKey>, Vec<FieldError>)> {
    let key = peerdist_crds::package_distribution::key(object).map_err(|faults| (None, faults))?;
    let uri = source(&object.spec.source.uri, files);
    let refused = |faults| (Some(key.clone()), faults);
    let distribution = peerdist_crds::package_distribution::validate(object, uri).map_err(refused)?;
    if tree.offices().any(|office| distribution.offices.matches(office)) {
        return Ok(distribution);
    }
    let message =
        format!("no accepted office has the labels {}: correct them here or on an Office", distribution.offices);
    Err(refused(vec![FieldError::new("spec.offices.matchLabels", NO_OFFICE_SELECTED, message)]))
}

/// In a cluster, who writes objects need not own the server's disk: only what lies in folders that its administrator
/// named is a source.
fn source(text: &str, files: &FileRule) -> Result<SourceUri, FieldError> {
    let refused = |reason, message: String| FieldError::new("spec.source.uri", reason, message);
    let malformed = |error: SourceUriError| refused(error.reason(), format!("{error} {WITH_VERSION}"));
    let uri = SourceUri::parse(text, None).map_err(malformed)?;
    if let SourceUri::File(path) = &uri {
        files.check(path).map_err(|fault| refused("FileSourceNotAllowed", fault.to_string()))?;
    }
    Ok(uri)
}

fn error(object: String, scope: ErrorScope, fault: &FieldError) -> ObjectError {
    ObjectError {
        object,
        field: fault.field.clone(),
        reason: fault.reason.to_owned(),
        message: fault.message.clone(),
        scope,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn office(name: &str, spec: Value, accepted: Option<(&str, i64)>) -> Arc<Office> {
        let conditions = accepted.map(|(status, generation)| {
            json!([{
                "type": "Accepted", "status": status, "reason": "r", "message": "", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }])
        });
        let object = json!({
            "apiVersion": peerdist_crds::API_VERSION, "kind": "Office", "metadata": {"name": name, "generation": 2},
            "spec": spec, "status": {"conditions": conditions.unwrap_or_else(|| json!([]))},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn package(uri: &str) -> Arc<PackageDistribution> {
        let object = json!({
            "apiVersion": peerdist_crds::API_VERSION, "kind": "PackageDistribution",
            "metadata": {"name": "app", "namespace": "retail", "generation": 7},
            "spec": {"version": "1", "source": {"uri": uri}},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// As a server reads that no folder is named to.
    fn read(
        offices: &[Arc<Office>],
        packages: &[Arc<PackageDistribution>],
        previous: Option<&DesiredState>,
    ) -> Reading {
        super::read(offices, packages, previous, &FileRule::beneath(Vec::new()))
    }

    fn names(state: &DesiredState) -> Vec<String> {
        state.offices.offices().map(|office| office.name.to_string()).collect()
    }

    fn state(offices: &[Arc<Office>], previous: Option<&DesiredState>) -> Option<DesiredState> {
        read(offices, &[package("https://a/b")], previous).state
    }

    #[test]
    fn only_offices_that_the_operator_accepted_in_this_form_count() {
        let hub = || office("hub", json!({}), Some(("True", 2)));
        let store = |accepted| office("store", json!({"parent": "hub", "type": "WiFi"}), accepted);
        let first = state(&[hub(), store(Some(("True", 2)))], None).unwrap();
        assert_eq!(names(&first), ["hub", "store"]);
        for unjudged in [None, Some(("True", 1))] {
            assert!(state(&[hub(), store(unjudged)], None).is_none(), "after a start all are waited for");
        }
        assert_eq!(names(&state(&[hub(), store(Some(("False", 2)))], None).unwrap()), ["hub"]);
        for unjudged in [None, Some(("True", 1)), Some(("False", 2)), Some(("Unknown", 2))] {
            let kept = state(&[hub(), store(unjudged)], Some(&first)).unwrap();
            assert_eq!(names(&kept), ["hub", "store"], "what was in force stays: {unjudged:?}");
        }
        assert!(state(&[store(Some(("True", 2)))], None).is_none(), "no Central Office");
    }

    #[test]
    fn labels_count_as_the_operator_has_told_them() {
        let mut hub = Office::clone(&office("hub", json!({}), Some(("True", 2))));
        let labels = |region: &str| BTreeMap::from([("region".to_owned(), region.to_owned())]);
        hub.metadata.labels = Some(labels("us"));
        let read_labels = |hub: &Office| {
            let state = state(&[Arc::new(hub.clone())], None).unwrap();
            state.offices.offices().next().unwrap().labels.clone()
        };
        assert_eq!(read_labels(&hub), labels("us"), "an operator that tells none");
        hub.status.as_mut().unwrap().labels = Some(labels("eu"));
        assert_eq!(read_labels(&hub), labels("eu"));
    }

    #[test]
    fn objects_are_known_by_identity_with_why_they_are_refused() {
        let with = |name: &str, uid: &str, uri: &str, deleted: bool| {
            let mut object = PackageDistribution::clone(&package(uri));
            object.metadata.name = Some(name.to_owned());
            object.metadata.uid = Some(uid.to_owned());
            object.metadata.deletion_timestamp =
                deleted.then(|| serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
            Arc::new(object)
        };
        let packages = [
            with("a", "1", "https://a/b", false),
            with("b", "2", "s3://a/b", false),
            with("c", "3", "https://a/b", true),
        ];
        let state = read(&[office("hub", json!({}), Some(("True", 2)))], &packages, None).state.unwrap();
        assert_eq!(state.distributions.len(), 1);
        let told: Vec<(&str, bool, Option<&str>)> = state
            .objects
            .packages
            .values()
            .map(|object| {
                let reason = object.refusal.as_ref().map(|refusal| refusal.reason.as_str());
                (object.uid.as_str(), object.is_deleted, reason)
            })
            .collect();
        assert_eq!(told, [("1", false, None), ("2", false, Some("UnsupportedScheme")), ("3", true, None)]);
    }

    #[test]
    fn object_that_is_broken_before_a_start_stays_what_it_was_unless_it_is_another_one() {
        let with = |uid: &str, uri: &str| {
            let mut object = PackageDistribution::clone(&package(uri));
            object.metadata.uid = Some(uid.to_owned());
            [Arc::new(object)]
        };
        let (folder, hub) = (tempfile::tempdir().unwrap(), [office("hub", json!({}), Some(("True", 2)))]);
        let good = with("1", "https://a/b");
        LastGood::open(folder.path()).keep(good.iter().filter_map(|package| kept_form(package)), &[]);
        let after = |packages: &[Arc<PackageDistribution>]| {
            let reading = read(&hub, packages, None);
            assert_eq!(reading.refused.len(), 1);
            let refused: Vec<String> = reading.refused.iter().map(object_of).collect();
            let previous = before(&LastGood::open(folder.path()), packages, &reading, &refused);
            revise(previous.as_ref(), reading, Generations::Given).state.unwrap().distributions.clone()
        };
        let source = |uri: &str| SourceUri::parse(uri, None).unwrap();
        let kept = after(&with("1", "s3://a/b"));
        assert_eq!(kept.values().next().unwrap().source.uri, source("https://a/b"));
        assert!(after(&with("2", "s3://a/b")).is_empty());
    }

    #[test]
    fn object_of_a_newer_release_stays_what_it_was_and_is_told() {
        let hub = || office("hub", json!({}), Some(("True", 2)));
        let store = |kind: &str| {
            let mut object =
                serde_json::to_value(&*office("store", json!({"parent": "hub"}), Some(("True", 2)))).unwrap();
            object["spec"]["type"] = json!(kind);
            let Readable(object) = serde_json::from_value(object).unwrap();
            Arc::<Office>::new(object)
        };
        let app = |priority: &str| {
            let mut object = serde_json::to_value(&*package("https://a/b")).unwrap();
            object["spec"]["priority"] = json!(priority);
            let Readable(object) = serde_json::from_value(object).unwrap();
            Arc::<PackageDistribution>::new(object)
        };
        let first = read(&[hub(), store("WiFi")], &[app("High")], None).state.unwrap();
        let reading = read(&[hub(), store("Mesh")], &[app("Whenever")], Some(&first));
        let told: Vec<(&str, &str, &str)> = reading
            .errors
            .iter()
            .map(|error| (error.object.as_str(), error.field.as_str(), error.reason.as_str()))
            .collect();
        let expected = [("Office store", "spec.type"), ("PackageDistribution retail/app", "spec.priority")];
        assert_eq!(told, expected.map(|(object, field)| (object, field, "NotUnderstood")));
        let after = revise(Some(&first), reading, Generations::Given).state.unwrap();
        assert_eq!(names(&after), ["hub", "store"]);
        assert_eq!((&after.offices, &after.distributions), (&first.offices, &first.distributions));
    }

    #[test]
    fn an_office_without_its_parent_does_not_stop_the_others() {
        let accepted = |name: &str, parent: &str| office(name, json!({"parent": parent}), Some(("True", 2)));
        let hub = office("hub", json!({}), Some(("True", 2)));
        let offices = [hub, accepted("a", "hub"), accepted("c", "b"), accepted("d", "c")];
        let reading = read(&offices, &[package("https://a/b")], None);
        assert_eq!(names(&reading.state.unwrap()), ["a", "hub"]);
        let objects: Vec<&str> = reading.errors.iter().map(|error| error.object.as_str()).collect();
        assert_eq!(objects, ["Office c", "Office d"]);
    }

    #[test]
    fn packages_keep_the_generation_of_their_object_and_never_read_the_servers_disk() {
        let hub = [office("hub", json!({}), Some(("True", 2)))];
        let good = read(&hub, &[package("https://a/b")], None);
        assert_eq!(good.state.unwrap().distributions.values().next().unwrap().generation, 7);
        for (uri, reason) in [("file:///etc/passwd", "FileSourceNotAllowed"), ("s3://a/b", "UnsupportedScheme")] {
            let reading = read(&hub, &[package(uri)], None);
            assert_eq!((reading.errors[0].reason.as_str(), reading.refused.len()), (reason, 1), "{uri}");
            let tells_how = reading.errors[0].message.ends_with(WITH_VERSION);
            assert_eq!(tells_how, reason == "UnsupportedScheme", "{}", reading.errors[0].message);
            assert!(reading.state.unwrap().distributions.is_empty());
        }
    }

    #[test]
    fn every_object_that_is_refused_is_known_and_of_the_errors_only_so_many_are_told() {
        let count = ERRORS_MAX + 1;
        let packages: Vec<_> = (0..count)
            .map(|number| {
                let mut object = PackageDistribution::clone(&package("s3://a/b"));
                (object.metadata.name, object.metadata.uid) = (Some(format!("app-{number}")), Some(number.to_string()));
                Arc::new(object)
            })
            .collect();
        let reading = read(&[office("hub", json!({}), Some(("True", 2)))], &packages, None);
        assert_eq!((reading.errors.len(), reading.refused.len()), (ERRORS_MAX, count));
        assert!(reading.state.unwrap().objects.packages.values().all(|object| object.refusal.is_some()));
    }

    #[test]
    fn files_are_sources_in_the_named_folders_only() {
        let hub = [office("hub", json!({}), Some(("True", 2)))];
        let files = FileRule::beneath(vec!["/srv/files".parse().unwrap()]);
        let read = |uri: &str| super::read(&hub, &[package(uri)], None, &files);
        for uri in ["file:///srv/files/app", "file:///srv/files/a/../b", "file:///srv/files"] {
            let reading = read(uri);
            assert_eq!((&reading.errors[..], reading.refused.len()), (&[][..], 0), "{uri}");
            assert_eq!(reading.state.unwrap().distributions.len(), 1);
        }
        for uri in ["file:///srv/files2/app", "file:///srv/files/../app", "file:///srv/files/%2e%2e/app"] {
            let error = read(uri).errors.remove(0);
            assert_eq!((error.field.as_str(), error.reason.as_str()), ("spec.source.uri", "FileSourceNotAllowed"));
            assert!(error.message.contains("a file in /srv/files;"), "{uri}: {}", error.message);
        }
    }

    #[test]
    fn a_folder_that_is_named_no_longer_takes_nothing_from_the_nodes() {
        let (folder, hub) = (tempfile::tempdir().unwrap(), [office("hub", json!({}), Some(("True", 2)))]);
        let mut object = PackageDistribution::clone(&package("file:///srv/files/app"));
        object.metadata.uid = Some("1".to_owned());
        let packages = [Arc::new(object)];
        LastGood::open(folder.path()).keep(packages.iter().filter_map(|package| kept_form(package)), &[]);
        let reading = read(&hub, &packages, None);
        let refused: Vec<String> = reading.refused.iter().map(object_of).collect();
        assert_eq!(refused.len(), 1);
        let previous = before(&LastGood::open(folder.path()), &packages, &reading, &refused);
        assert_eq!(revise(previous.as_ref(), reading, Generations::Given).state.unwrap().distributions.len(), 1);
    }
}
