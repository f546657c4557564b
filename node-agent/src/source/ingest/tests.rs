//! Whole ingests from files, directories, archives and downloads into a real store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use peerdist_core::distribution::SourceDigest;
use peerdist_core::names::{DistributionKey, Namespace, PackageName, Version};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::source::retry::RetryPolicy;
use crate::source::test_server::{Reply, TestServer};
use crate::store::StoreLimits;

struct Library {
    folder: TempDir,
    ingest: Ingest,
    progress: Arc<Progress>,
    cancel: CancellationToken,
}

impl Library {
    fn new() -> Self {
        Self::limited(None)
    }

    fn limited(limit_bytes: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        let store = NodeStore::open(&folder.path().join("library"), StoreLimits { limit_bytes }).unwrap();
        Self {
            folder,
            ingest: ingest_of(store, FileRule::any()),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn published(&self, version: &str) -> PathBuf {
        self.folder.path().join("library/packages/retail/app").join(version)
    }

    fn in_staging(&self) -> Vec<String> {
        let staging = self.folder.path().join("library/staging");
        let names = fs::read_dir(staging).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "downloads").collect()
    }

    fn downloads(&self) -> usize {
        fs::read_dir(self.folder.path().join("library/staging/downloads")).unwrap().count()
    }

    async fn run(&self, request: &IngestRequest, sequence: u64) -> Result<Ingested, SourceError> {
        self.ingest.run(request, None, sequence, &self.progress, &self.cancel).await
    }

    async fn find(&self, request: &IngestRequest) -> Option<Ingested> {
        self.ingest.find(request, &self.cancel).await.unwrap()
    }

    async fn reason(&self, request: &IngestRequest) -> &'static str {
        let error = self.run(request, 9).await.unwrap_err();
        assert_eq!(self.in_staging(), Vec::<String>::new(), "{error}");
        error.reason()
    }

    /// Every byte of every package in the library is what its manifest says.
    fn verify(&self) {
        for stored in self.ingest.store.inventory() {
            let table = self.ingest.store.chunk_table(stored.digest).unwrap();
            for index in 0..table.len() {
                let chunk = self.ingest.store.read_chunk(stored.digest, index).unwrap();
                assert_eq!(peerdist_core::digest::Digest::of(&chunk), table.digest(index).unwrap());
            }
        }
    }
}

fn ingest_of(store: NodeStore, files: FileRule) -> Ingest {
    let key = SigningKey::from_bytes(&[7; 32]);
    Ingest::new(Arc::new(store), key, RetryPolicy::Once, AddressRule::any(), files)
}

fn request(version: &str, uri: &str) -> IngestRequest {
    let distribution =
        DistributionKey { namespace: Namespace::new("retail").unwrap(), name: PackageName::new("app").unwrap() };
    IngestRequest {
        package: PackageKey { distribution, version: Version::new(version).unwrap() },
        source: PackageSource { uri: uri.parse().unwrap(), digest: None, secret: None },
        unpack: Unpack::Auto,
    }
}

fn of_file(version: &str, path: &Path) -> IngestRequest {
    request(version, &format!("file://{}", path.display()))
}

fn with_digest(request: IngestRequest, content: &[u8]) -> IngestRequest {
    let digest = Some(SourceDigest::Sha256(Sha256::digest(content).into()));
    IngestRequest { source: PackageSource { digest, ..request.source }, ..request }
}

