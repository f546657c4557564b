//! Disks that fill up in the middle of a write, at a node and at the server's library. The runs see small file systems
//! in mount namespaces of their own; what is on them is looked at through /proc.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::confined::{in_namespace, not_run};
use crate::objects::{content, office, package, two_offices};
use crate::place::{DONE, PACKAGE_FAILED, Place, Run};

/// Mounts what `$1` to `$3` say, and becomes the rest.
const MOUNT_AND_RUN: &str = r#"mount -t "$1" -o "$2" "$3" "$4" && shift 4 && exec "$@""#;

/// `peerdist up` with a file system of its own at `folder`. `None` when this machine does not allow that.
fn with_disk(place: &Place, [kind, options, device]: [&str; 3], folder: &Path, more: &[&str]) -> Option<Command> {
    fs::create_dir_all(folder).unwrap();
    let given = [kind, options, device, folder.to_str().unwrap()];
    let mut command = in_namespace(place, "--mount", MOUNT_AND_RUN, &given)?;
    command.args(more);
    Some(command)
}

/// The folder as the run sees it.
fn inside(run: &Run, folder: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", run.process_id()));
    root.join(folder.strip_prefix("/").unwrap())
}

#[test]
fn archive_that_outgrows_the_library_is_refused_and_the_others_arrive() {
    let place = Place::new(107);
    let right = content("right", 1 << 20);
    place.write("right/data", &right);
    make_bomb(&place, 300 << 20);
    let objects = [
        two_offices(),
        package("bomb", "1", &place.uri("bomb.tar.gz"), "unpack: Auto"),
        package("right", "1", &place.uri("right"), ""),
    ];
    place.objects(&objects.concat());
    let disk = ["tmpfs", "size=160m", "tmpfs"];
    let Some(command) = with_disk(&place, disk, &place.server(), &["--once"]) else { return };

    let ended = Run::start(command).wait();
    assert_eq!(ended.code, Some(PACKAGE_FAILED), "{}", ended.said);
    let words = ["the server's library needs", "bytes are free", "make room"];
    ended.assert_error("PackageDistribution demo/bomb", "spec.source.uri", "DiskFull", &words);
    assert_eq!(ended.errors().len(), 1);
    for node in ["central-1", "store-1", "store-2"] {
        place.assert_file(node, "right", "data", &right);
        assert!(!place.current(node, "bomb").exists());
    }
}

/// An archive of zeros: small itself, and its size is not known before it is unpacked.
fn make_bomb(place: &Place, bytes: u64) {
    let zeros = File::create(place.path("zeros")).unwrap();
    zeros.set_len(bytes).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(place.path("bomb.tar.gz")).arg("-C").arg(place.path("")).arg("zeros");
    assert!(tar.status().unwrap().success());
    fs::remove_file(place.path("zeros")).unwrap();
}

#[test]
fn node_whose_disk_fills_up_says_so_and_goes_on_when_there_is_room() {
    let place = Place::new(108);
    let (first, second) = (content("first", 1 << 20), content("second", 40 << 20));
    place.write("first/data", &first);
    place.write("second/data", &second);
    // The link gives the filler time: the second package takes half a minute at least.
    let store = "type: Wired, uplink: {backgroundMaxBitsPerSecond: 10M}";
    let offices = office("central", None, 1, "type: Wired") + &office("store", Some("central"), 2, store);
    let objects = offices + &package("first", "1", &place.uri("first"), "");
    place.objects(&objects);
    // A file system without preallocation, so that a write in the middle can meet a full disk. It has room for both
    // packages and what a node leaves free, and not for much more, so that it is full soon.
    let image = place.write("image", &[]);
    File::options().write(true).open(&image).unwrap().set_len(96 << 20).unwrap();
    let made = Command::new("mkfs.ext2").args(["-q", "-F", "-m", "0"]).arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        not_run("mkfs.ext2 is not installed, its package is e2fsprogs");
        return;
    }
    let folder = place.node("store-2");
    let image = image.to_str().unwrap();
    let Some(command) = with_disk(&place, ["ext2", "loop", image], &folder, &[]) else { return };

    let mut run = Run::start(command);
    let disk = inside(&run, &folder);
    let current = |package: &str| disk.join("packages/demo").join(package).join("current/data");
    run.until("the first package is there", || current("first").exists());
    place.objects(&(objects + &package("second", "1", &place.uri("second"), "")));
    let staging = disk.join("staging");
    run.until("the second package has room", || has_file(&staging, "data"));
    let filler = disk.join("filler");
    fill(&filler);
    run.until_said("store-2: not enough space: need");
    assert!(!current("second").exists());
    assert_eq!(fs::read(current("first")).unwrap(), first, "what was published stays");

    fs::remove_file(filler).unwrap();
    run.until_said("demo/second 1: store 100 %, 2/2 nodes");
    assert!(fs::read(current("second")).unwrap() == second);
    let ended = run.interrupt();
    assert_eq!(ended.code, Some(DONE), "{}", ended.said);
    ended.assert_complete("second", "store", 2);
}

fn has_file(folder: &Path, name: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.path().join(name).exists())
}

fn fill(path: &Path) {
    let mut filler = File::create(path).unwrap();
    let zeros = vec![0; 1 << 20];
    while filler.write_all(&zeros).is_ok() {}
    while filler.write_all(&zeros[..4096]).is_ok() {}
}
