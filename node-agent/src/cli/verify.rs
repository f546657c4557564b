//! `peerdist verify`: re-hashes all that a root holds, compares trees with their manifests, and names what is wrong.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use indicatif::BinaryBytes;

use super::ExitStatus;
use super::text_table::TextTable;
use crate::printable::escape_control_characters;
use crate::store::{NodeStore, PackageReport, StoreError, VerifyFault, VerifyReport};

/// What to verify.
#[derive(Debug, Args)]
pub(super) struct VerifyOptions {
    /// Directory of a client's packages or of the server; no agent may be running on it
    #[arg(long, value_name = "DIR", env = "PEERDIST_ROOT")]
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("{} holds no packages of peerdist: give the --root of a client or server", .0.display())]
    NoStore(PathBuf),
    #[error("cannot look into {}: run this as the user that peerdist runs as", .0.display())]
    Closed(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) fn run(options: &VerifyOptions) -> ExitStatus {
    match verify(&options.root) {
        Ok(report) => {
            print!("{}", render(&report));
            if report.is_clean() { ExitStatus::Done } else { ExitStatus::Failed }
        }
        Err(error) => {
            eprintln!("peerdist verify: {}", escape_control_characters(&chain(&error)));
            ExitStatus::Failed
        }
    }
}

fn verify(root: &Path) -> Result<VerifyReport, VerifyError> {
    match fs::metadata(root.join("journal")) {
        Ok(journal) if journal.is_dir() => Ok(NodeStore::open_to_verify(root)?.verify()?),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(VerifyError::Closed(root.to_owned(), error))
        }
        _ => Err(VerifyError::NoStore(root.to_owned())),
    }
}

fn render(report: &VerifyReport) -> String {
    if report.packages.is_empty() && report.listed == 0 {
        return "No packages.\n".to_owned();
    }
    if report.packages.is_empty() {
        return listed(report.listed);
    }
    let mut table = TextTable::new(["PACKAGE", "PLACE", "CHUNKS", "SIZE", "RESULT"]).right_aligned([2, 3]);
    for package in &report.packages {
        let place = place(package);
        let (chunks, size) = (package.chunks.to_string(), BinaryBytes(package.bytes).to_string());
        table.row([package.key.to_string(), place.to_owned(), chunks, size, result(package)]);
    }
    report.packages.iter().fold(table.render(), |text, package| text + &faults(package)) + &listed(report.listed)
}

/// Packages of which nothing is here yet, so that there is nothing to verify.
fn listed(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "1 package is known by its manifest only\n".to_owned(),
        count => format!("{count} packages are known by their manifests only\n"),
    }
}

fn place(package: &PackageReport) -> &'static str {
    match package {
        PackageReport { gone: true, .. } => "gone",
        PackageReport { published: true, .. } => "published",
        _ => "staging",
    }
}

fn result(package: &PackageReport) -> String {
    match package.fault_count {
        0 => "ok".to_owned(),
        1 => "1 fault".to_owned(),
        count => format!("{count} faults"),
    }
}

fn faults(package: &PackageReport) -> String {
    let mut text = String::new();
    for VerifyFault { path, chunk, problem } in &package.faults {
        let path = escape_control_characters(path);
        let chunk = chunk.map(|index| format!(" (chunk {index})")).unwrap_or_default();
        let _ = writeln!(text, "{}: {path}: {problem}{chunk}", package.key);
    }
    let unnamed = package.fault_count.saturating_sub(package.faults.len() as u64);
    if unnamed > 0 {
        let _ = writeln!(text, "{}: {unnamed} more faults", package.key);
    }
    text
}

