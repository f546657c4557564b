//! `peerdist verify`: re-hashes all that a root holds and names what is wrong.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::BinaryBytes;

use super::ExitStatus;
use super::text_table::TextTable;
use crate::store::{NodeStore, PackageReport, StoreError, StoreLimits, VerifyFault, VerifyReport};

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
            eprintln!("peerdist verify: {}", chain(&error));
            ExitStatus::Failed
        }
    }
}

fn verify(root: &Path) -> Result<VerifyReport, VerifyError> {
    if !root.join("journal").is_dir() {
        return Err(VerifyError::NoStore(root.to_owned()));
    }
    Ok(NodeStore::open(root, StoreLimits::default())?.verify()?)
}

fn render(report: &VerifyReport) -> String {
    if report.packages.is_empty() {
        return "No packages.\n".to_owned();
    }
    let mut table = TextTable::new(["PACKAGE", "PLACE", "CHUNKS", "SIZE", "RESULT"]).right_aligned([2, 3]);
    for package in &report.packages {
        let place = if package.published { "published" } else { "staging" };
        let (chunks, size) = (package.chunks.to_string(), BinaryBytes(package.bytes).to_string());
        table.row([package.key.to_string(), place.to_owned(), chunks, size, result(package)]);
    }
    report.packages.iter().fold(table.render(), |text, package| text + &faults(package))
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

    fn package(version: &str, fault_count: u64, faults: Vec<VerifyFault>) -> PackageReport {
        let distribution = DistributionKey {
            namespace: Namespace::new("retail").unwrap(),
            name: PackageName::new("pos-app").unwrap(),
        };
        let key = PackageKey { distribution, version: Version::new(version).unwrap() };
        let digest = Digest::of(version.as_bytes());
        PackageReport { key, digest, published: true, chunks: 40, bytes: 10 << 20, fault_count, faults }
    }

    #[test]
    fn faults_are_named_below_the_packages() {
        let fault = VerifyFault { path: "bin/pos".into(), chunk: Some(7), problem: "damaged" };
        let report = VerifyReport { packages: vec![package("1", 0, vec![]), package("2", 3, vec![fault])] };
        assert_eq!(
            render(&report),
            "PACKAGE           PLACE      CHUNKS       SIZE  RESULT\n\
             retail/pos-app 1  published      40  10.00 MiB  ok\n\
             retail/pos-app 2  published      40  10.00 MiB  3 faults\n\
             retail/pos-app 2: bin/pos: damaged (chunk 7)\n\
             retail/pos-app 2: 2 more faults\n"
        );
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