fn random(seed: u32, bytes: u32) -> Vec<u8> {
    (0..bytes).map(|index| (index.wrapping_add(seed << 20).wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn a_directory_becomes_a_published_package() {
    let library = Library::new();
    library.write("a/large", &random(1, 3 << 20));
    library.write("a-b/tool", b"#!/bin/sh");
    library.write("empty", b"");
    fs::create_dir(library.source().join("hollow")).unwrap();
    fs::set_permissions(library.source().join("a-b/tool"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("../a/large", library.source().join("a-b/link")).unwrap();
    let request = of_file("1", &library.source());
    assert!(library.find(&request).await.is_none());
    let ingested = library.run(&request, 1).await.unwrap();
    let root = &ingested.root;
    assert!(ingested.is_new);
    assert_eq!((root.total_bytes(), root.entry_count(), root.sequence()), ((3 << 20) + 9, 7, 1));
    let tree = library.published("1");
    assert_eq!(fs::read(tree.join("a-b/link")).unwrap(), random(1, 3 << 20));
    let mode = |path: &str| fs::metadata(tree.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a/large"), mode("a-b/tool"), mode("hollow")), (0o444, 0o555, 0o555));
    assert!(library.published("current").join("empty").exists());
    library.verify();
    let now = library.progress.snapshot();
    assert_eq!(now.phase, Phase::Done);
    assert_eq!((now.bytes_read, now.bytes_written, now.bytes_hashed), ((3 << 20) + 9, (3 << 20) + 9, (3 << 20) + 9));
    assert_eq!(library.in_staging(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_there_already_is_found_without_reading_it() {
    let library = Library::new();
    library.write("file", b"content");
    let request = of_file("1", &library.source());
    let digest = library.run(&request, 1).await.unwrap().root.digest();
    let found = library.find(&request).await.unwrap();
    assert_eq!((found.root.digest(), found.is_new), (digest, false));
    // Taken away after it was published.
    fs::remove_dir_all(library.source()).unwrap();
    assert_eq!(library.find(&request).await.unwrap().root.digest(), digest);
    assert!(library.find(&of_file("2", &library.source())).await.is_none());
}

#[tokio::test]
async fn a_version_never_changes_its_content() {
    let library = Library::new();
    library.write("file", b"content");
    let request = of_file("1", &library.source());
    let digest = library.run(&request, 1).await.unwrap().root.digest();
    // Other times, same bytes: fine, and remembered.
    fs::remove_file(library.source().join("file")).unwrap();
    library.write("file", b"content");
    assert!(library.find(&request).await.is_none());
    let again = library.run(&request, 2).await.unwrap();
    assert_eq!((again.root.digest(), again.is_new), (digest, false));
    assert!(library.find(&request).await.is_some());
    library.write("file", b"changed");
    assert!(library.find(&request).await.is_none());
    let error = library.run(&request, 3).await.unwrap_err();
    assert_eq!((error.reason(), error.field()), ("VersionReused", "spec.version"));
    assert_eq!(fs::read(library.published("1").join("file")).unwrap(), b"content");
    assert_eq!(library.in_staging(), Vec::<String>::new());
    library.run(&of_file("2", &library.source()), 4).await.unwrap();
    assert_eq!(fs::read(library.published("current").join("file")).unwrap(), b"changed");
    assert_eq!(fs::read(library.published("1").join("file")).unwrap(), b"content");
}

#[tokio::test]
async fn versions_share_chunks_and_their_size() {
    let library = Library::new();
    let content = random(1, 2 << 20);
    library.write("file", &content);
    let first = library.run(&of_file("1", &library.source()), 1).await.unwrap().root;
    library.write("file", &[&content[..1 << 20], b"inserted", &content[1 << 20..]].concat());
    let second = library.run(&of_file("2", &library.source()), 2).await.unwrap().root;
    assert_eq!(first.chunk_bytes_average(), second.chunk_bytes_average());
    let table = |root: &ManifestRoot| library.ingest.store.chunk_table(root.digest()).unwrap();
    let (old, new) = (table(&first), table(&second));
    let shared = new.digests().iter().filter(|digest| old.digests().contains(digest)).count();
    assert!(shared + 4 >= new.digests().len(), "{shared} of {}", new.digests().len());
    library.verify();
}

#[tokio::test]
async fn many_small_files_become_few_chunks() {
    let library = Library::new();
    for index in 0..15_000 {
        library.write(&format!("{}/{index}", index % 40), format!("content of {index}").as_bytes());
    }
    let root = library.run(&of_file("1", &library.source()), 1).await.unwrap().root;
    assert_eq!(root.entry_count(), 15_040);
    assert!(root.chunk_count() < 40, "{}", root.chunk_count());
    assert_eq!(fs::read(library.published("1").join("7/7")).unwrap(), b"content of 7");
    library.verify();
}

#[tokio::test]
async fn empty_packages_are_packages() {
    let library = Library::new();
    let root = library.run(&of_file("1", &library.source()), 1).await.unwrap().root;
    assert_eq!((root.entry_count(), root.chunk_count()), (0, 0));
    library.write("empty", b"");
    library.run(&of_file("2", &library.source().join("empty")), 2).await.unwrap();
    assert!(library.published("current").join("empty").exists());
}

#[tokio::test]
async fn archives_become_their_contents_or_stay_as_they_are() {
    let library = Library::new();
    let large = random(3, 1 << 20);
    let archive = tar_gz(&[("z/tool", b"tool"), ("a", &large)]);
    library.write("app.tar.gz", &archive);
    let unpacked = of_file("1", &library.source().join("app.tar.gz"));
    library.run(&with_digest(unpacked.clone(), &archive), 1).await.unwrap();
    assert_eq!(fs::read(library.published("1").join("a")).unwrap(), large);
    assert_eq!(fs::read(library.published("1").join("z/tool")).unwrap(), b"tool");
    let whole = IngestRequest { unpack: Unpack::None, ..of_file("2", &library.source().join("app.tar.gz")) };
    library.run(&with_digest(whole, &archive), 2).await.unwrap();
    assert_eq!(fs::read(library.published("2").join("app.tar.gz")).unwrap(), archive);
    library.verify();
    for unpack in [Unpack::Auto, Unpack::None] {
        let wrong = IngestRequest { unpack, ..of_file("3", &library.source().join("app.tar.gz")) };
        assert_eq!(library.reason(&with_digest(wrong, b"other")).await, "DigestMismatch");
    }
    let hostile = tar_gz(&[("fine", b"x"), ("fine", b"y")]);
    library.write("hostile.tar.gz", &hostile);
    let error = library.run(&of_file("3", &library.source().join("hostile.tar.gz")), 3).await.unwrap_err();
    assert_eq!(error.reason(), "EntryRefused");
    let said = error.to_string();
    assert!(said.starts_with("file://") && said.contains("hostile.tar.gz: entry \"fine\" is refused"), "{said}");
    assert!(!library.published("3").exists());
}

#[tokio::test]
async fn what_is_named_like_an_archive_and_is_none_is_refused_unless_nobody_asked_for_its_contents() {
    let library = Library::new();
    for (name, content) in [("empty.tar.gz", &b""[..]), ("page.ZIP", b"<html>"), ("zeros.tar", &[0; 10_240])] {
        library.write(name, content);
        let asked = of_file("1", &library.source().join(name));
        let error = library.run(&asked, 1).await.unwrap_err();
        assert_eq!(error.reason(), "ArchiveInvalid", "{name}: {error}");
        assert!(error.to_string().contains(&format!("its {} bytes are no archive", content.len())), "{error}");
        assert!(!library.published("1").exists(), "{name}");
    }
    let whole = IngestRequest { unpack: Unpack::None, ..of_file("1", &library.source().join("empty.tar.gz")) };
    library.run(&whole, 1).await.unwrap();
    assert_eq!(fs::read(library.published("1").join("empty.tar.gz")).unwrap(), b"");
    library.write("prices.csv", b"1,2");
    library.run(&of_file("2", &library.source().join("prices.csv")), 2).await.unwrap();
    assert_eq!(fs::read(library.published("2").join("prices.csv")).unwrap(), b"1,2");

    let server = TestServer::start(|request, _| Reply::file(request, "\"1\"", b"<html>not found</html>"));
    assert_eq!(library.reason(&request("3", &server.url("/app.tgz?token=x"))).await, "ArchiveInvalid");
    assert!(!library.published("3").exists());
}

#[tokio::test]
async fn version_from_another_source_is_known_as_such_until_the_other_has_the_same_content() {
    let library = Library::new();
    let names = ["first", "copy", "other"];
    for (name, content) in names.into_iter().zip([&b"content"[..], b"content", b"changed"]) {
        library.write(&format!("{name}/file"), content);
    }
    let [first, copy, other] = names.map(|name| of_file("1", &library.source().join(name)));
    let is_from_elsewhere = async |request: &IngestRequest| library.ingest.is_from_elsewhere(request).await;
    assert!(!is_from_elsewhere(&copy).await, "nothing is there yet");
    let digest = library.run(&first, 1).await.unwrap().root.digest();
    assert!(!is_from_elsewhere(&first).await);
    let packed = IngestRequest { unpack: Unpack::None, ..first.clone() };
    for request in [&copy, &other, &packed, &with_digest(first.clone(), b"content")] {
        assert!(is_from_elsewhere(request).await, "{request:?}");
    }
    assert_eq!(library.reason(&other).await, "VersionReused");
    assert!(is_from_elsewhere(&other).await && !is_from_elsewhere(&first).await, "a refused source is not recorded");
    let same = library.run(&copy, 2).await.unwrap();
    assert_eq!((same.root.digest(), same.is_new), (digest, false));
    assert!(is_from_elsewhere(&first).await && !is_from_elsewhere(&copy).await);
}

#[tokio::test]
async fn sources_that_cannot_be_packages_are_refused() {
    let library = Library::new();
    library.write("file", b"content");
    let directory = of_file("1", &library.source());
    assert_eq!(library.reason(&with_digest(directory.clone(), b"x")).await, "DigestOfDirectory");
    assert_eq!(library.reason(&of_file("1", &library.source().join("missing"))).await, "SourceMissing");
    assert_eq!(library.reason(&of_file("1", library.folder.path())).await, "SourceHoldsLibrary");
    symlink("/etc/passwd", library.source().join("out")).unwrap();
    assert_eq!(library.reason(&directory).await, "EntryRefused");
    assert_eq!(library.reason(&request("1", "http://[::1")).await, "UriInvalid");
}

#[tokio::test]
async fn files_are_read_in_the_named_folders_only_and_what_was_published_stays() {
    let mut library = Library::new();
    library.write("app/file", b"content");
    fs::write(library.folder.path().join("secret"), b"secret").unwrap();
    symlink("../secret", library.source().join("out")).unwrap();
    let root = library.source().to_str().unwrap().parse().unwrap();
    library.ingest.files = FileRule::beneath(vec![root]);
    let app = of_file("1", &library.source().join("app"));
    library.run(&app, 1).await.unwrap();
    for refused in [library.source().join("out"), library.folder.path().join("secret")] {
        assert_eq!(library.reason(&of_file("2", &refused)).await, "FileSourceNotAllowed");
    }
    library.ingest.files = FileRule::beneath(Vec::new());
    assert!(library.find(&app).await.is_some(), "a folder that is named no longer takes nothing away");
    assert!(!library.published("2").exists());
}

#[tokio::test]
async fn a_library_without_room_refuses_with_need_and_have() {
    let library = Library::limited(Some(1 << 20));
    library.write("file", &random(1, 700 << 10));
    library.run(&of_file("1", &library.source()), 1).await.unwrap();
    library.write("file", &random(2, 700 << 10));
    match library.run(&of_file("2", &library.source()), 2).await.unwrap_err() {
        SourceError::DiskFull { need, have, limit, .. } => {
            assert_eq!((need, have, limit), (700 << 10, 324 << 10, Some(1 << 20)));
        }
        error => panic!("{error}"),
    }
    assert_eq!(library.in_staging(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cancelled_ingest_leaves_nothing() {
    let library = Library::new();
    library.write("file", &random(1, 1 << 20));
    library.cancel.cancel();
    assert_eq!(library.reason(&of_file("1", &library.source())).await, "Cancelled");
    assert!(!library.published("1").exists());
}

#[tokio::test]
async fn a_dropped_ingest_leaves_nothing() {
    let library = Library::new();
    library.write("file", &random(1, 8 << 20));
    let request = of_file("1", &library.source());
    let run = library.run(&request, 1);
    let dropped = tokio::time::timeout(std::time::Duration::ZERO, run).await;
    assert!(dropped.is_err());
    // The thread ends by itself; the library can be used meanwhile.
    library.run(&of_file("2", &library.source()), 2).await.unwrap();
    while !library.in_staging().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn downloads_are_published_and_forgotten() {
    let archive = tar_gz(&[("dir/tool", b"tool")]);
    let (served, large) = (archive.clone(), random(5, 2 << 20));
    let content = large.clone();
    let server = TestServer::start(move |request, number| match request.path.as_str() {
        "/app.tar.gz" => Reply::file(request, "\"1\"", &served),
        _ if number == 1 => Reply::file(request, "\"1\"", &content).cut(1 << 20),
        _ => Reply::file(request, "\"1\"", &content),
    });
    let library = Library::new();
    let packed = with_digest(request("1", &server.url("/app.tar.gz")), &archive);
    library.run(&packed, 1).await.unwrap();
    assert_eq!(fs::read(library.published("1").join("dir/tool")).unwrap(), b"tool");
    assert!(library.find(&packed).await.is_some());
    assert_eq!(library.downloads(), 0);
    let single = request("2", &server.url("/data%20file"));
    assert_eq!(library.reason(&single).await, "SourceUnavailable");
    assert_eq!(library.downloads(), 2);
    library.run(&single, 2).await.unwrap();
    assert_eq!(fs::read(library.published("2").join("data file")).unwrap(), large);
    assert_eq!((library.downloads(), server.requests().len()), (0, 3));
    assert_eq!(server.requests()[2].range(), Some(1 << 20));
    library.verify();
}

#[tokio::test]
async fn unfinished_downloads_outlive_the_process_and_refused_ones_go() {
    let hostile = tar_gz(&[("a", b"1"), ("a", b"2")]);
    let server = TestServer::start(move |request, number| {
        let reply = Reply::file(request, "\"1\"", &hostile);
        if number == 0 { reply.cut(20) } else { reply }
    });
    let library = Library::new();
    let request = request("1", &server.url("/app"));
    assert_eq!(library.reason(&request).await, "SourceUnavailable");
    let Library { folder, ingest, .. } = library;
    drop(ingest);
    let store = NodeStore::open(&folder.path().join("library"), StoreLimits::default()).unwrap();
    let ingest = ingest_of(store, FileRule::any());
    let library = Library { folder, ingest, progress: Arc::default(), cancel: CancellationToken::new() };
    assert_eq!(library.downloads(), 2);
    assert_eq!(library.reason(&request).await, "EntryRefused");
    assert_eq!(server.requests()[1].range(), Some(20));
    assert_eq!(library.downloads(), 0);
}

#[tokio::test]
async fn what_has_arrived_goes_when_nobody_asks_for_it_any_more_and_for_nobody_else() {
    let content = random(6, 1 << 20);
    let server = TestServer::start(move |request, _| Reply::file(request, "\"1\"", &content).cut(1000));
    let library = Library::new();
    let wanted = request("1", &server.url("/data"));
    assert_eq!(library.reason(&wanted).await, "SourceUnavailable");
    let others = [
        request("2", &server.url("/data")),
        request("1", &server.url("/other")),
        with_digest(wanted.clone(), b"x"),
        of_file("1", &library.source()),
    ];
    for other in &others {
        library.ingest.discard_download(other).await;
        assert!(!wanted.shares_download(other) && library.downloads() == 2, "{other:?}");
    }
    let whole = IngestRequest { unpack: Unpack::None, ..wanted.clone() };
    assert!(wanted.shares_download(&whole));
    library.ingest.discard_download(&whole).await;
    assert_eq!(library.downloads(), 0);
}

#[tokio::test]
async fn a_directory_that_changes_in_mid_copy_is_refused() {
    let library = Library::new();
    for index in 0..200 {
        library.write(&format!("{index:03}"), &random(index, 50_000));
    }
    let path = library.source().join("199");
    let writing = CancellationToken::new();
    let stop = writing.clone();
    let writer = std::thread::spawn(move || {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        while !stop.is_cancelled() {
            file.write_all(b"more").unwrap();
        }
    });
    let error = library.run(&of_file("1", &library.source()), 1).await.unwrap_err();
    writing.cancel();
    writer.join().unwrap();
    assert_eq!(error.reason(), "SourceChanged");
    assert!(!error.is_final());
    assert!(!library.published("1").exists());
    assert_eq!(library.in_staging(), Vec::<String>::new());
}

#[tokio::test]
async fn two_packages_of_one_address_do_not_touch_each_other() {
    let content = random(9, 3 << 20);
    let served = content.clone();
    let server = TestServer::start(move |request, _| Reply::file(request, "\"1\"", &served));
    let library = Library::new();
    let [one, mut other] = ["1", "1"].map(|version| with_digest(request(version, &server.url("/data")), &content));
    other.package.distribution.name = PackageName::new("other").unwrap();
    let (first, second) = tokio::join!(library.run(&one, 1), library.run(&other, 1));
    for package in [first.unwrap(), second.unwrap()] {
        assert_eq!(package.root.total_bytes(), content.len() as u64);
    }
    library.verify();
    assert_eq!(library.downloads(), 0);
}

#[tokio::test]
async fn download_that_was_cut_behind_our_back_is_not_published() {
    let content = random(10, 1 << 20);
    let served = content.clone();
    let server = TestServer::start(move |request, _| Reply::file(request, "\"1\"", &served));
    let library = Library::new();
    let request = with_digest(request("1", &server.url("/data")), &content);
    let partial = library.ingest.download(&request, None, &library.progress, &library.cancel).await.unwrap().unwrap();
    fs::OpenOptions::new().write(true).open(partial.data()).unwrap().set_len(1000).unwrap();
    let result = library.ingest.bring_in(&request, Some(&partial), 1, &library.progress, &library.cancel);
    assert_eq!(result.unwrap_err().reason(), "SourceChanged");
}
