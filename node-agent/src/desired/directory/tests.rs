//! Directories that are read, edited, broken and repaired while they are watched.

use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::desired::error::ErrorScope;

const OFFICE: &str = "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\nspec: {}\n";
/// Long enough for a look at the directory on a busy machine.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(30);

fn package(version: &str, source: &str) -> String {
    format!(
        "apiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\nmetadata: {{name: app}}\n\
         spec: {{version: '{version}', source: {{uri: '{source}'}}}}\n"
    )
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn source(directory: &TempDir) -> DirectorySource {
    DirectorySource::with_environment(directory.path(), Arc::new(|_: &str| None))
}

async fn news(source: &mut DirectorySource) -> DesiredUpdate {
    timeout(NEWS_WAIT_MAX, source.next()).await.expect("the directory was looked at")
}

fn only_version(update: &DesiredUpdate) -> (String, u64) {
    let distribution = update.state.as_ref().unwrap().distributions.values().next().unwrap().clone();
    (distribution.version.to_string(), distribution.generation)
}

#[tokio::test]
async fn files_are_read_at_once_and_foreign_ones_left_alone() {
    let directory =
        directory(&[("a.yaml", OFFICE), (".hidden.yaml", "["), ("notes.txt", "["), ("b.yml", &package("1", "file:x"))]);
    fs::create_dir(directory.path().join("folder.yaml")).unwrap();
    let update = news(&mut source(&directory)).await;
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    assert_eq!(only_version(&update), ("1".into(), 1));
}

#[tokio::test]
async fn edits_are_news_and_bad_edits_leave_the_last_good_objects_in_force() {
    let directory = directory(&[("a.yaml", OFFICE), ("b.yaml", &package("1", "file:x"))]);
    let mut source = source(&directory);
    news(&mut source).await;
    let path = directory.path().join("b.yaml");

    fs::write(&path, package("2", "file:y")).unwrap();
    let update = news(&mut source).await;
    assert_eq!(only_version(&update), ("2".into(), 2));

    // Same version, other content.
    fs::write(&path, package("2", "file:z")).unwrap();
    let update = news(&mut source).await;
    assert_eq!(
        (update.errors[0].field.as_str(), update.errors[0].reason.as_str()),
        ("spec.source.uri", "VersionReused")
    );
    assert_eq!(only_version(&update), ("2".into(), 2));

    // A value that concerns this package.
    fs::write(&path, package("3", "gopher://x")).unwrap();
    let update = news(&mut source).await;
    assert_eq!(update.errors[0].scope, ErrorScope::Object);
    assert_eq!(only_version(&update), ("2".into(), 2));

    // No YAML at all.
    fs::write(&path, "{").unwrap();
    let update = news(&mut source).await;
    assert_eq!(update.errors[0].object, "b.yaml");
    assert!(update.state.is_none());

    fs::write(&path, package("3", "file:z")).unwrap();
    let update = news(&mut source).await;
    assert!(update.errors.is_empty());
    assert_eq!(only_version(&update), ("3".into(), 3));

    fs::remove_file(&path).unwrap();
    assert!(news(&mut source).await.state.unwrap().distributions.is_empty());
}

#[tokio::test]
async fn a_touched_file_is_no_news() {
    let directory = directory(&[("a.yaml", OFFICE)]);
    let mut source = source(&directory);
    news(&mut source).await;
    fs::write(directory.path().join("a.yaml"), OFFICE).unwrap();
    assert!(timeout(Duration::from_secs(3), source.next()).await.is_err());
    fs::write(directory.path().join("b.yaml"), package("1", "file:x")).unwrap();
    assert_eq!(only_version(&news(&mut source).await).0, "1");
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let directory = directory(&[("a.yaml", OFFICE)]);
    let mut source = source(&directory);
    // On a busy machine the news may be there before the wait is cancelled.
    if timeout(Duration::ZERO, source.next()).await.is_err() {
        assert!(news(&mut source).await.state.is_some());
    }
}

#[tokio::test]
async fn files_replaced_by_links_are_news() {
    let directory = directory(&[("one.txt", OFFICE), ("two.txt", &OFFICE.replace("central", "other"))]);
    let link = directory.path().join("offices.yaml");
    symlink("one.txt", &link).unwrap();
    let mut source = source(&directory);
    assert_eq!(news(&mut source).await.state.unwrap().offices.central().as_str(), "central");
    fs::remove_file(&link).unwrap();
    symlink("two.txt", &link).unwrap();
    assert_eq!(news(&mut source).await.state.unwrap().offices.central().as_str(), "other");
}

async fn check_unusable(directory: &Path, object: &str, reason: &str) {
    let mut source = DirectorySource::with_environment(directory, Arc::new(|_: &str| None));
    let update = news(&mut source).await;
    assert!(update.state.is_none());
    let error = &update.errors[0];
    assert_eq!((error.object.as_str(), error.reason.as_str()), (object, reason), "{error}");
    assert_eq!(error.scope, ErrorScope::Set);
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_refused_with_their_reason() {
    let empty = directory(&[("notes.txt", OFFICE)]);
    let shown = |path: &Path| path.display().to_string();
    check_unusable(empty.path(), &shown(empty.path()), "DirectoryEmpty").await;
    let missing = empty.path().join("missing");
    check_unusable(&missing, &shown(&missing), "DirectoryUnreadable").await;
    let large = directory(&[("large.yaml", &"#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1))]);
    check_unusable(large.path(), "large.yaml", "FileTooLarge").await;
    let foreign = directory(&[]);
    fs::write(foreign.path().join("x.yaml"), b"\xff\xfe").unwrap();
    check_unusable(foreign.path(), "x.yaml", "MalformedYaml").await;
    let dangling = directory(&[]);
    symlink("nowhere", dangling.path().join("x.yaml")).unwrap();
    check_unusable(dangling.path(), "x.yaml", "FileUnreadable").await;
}

#[tokio::test]
async fn the_example_in_the_repository_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let environment = |name: &str| (name == "CARGO").then(|| OsString::from("/toolchain/bin/cargo"));
    let mut source = DirectorySource::with_environment(&example, Arc::new(environment));
    let update = news(&mut source).await;
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    let state = update.state.unwrap();
    assert_eq!(state.embedded_nodes.values().copied().collect::<Vec<_>>(), [2, 2, 3]);
    assert_eq!(state.distributions.len(), 2);
    let uris: Vec<String> = state.distributions.values().map(|one| one.source.uri.to_string()).collect();
    assert_eq!(uris[0], "file:///toolchain/lib/rustlib");
    assert!(uris[1].ends_with("/examples/quickstart/store-settings"), "{uris:?}");
}

#[tokio::test]
async fn edits_are_news_to_a_driver_that_never_rests() {
    let directory = directory(&[("a.yaml", OFFICE), ("b.yaml", &package("1", "file:x"))]);
    let stop = CancellationToken::new();
    let mut updates = crate::desired::watch(source(&directory), stop.clone());
    assert_eq!(only_version(&updates.recv().await.unwrap()), ("1".into(), 1));
    fs::write(directory.path().join("b.yaml"), package("2", "file:x")).unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let edited = timeout(NEWS_WAIT_MAX, async {
        loop {
            tokio::select! {
                Some(update) = updates.recv() => return update,
                _ = tick.tick() => {}
            }
        }
    });
    assert_eq!(only_version(&edited.await.unwrap()), ("2".into(), 2));
    stop.cancel();
}
