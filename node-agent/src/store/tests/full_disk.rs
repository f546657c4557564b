//! A disk that is full for a while. The test starts itself again in a mount namespace with a small file system.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::fixture::{Root, TestPackage, content, file};
use crate::store::{NodeStore, StoreError};

/// Room for the journal, one package and the space that stays free.
const SMALL_DISK: &str = "size=48m";

#[test]
fn a_full_disk_is_said_clearly_and_loses_nothing() {
    let mount = tempfile::tempdir().unwrap();
    let in_namespace = |script: &str| {
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(mount.path()).arg(SMALL_DISK);
        unshare
    };
    let mounting = r#"mount -t tmpfs -o "$2" tmpfs "$1""#;
    if !in_namespace(mounting).output().is_ok_and(|output| output.status.success()) {
        // People without the rights or the tools may go without this test; root has the rights, and CI the tools.
        let must_run = rustix::process::geteuid().is_root() || env::var_os("CI").is_some();
        assert!(!must_run, "unshare and mount did not give us a small file system");
        eprintln!("NOT RUN: this machine does not let us mount a small file system");
        return;
    }
    let mut inner = in_namespace(&format!(r#"{mounting} && TMPDIR="$1" exec "$3" --exact --ignored --nocapture "$4""#));
    inner.arg(env::current_exe().unwrap()).arg("store::tests::full_disk::on_a_small_disk");
    let output = inner.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs a small file system: a_full_disk_is_said_clearly_and_loses_nothing runs it on one"]
fn on_a_small_disk() {
    let root = Root::new();
    let store = root.open();
    let files = (0..40).map(|number| file(format!("f{number}"), content(number, 300_000)));
    let (first, second) =
        (TestPackage::new("1", files.collect()), TestPackage::new("2", vec![file("x", content(99, 100_000))]));
    first.put_manifest(&store);
    store.prepare(first.digest()).unwrap();
    let filler = root.0.path().join("filler");
    fill(&filler);

    let refused = store.put_root(&second.root).unwrap_err();
    assert!(matches!(refused, StoreError::DiskFull { .. }), "{refused}");
    assert!(refused.to_string().contains("no space left"), "{refused}");
    first.write(&store, 0..first.count());
    assert_flush_refused(&store);

    fs::remove_file(filler).unwrap();
    assert!(store.prepare(first.digest()).unwrap().available.is_full(), "what was written stays");
    store.flush().unwrap();
    store.publish(first.digest()).unwrap();
    first.assert_published_in(&store);
    second.deliver(&store);
    second.assert_published_in(&store);
}

fn fill(path: &Path) {
    let mut filler = File::create(path).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
}

fn assert_flush_refused(store: &NodeStore) {
    let refused = store.flush().unwrap_err();
    assert!(refused.lost.is_empty());
    assert_eq!(refused.source.reason(), "DiskFull");
}