/// The error with everything behind it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use peerdist_core::digest::Digest;
    use peerdist_core::names::{DistributionKey, Namespace, PackageKey, PackageName, Version};

    use super::*;
    use crate::store::StoreLimits;
    use crate::store::tests::fixture::{Root, TestPackage, give_away, mode, move_out, set_mode};

    fn package(version: &str, fault_count: u64, faults: Vec<VerifyFault>) -> PackageReport {
        let distribution = DistributionKey {
            namespace: Namespace::new("retail").unwrap(),
            name: PackageName::new("pos-app").unwrap(),
        };
        let key = PackageKey { distribution, version: Version::new(version).unwrap() };
        let digest = Digest::of(version.as_bytes());
        PackageReport { key, digest, published: true, gone: false, chunks: 40, bytes: 10 << 20, fault_count, faults }
    }

    #[test]
    fn faults_are_named_below_the_packages() {
        let fault = VerifyFault { path: "bin/pos".into(), chunk: Some(7), problem: "damaged" };
        let packages = vec![package("1", 0, vec![]), package("2", 3, vec![fault])];
        let report = VerifyReport { packages, listed: 2 };
        assert_eq!(
            render(&report),
            "PACKAGE           PLACE      CHUNKS       SIZE  RESULT\n\
             retail/pos-app 1  published      40  10.00 MiB  ok\n\
             retail/pos-app 2  published      40  10.00 MiB  3 faults\n\
             retail/pos-app 2: bin/pos: damaged (chunk 7)\n\
             retail/pos-app 2: 2 more faults\n\
             2 packages are known by their manifests only\n"
        );
    }

    #[test]
    fn name_of_a_file_cannot_forge_a_line_or_steer_the_terminal() {
        let fault = VerifyFault { path: "a\x1b[2J\nretail/pos-app 2: ok".into(), chunk: None, problem: "foreign" };
        let text = faults(&package("1", 1, vec![fault]));
        assert_eq!(text, "retail/pos-app 1: a\\u{1b}[2J\\nretail/pos-app 2: ok: foreign\n");
    }

    #[test]
    fn packages_without_content_are_counted_and_none_is_said() {
        assert_eq!(render(&VerifyReport::default()), "No packages.\n");
        let report = VerifyReport { packages: Vec::new(), listed: 1 };
        assert_eq!(render(&report), "1 package is known by its manifest only\n");
    }

    #[test]
    fn package_whose_tree_is_gone_is_named_each_time() {
        let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
        package.deliver(&root.open());
        move_out(&root.path().join("packages/retail/pos/1.0"), &root.0.path().join("elsewhere"));
        for _ in 0..2 {
            let report = verify(&root.path()).unwrap();
            assert!(!report.is_clean());
            let text = render(&report);
            assert!(text.contains("  gone  "), "{text}");
            assert!(text.contains("retail/pos 1.0: .: its tree is not at its place any more"), "{text}");
        }
    }

    #[test]
    fn damage_without_a_chunk_is_named_and_fails() {
        let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
        package.deliver(&root.open());
        let program = root.path().join("packages/retail/pos/1.0/bin/pos");
        set_mode(&program, 0o444);
        let report = verify(&root.path()).unwrap();
        assert!(!report.is_clean());
        let text = render(&report);
        assert!(text.contains("retail/pos 1.0: bin/pos: it should be executable and is not"), "{text}");
        assert_eq!(mode(&program), 0o444, "verification changes nothing");
    }

    #[test]
    fn root_of_another_user_is_refused_by_name() {
        let (root, package) = (Root::new(), TestPackage::mixed("1.0"));
        package.deliver(&root.open());
        if give_away(&root.path().join("journal")) {
            let refused = verify(&root.path()).unwrap_err();
            assert!(matches!(&refused, VerifyError::Store(StoreError::OwnedByAnother { .. })), "{refused}");
        }
    }

    #[test]
    fn directory_that_is_no_root_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(verify(directory.path()), Err(VerifyError::NoStore(_))));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        drop(NodeStore::open(directory.path(), StoreLimits::default()).unwrap());
        assert_eq!(verify(directory.path()).unwrap(), VerifyReport::default());
    }
}
