//! The library: packages that earlier runs brought in, and what retention takes out.

use std::sync::Arc;

use jiff::Timestamp;
use peerdist_core::digest::Digest;
use peerdist_core::distribution::Distribution;
use peerdist_core::names::PackageKey;
use peerdist_core::server::IngestedPackage;

use crate::database::MetadataStore;
use crate::desired::{DesiredState, ErrorScope, ObjectError};
use crate::driver::client::storing;
use crate::store::NodeStore;

/// A package of the library as the machine wants it.
pub(super) fn described(store: &NodeStore, digest: Digest) -> Option<IngestedPackage> {
    let root = store.manifest_root(digest).ok()?;
    let table = store.chunk_table(digest).ok()?;
    Some(IngestedPackage {
        key: root.package().clone(),
        digest,
        root: root.signed().clone().into(),
        lengths: (0..table.len()).map(|index| table.length(index).unwrap_or(0)).collect(),
        bytes: root.total_bytes(),
    })
}

/// What earlier runs brought in, oldest first.
pub(super) async fn stored_packages(store: &Arc<NodeStore>, database: &dyn MetadataStore) -> Vec<IngestedPackage> {
    let known = match database.packages().await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "the packages of the library cannot be read; they are brought in again");
            return Vec::new();
        }
    };
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || {
        let held = store.inventory();
        let mut stored: Vec<_> = known
            .iter()
            .filter_map(|row| held.iter().find(|package| package.digest == row.digest && package.published))
            .collect();
        // An object may have gone back to an older version.
        stored.sort_by_key(|package| (package.current, package.superseded_at_seconds));
        stored.into_iter().filter_map(|package| described(&store, package.digest)).collect()
    });
    read.await.unwrap_or_default()
}

/// Whether the objects, read with these errors, tell what nobody wants any more. In a cluster each object that is refused
/// is known by its name, and keeps what it names; what a broken file in a directory names nobody knows.
pub(super) fn may_prune(errors: &[ObjectError], in_cluster: bool) -> bool {
    errors.iter().all(|error| in_cluster && error.scope == ErrorScope::Object)
}

/// Deletes from the library what no object names and what retention gives up. Returns what went.
pub(super) async fn prune_library(
    store: Arc<NodeStore>,
    database: Arc<dyn MetadataStore>,
    desired: Arc<DesiredState>,
    retention_seconds: u64,
) -> Vec<(PackageKey, Digest)> {
    let pruned = tokio::task::spawn_blocking(move || {
        let before = store.inventory();
        for package in &before {
            // Of an object that is being deleted, what was in the library tells which nodes to wait for.
            let distribution = &package.key.distribution;
            let is_named =
                desired.distributions.contains_key(distribution) || desired.objects.packages.contains_key(distribution);
            if !is_named && let Err(error) = store.delete(package.digest) {
                tracing::warn!(package = %package.key, %error, "package cannot be deleted from the library");
            }
        }
        let now = Timestamp::now();
        // What waits for its time is not in force: the version before it is the current one until then.
        let in_force = |distribution: &&Distribution| distribution.not_before.is_none_or(|time| time <= now);
        for distribution in desired.distributions.values().filter(in_force) {
            // An object that went back to an older version: that one counts as the current one.
            let wanted = before.iter().find(|package| package.published && package.key == distribution.package());
            if let Some(Err(error)) =
                wanted.filter(|package| !package.current).map(|package| store.publish(package.digest))
            {
                tracing::warn!(package = %distribution.package(), %error, "version cannot be made the library's current one");
                continue;
            }
            storing::prune(&store, &distribution.key, distribution.retention_versions, retention_seconds);
        }
        let after = store.inventory();
        before
            .into_iter()
            .filter(|package| !after.iter().any(|kept| kept.digest == package.digest))
            .map(|package| (package.key, package.digest))
            .collect::<Vec<_>>()
    });
    let pruned = pruned.await.unwrap_or_default();
    for (key, _) in &pruned {
        if let Err(error) = database.remove_package(key).await {
            tracing::warn!(package = %key, %error, "package cannot be removed from the database");
        }
    }
    pruned
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::database;
    use crate::desired::{DesiredSource, DirectorySource};
    use crate::store::tests::fixture::{Root, TestPackage, content, distribution, file};

    const OFFICE: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\nspec: {}\n";

    /// An office, and version 2 of the package from that time on, if at all.
    async fn desired(not_before: Option<&str>) -> Arc<DesiredState> {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("office.yaml"), OFFICE).unwrap();
        let key = distribution();
        if let Some(time) = not_before {
            let object = format!(
                "apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
                 metadata: {{namespace: {}, name: {}}}\n\
                 spec: {{version: '2', source: {{uri: 'file:x'}}, schedule: {{notBefore: '{time}'}}, \
                 retention: {{versions: 1}}}}\n",
                key.namespace, key.name
            );
            fs::write(directory.path().join("package.yaml"), object).unwrap();
        }
        let update = DirectorySource::new(directory.path()).next().await;
        assert!(update.errors.is_empty(), "{:?}", update.errors);
        update.state.unwrap()
    }

    fn current(store: &NodeStore) -> Vec<(String, bool)> {
        let mut versions: Vec<_> =
            store.inventory().into_iter().map(|package| (package.key.version.to_string(), package.current)).collect();
        versions.sort();
        versions
    }

    #[test]
    fn refused_object_of_a_cluster_keeps_nothing_but_its_own() {
        let with = |scope| {
            let [object, field, reason, message] = [(); 4].map(|()| String::new());
            [ObjectError { object, field, reason, message, scope }]
        };
        assert!(may_prune(&with(ErrorScope::Object), true) && may_prune(&[], true) && may_prune(&[], false));
        assert!(!may_prune(&with(ErrorScope::Set), true));
        assert!(!may_prune(&with(ErrorScope::Object), false));
    }

    #[tokio::test]
    async fn version_becomes_the_current_one_of_the_library_in_its_time_and_what_no_object_names_goes() {
        let root = Root::new();
        let (store, folder) = (Arc::new(root.open()), TempDir::new().unwrap());
        let database = database::open(None, folder.path()).await.unwrap();
        for (version, sequence) in [("2", 1), ("1", 2)] {
            TestPackage::with_sequence(version, sequence, vec![file("a", content(sequence, 1_000))]).deliver(&store);
        }
        let prune = async |desired| {
            let pruned = prune_library(store.clone(), database.clone(), desired, 0).await;
            pruned.into_iter().map(|(key, _)| key.version.to_string()).collect::<Vec<_>>()
        };
        assert!(prune(desired(Some("2999-01-01T00:00:00Z")).await).await.is_empty());
        assert_eq!(current(&store), [("1".to_owned(), true), ("2".to_owned(), false)]);
        assert_eq!(prune(desired(Some("2000-01-01T00:00:00Z")).await).await, ["1"]);
        assert_eq!(current(&store), [("2".to_owned(), true)]);
        assert_eq!(prune(desired(None).await).await, ["2"]);
        assert!(current(&store).is_empty());
    }
}
