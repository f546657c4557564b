//! The corpus: archives that must unpack, and archives that must be refused with their reason and without a byte
//! written outside the staging tree.

use std::fs;
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ::tar::{EntryType, Header};
use peerdist_core::manifest::PathFault;
use tempfile::TempDir;

use super::*;

const LIMIT_BYTES: u64 = 64 << 20;

struct Unpacked {
    /// The tree lies in `folder/staging/tree`.
    folder: TempDir,
    result: Result<Option<Format>, SourceError>,
}

impl Unpacked {
    fn tree(&self) -> Vec<String> {
        let root = self.folder.path().join("staging/tree");
        let mut found = Vec::new();
        list(&root, &root, &mut found);
        found
    }

    fn refusal(self) -> EntryRefusal {
        match self.result {
            Err(SourceError::EntryRefused { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn reason(self) -> &'static str {
        self.result.unwrap_err().reason()
    }
}

/// Unpacks and checks that nothing was written beside the tree.
fn unpack(archive: &[u8]) -> Unpacked {
    let folder = tempfile::tempdir().unwrap();
    let tree_path = folder.path().join("staging/tree");
    fs::create_dir_all(&tree_path).unwrap();
    fs::write(folder.path().join("victim"), b"untouched").unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let result = Format::detect(&file, "test").and_then(|format| {
        let Some(format) = format else { return Ok(None) };
        let (mut tree, mut disk) =
            (TreeWriter::open(&tree_path).unwrap(), DiskAdmission::new(&tree_path, Some(LIMIT_BYTES)).unwrap());
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let mut unpacking =
            Unpacking { uri: "test", tree: &mut tree, disk: &mut disk, progress: &progress, cancel: &cancel };
        unpacking.run(&file, format).map(|()| Some(format))
    });
    let mut outside = Vec::new();
    list(folder.path(), folder.path(), &mut outside);
    outside.retain(|line| !line.starts_with("staging/tree/") || line == "staging/tree/ 0");
    assert_eq!(outside, ["staging/ 0", "staging/tree/ 0", "victim 9"]);
    assert_eq!(fs::read(folder.path().join("victim")).unwrap(), b"untouched");
    Unpacked { folder, result }
}

fn list(root: &Path, directory: &Path, found: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_symlink() {
            found.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else if metadata.is_dir() {
            found.push(format!("{name}/ 0"));
            list(root, &path, found);
        } else {
            let executable = if metadata.permissions().mode() & 0o111 != 0 { "*" } else { "" };
            found.push(format!("{name}{executable} {}", metadata.len()));
        }
    }
}

/// One raw tar member: nothing about it is checked or corrected.
struct Member<'a> {
    name: &'a [u8],
    kind: EntryType,
    link: &'a [u8],
    mode: u32,
    data: &'a [u8],
    announced_bytes: u64,
}

fn member<'a>(name: &'a (impl AsRef<[u8]> + ?Sized), kind: EntryType, data: &'a [u8]) -> Member<'a> {
    Member { name: name.as_ref(), kind, link: b"", mode: 0o644, data, announced_bytes: data.len() as u64 }
}

fn file<'a>(name: &'a (impl AsRef<[u8]> + ?Sized), data: &'a [u8]) -> Member<'a> {
    member(name, EntryType::Regular, data)
}

fn link<'a>(name: &'a str, target: &'a str) -> Member<'a> {
    Member { link: target.as_bytes(), ..member(name, EntryType::Symlink, b"") }
}

fn tar_of(members: &[Member<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..member.name.len()].copy_from_slice(member.name);
        header.as_mut_bytes()[157..157 + member.link.len()].copy_from_slice(member.link);
        header.set_mode(member.mode);
        header.set_size(member.announced_bytes);
        header.set_entry_type(member.kind);
        if member.kind == EntryType::GNUSparse {
            header.as_mut_bytes()[483..495].copy_from_slice(b"00000000000\0");
        }
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(member.data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let content = [key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = content.len() + 2;
    while length != content.len() + 1 + length.to_string().len() {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", &content].concat()
}

/// A raw zip: stored entries of Unix with the given mode.
fn zip_of(entries: &[(&[u8], u32, &[u8])]) -> Vec<u8> {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, mode, data) in entries {
        let offset = body.len() as u32;
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let mut common = Vec::new();
        common.extend_from_slice(&[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
        for number in [crc.sum(), data.len() as u32, data.len() as u32] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        body.extend_from_slice(b"PK\x03\x04");
        body.extend_from_slice(&common);
        body.extend_from_slice(name);
        body.extend_from_slice(data);
        directory.extend_from_slice(b"PK\x01\x02\x14\x03");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(mode << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name);
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (size, start) = ((directory.len() as u32).to_le_bytes(), (body.len() as u32).to_le_bytes());
    [&body[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &size, &start, &[0, 0]].concat()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(Cursor::new(bytes), 1).unwrap()
}

/// A frame of one stored block that asks for a window of a power of two.
fn zstandard_frame(window_bits: u8, content: &[u8]) -> Vec<u8> {
    let block = (((content.len() as u32) << 3) | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, (window_bits - 10) << 3][..], &block[..3], content].concat()
}

#[test]
fn every_format_unpacks_to_the_same_tree() {
    let long = format!("d/{}", "n".repeat(200));
    let members = [
        member("./", EntryType::Directory, b""),
        file("./late/inner", b"inner"),
        member("./late", EntryType::Directory, b""),
        Member { mode: 0o4755, ..file("tool", b"#!") },
        file("empty", b""),
        link("late/link", "../tool"),
        Member { name: b"././@LongLink", ..member("", EntryType::GNULongName, long.as_bytes()) },
        file("cut", b"long"),
    ];
    let expected = |unpacked: Unpacked, format| {
        assert_eq!(unpacked.result.as_ref().unwrap(), &Some(format));
        let long = format!("{long} 4");
        let tree = ["d/ 0", &long, "empty 0", "late/ 0", "late/inner 5", "late/link -> ../tool", "tool* 2"];
        assert_eq!(unpacked.tree(), tree);
        let mode = |path: &str| {
            let path = unpacked.folder.path().join("staging/tree").join(path);
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode("tool"), mode("empty")), (0o555, 0o444));
    };
    let tar = tar_of(&members);
    expected(unpack(&gzipped(&tar)), Format::TarGzip);
    expected(unpack(&zstandard(&tar)), Format::TarZstd);
    let (first, second) = tar.split_at(tar.len() / 2);
    expected(unpack(&[gzipped(first), gzipped(second)].concat()), Format::TarGzip);
    expected(unpack(&[zstandard(first), zstandard(second)].concat()), Format::TarZstd);
    expected(unpack(&tar), Format::Tar);
    let zip = zip_of(&[
        (b"./", 0o40755, b""),
        (b"late/inner", 0o100644, b"inner"),
        (b"late/", 0o40755, b""),
        (b"tool", 0o104755, b"#!"),
        (b"empty", 0, b""),
        (b"late/link", 0o120777, b"../tool"),
        (long.as_bytes(), 0o100600, b"long"),
    ]);
    expected(unpack(&zip), Format::Zip);
}

#[test]
fn pax_names_and_global_headers_are_understood() {
    let name = [b"d/".as_slice(), &[0xff; 150]].concat();
    let records = [pax("mtime", b"1.5"), pax("path", &name)].concat();
    let unpacked = unpack(&tar_of(&[
        member("pax_global_header", EntryType::XGlobalHeader, &pax("comment", b"0123")),
        member("x", EntryType::XHeader, &records),
        file("cut", b"12"),
    ]));
    assert!(unpacked.result.is_ok());
    assert_eq!(unpacked.tree().len(), 2);
}

#[test]
fn hostile_tar_members_are_refused_and_nothing_is_written_outside() {
    let check = |refusal, members: &[Member<'_>]| {
        let tar = tar_of(members);
        for archive in [gzipped(&tar), tar] {
            assert_eq!(unpack(&archive).refusal(), refusal);
        }
    };
    let name = EntryRefusal::Name;
    check(name(PathFault::ParentComponent), &[file("../victim", b"x")]);
    check(name(PathFault::ParentComponent), &[file("a/../../victim", b"x")]);
    check(name(PathFault::ParentComponent), &[member("../new", EntryType::Directory, b"")]);
    check(name(PathFault::Absolute), &[file("/tmp/victim", b"x")]);
    check(name(PathFault::Empty), &[file(".", b"x")]);
    check(EntryRefusal::Link(PathFault::Absolute), &[link("out", "/etc/passwd")]);
    check(EntryRefusal::Link(PathFault::TargetOutside), &[link("out", "../../victim")]);
    check(EntryRefusal::Link(PathFault::TargetClimbsLate), &[link("p", "."), link("out", "p/p/../../../victim")]);
    check(EntryRefusal::Link(PathFault::Empty), &[link("out", "")]);
    check(EntryRefusal::ThroughLink, &[link("d", "."), file("d/x", b"x")]);
    check(EntryRefusal::ThroughLink, &[link("d", "e"), member("d", EntryType::Directory, b"")]);
    check(EntryRefusal::ThroughFile, &[file("d", b""), file("d/x", b"x")]);
    check(EntryRefusal::Duplicate, &[file("a", b"1"), file("./a", b"2")]);
    check(EntryRefusal::Duplicate, &[file("a/b", b"1"), file("a", b"2")]);
    check(EntryRefusal::Duplicate, &[file("a", b"1"), link("a", "b")]);
    check(EntryRefusal::HardLink, &[Member { link: b"../victim", ..member("hard", EntryType::Link, b"") }]);
    check(EntryRefusal::Device, &[member("null", EntryType::Char, b"")]);
    check(EntryRefusal::Device, &[member("disk", EntryType::Block, b"")]);
    check(EntryRefusal::NamedPipe, &[member("pipe", EntryType::Fifo, b"")]);
    check(EntryRefusal::Sparse, &[member("holes", EntryType::GNUSparse, b"")]);
    check(EntryRefusal::UnknownKind, &[member("volume", EntryType::new(b'V'), b"")]);
}

#[test]
fn hostile_long_names_are_refused() {
    let check = |refusal, name: &[u8]| {
        let gnu = [member("L", EntryType::GNULongName, name), file("cut", b"x")];
        assert_eq!(unpack(&tar_of(&gnu)).refusal(), refusal);
        let records = pax("path", name);
        let pax = [member("x", EntryType::XHeader, &records), file("cut", b"x")];
        assert_eq!(unpack(&tar_of(&pax)).refusal(), refusal);
    };
    check(EntryRefusal::Name(PathFault::ParentComponent), b"a/../../victim");
    check(EntryRefusal::Name(PathFault::Absolute), b"/etc/victim");
    check(EntryRefusal::Name(PathFault::ComponentTooLong), &[b'n'; 300]);
    check(EntryRefusal::Name(PathFault::TooDeep), &b"d/".repeat(200));
    check(EntryRefusal::Name(PathFault::TooLong), &[[b'n'; 200].as_slice(), b"/"].concat().repeat(30));
    let records = pax("linkpath", b"../../victim");
    let members = [member("x", EntryType::XHeader, &records), link("out", "fine")];
    assert_eq!(unpack(&tar_of(&members)).refusal(), EntryRefusal::Link(PathFault::TargetOutside));
    let records = pax("GNU.sparse.major", b"1");
    let members = [member("x", EntryType::XHeader, &records), file("holes", b"x")];
    assert_eq!(unpack(&tar_of(&members)).refusal(), EntryRefusal::Sparse);
}

#[test]
fn endless_headers_and_padding_do_not_fill_the_memory() {
    let name = vec![b'n'; 20 << 20];
    let tar = tar_of(&[file("first", b"x"), member("L", EntryType::GNULongName, &name), file("cut", b"x")]);
    assert_eq!(unpack(&gzipped(&tar)).reason(), "ArchiveInvalid");
    let mut tar = tar_of(&[file("first", b"x")]);
    tar.resize(tar.len() + (80 << 20), 0);
    assert_eq!(unpack(&zstandard(&tar)).reason(), "ArchiveInvalid");
}

#[test]
fn zstandard_gets_no_more_memory_than_is_said_wherever_it_asks_for_more() {
    let tar = tar_of(&[file("first", b"x"), file("second", &[7; 1000])]);
    let unpacked = unpack(&zstandard_frame(25, &tar));
    assert_eq!((unpacked.result.as_ref().unwrap(), unpacked.tree().len()), (&Some(Format::TarZstd), 2));
    // In the first header, between two entries, and in the midst of the second file.
    for begin in [0, 2 * TAR_BLOCK_BYTES, 3 * TAR_BLOCK_BYTES + 100] {
        let (first, second) = tar.split_at(begin);
        let head = if first.is_empty() { Vec::new() } else { zstandard_frame(25, first) };
        let error = unpack(&[head, zstandard_frame(26, second)].concat()).result.unwrap_err();
        assert_eq!(error.reason(), "ArchiveInvalid");
        assert!(error.to_string().contains("compress it with a window of at most 32 MiB"), "{begin}: {error}");
        assert!(!error.to_string().contains("damaged"), "{begin}: {error}");
    }
}

#[test]
fn global_headers_are_counted_and_end_when_nobody_wants_the_package_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let mut unpacking = Unpacking {
        uri: "test",
        tree: &mut TreeWriter::open(folder.path()).unwrap(),
        disk: &mut DiskAdmission::new(folder.path(), None).unwrap(),
        progress: &progress,
        cancel: &cancel,
    };
    let mut members = u64::from(ENTRIES_MAX) - 1;
    unpacking.count(&mut members).unwrap();
    assert!(matches!(unpacking.count(&mut members), Err(SourceError::TooManyEntries { .. })));
    let archive = tar_of(&[member("g", EntryType::XGlobalHeader, b""), member("g", EntryType::XGlobalHeader, b"")]);
    super::tar::unpack(&mut unpacking, &archive[..]).unwrap();
    cancel.cancel();
    assert!(matches!(super::tar::unpack(&mut unpacking, &archive[..]), Err(SourceError::Cancelled)));
}

#[test]
fn bombs_end_at_the_limit_of_the_disk() {
    let huge = Member { announced_bytes: 1 << 32, ..file("huge", b"x") };
    assert_eq!(unpack(&tar_of(&[huge])).reason(), "DiskFull");
    let zeros = vec![0; 40 << 20];
    let unpacked = unpack(&gzipped(&tar_of(&[file("a", &zeros), file("b", &zeros)])));
    match unpacked.result.as_ref().unwrap_err() {
        SourceError::DiskFull { need, have, .. } => assert_eq!((*need, *have), (40 << 20, 24 << 20)),
        error => panic!("{error}"),
    }
    assert_eq!(unpacked.tree(), ["a 41943040"]);
}

#[test]
fn damaged_archives_are_refused() {
    let content = vec![7; 100_000];
    let tar = tar_of(&[file("first", b"x"), file("second", &content)]);
    let cut = |archive: &[u8]| archive[..archive.len() * 3 / 4].to_vec();
    let mut noise = content.clone();
    noise.iter_mut().enumerate().for_each(|(index, byte)| *byte = ((index * index) >> 3) as u8);
    let noisy = tar_of(&[file("first", b"x"), file("second", &noise)]);
    for archive in [cut(&tar), cut(&gzipped(&noisy)), cut(&zstandard(&noisy))] {
        assert!(["ArchiveInvalid", "EntryRefused"].contains(&unpack(&archive).reason()));
    }
    let mut flipped = gzipped(&noisy);
    let end = flipped.len() - 6;
    flipped[end] ^= 1;
    assert_eq!(unpack(&flipped).reason(), "ArchiveInvalid");
    let zip = zip_of(&[(b"a", 0o100644, b"content")]);
    assert_eq!(unpack(&zip[..zip.len() - 10]).reason(), "ArchiveInvalid");
    let mut flipped = zip.clone();
    flipped[32] ^= 1;
    assert_eq!(unpack(&flipped).reason(), "ArchiveInvalid");
}

#[test]
fn a_tar_that_was_cut_says_how_much_of_which_entry_is_missing() {
    let tar = tar_of(&[file("first", b"x"), file("big", &[7; 100_000])]);
    // Two headers and the block of the first file come before.
    let refusal = unpack(&tar[..3 * TAR_BLOCK_BYTES + 60_000]).refusal();
    assert_eq!(refusal, EntryRefusal::CutShort { announced_bytes: 100_000, carried_bytes: 60_000 });
    let said = "the archive announces 100000 bytes and carries 60000: it may be cut short; make it anew";
    assert_eq!(refusal.to_string(), said);
}

#[test]
fn names_promise_archives_by_their_ending() {
    for (name, ending) in [
        ("app.tar.gz", Some(".tar.gz")),
        ("APP.TGZ", Some(".tgz")),
        ("app.tar.zst", Some(".tar.zst")),
        ("app.tar", Some(".tar")),
        ("app.zip", Some(".zip")),
        ("prices.csv", None),
        ("prices.csv.gz", None),
        ("zip", None),
    ] {
        assert_eq!(Format::promised_by(name.as_bytes()), ending, "{name}");
    }
}

#[test]
fn hostile_zip_entries_are_refused_and_nothing_is_written_outside() {
    let check = |refusal, entries: &[(&[u8], u32, &[u8])]| assert_eq!(unpack(&zip_of(entries)).refusal(), refusal);
    check(EntryRefusal::Name(PathFault::ParentComponent), &[(b"../victim", 0o100644, b"x")]);
    check(EntryRefusal::Name(PathFault::ParentComponent), &[(b"../new/", 0o40755, b"")]);
    check(EntryRefusal::Name(PathFault::Absolute), &[(b"/tmp/victim", 0o100644, b"x")]);
    check(EntryRefusal::Name(PathFault::Nul), &[(b"a\0b", 0o100644, b"x")]);
    check(EntryRefusal::Name(PathFault::ComponentTooLong), &[(&[b'n'; 300], 0o100644, b"x")]);
    check(EntryRefusal::Link(PathFault::TargetOutside), &[(b"out", 0o120777, b"../victim")]);
    check(EntryRefusal::Link(PathFault::Absolute), &[(b"out", 0o120777, b"/etc/passwd")]);
    check(EntryRefusal::ThroughLink, &[(b"d", 0o120777, b"."), (b"d/x", 0o100644, b"x")]);
    check(EntryRefusal::Duplicate, &[(b"a", 0o100644, b"1"), (b"a", 0o100644, b"2")]);
    check(EntryRefusal::Device, &[(b"null", 0o20666, b"")]);
    check(EntryRefusal::NamedPipe, &[(b"pipe", 0o10644, b"")]);
    check(EntryRefusal::Socket, &[(b"socket", 0o140644, b"")]);
}

#[test]
fn a_zip_whose_headers_disagree_is_refused() {
    let mut zip = zip_of(&[(b"shown", 0o100644, b"content")]);
    let local_name = zip.windows(5).position(|window| window == b"shown").unwrap();
    zip[local_name] = b'x';
    assert_eq!(unpack(&zip).reason(), "ArchiveInvalid");
    let mut zip = zip_of(&[(b"small", 0o100644, b"content")]);
    let central = zip.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    zip[central + 24] = 3;
    zip[22] = 3;
    let unpacked = unpack(&zip);
    assert!(["ArchiveInvalid", "EntryRefused"].contains(&unpacked.reason()));
}

#[test]
fn what_is_no_archive_is_left_alone() {
    let text = gzipped(b"just text");
    for content in [&b""[..], b"text", &[0; 2048], &text, &zstandard(b"just text"), b"PK"] {
        assert_eq!(unpack(content).result.unwrap(), None);
    }
}

#[test]
fn archives_of_other_formats_are_named() {
    for (content, word) in [(&b"\xfd7zXZ\0rest"[..], "xz"), (b"BZh91AY", "bzip2"), (b"7z\xbc\xaf\x27\x1c", "7z")] {
        let error = unpack(content).result.unwrap_err();
        assert_eq!(error.reason(), "ArchiveInvalid");
        assert!(error.to_string().contains(word) && error.to_string().contains("None"), "{error}");
    }
}

#[test]
fn archives_of_the_usual_tools_unpack() {
    let folder = tempfile::tempdir().unwrap();
    let script = "mkdir -p in/sub/empty && cd in && printf tool > sub/tool && chmod 755 sub/tool && ln -s sub/tool link \
        && printf x > \"name with spaces\" && cp sub/tool sub/$(printf 'n%.0s' $(seq 120)) \
        && tar cf ../gnu . && tar --format=posix -cf ../pax . && tar --format=v7 --exclude 'nnn*' -cf ../old . \
        && tar czf ../gz sub link 'name with spaces'";
    assert!(Command::new("sh").arg("-c").arg(script).current_dir(folder.path()).status().unwrap().success());
    let long = format!("sub/{}* 4", "n".repeat(120));
    let all = ["link -> sub/tool", "name with spaces 1", "sub/ 0", "sub/empty/ 0", &long, "sub/tool* 4"];
    for name in ["gnu", "pax", "gz", "old"] {
        let unpacked = unpack(&fs::read(folder.path().join(name)).unwrap());
        unpacked.result.as_ref().unwrap();
        let mut tree = unpacked.tree();
        tree.sort();
        let expected: Vec<_> = all.iter().filter(|line| name != "old" || **line != long).collect();
        assert_eq!(
            tree.iter().collect::<Vec<_>>(),
            expected.iter().map(|line| line.to_string()).collect::<Vec<_>>().iter().collect::<Vec<_>>(),
            "{name}"
        );
    }
}

#[test]
fn zips_written_by_a_library_unpack() {
    use ::zip::write::SimpleFileOptions;
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    let content = b"0123456789".repeat(10_000);
    writer.add_directory("sub/empty", options).unwrap();
    writer.start_file("sub/tool", options.unix_permissions(0o755)).unwrap();
    writer.write_all(&content).unwrap();
    writer.start_file("stored", options.compression_method(::zip::CompressionMethod::Stored)).unwrap();
    writer.write_all(b"as it is").unwrap();
    writer.start_file("\u{e4}", options.large_file(true)).unwrap();
    writer.add_symlink("link", "sub/tool", options).unwrap();
    let unpacked = unpack(&writer.finish().unwrap().into_inner());
    unpacked.result.as_ref().unwrap();
    let tree = ["link -> sub/tool", "stored 8", "sub/ 0", "sub/empty/ 0", "sub/tool* 100000", "\u{e4} 0"];
    assert_eq!(unpacked.tree(), tree);
}
