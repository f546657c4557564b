//! Builds the fuzz targets with the nightly compiler and runs each for a while, from the committed seeds. What a target
//! found stays in `fuzz/artifacts`, what it learned in `fuzz/corpus`. The decoders behind the targets also run in every
//! `cargo test`, on fewer inputs and without instrumentation.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{step, tree};

/// An input that takes longer than this is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// An input that takes more memory than this is a finding.
const MEMORY_MIB_MAX: u32 = 1024;

/// Runs every target for so many seconds. What is missing to do so is said, and is no failure.
pub(crate) fn run(root: &Path, seconds: u32) -> Result<()> {
    let folder = root.join("fuzz");
    for (what, program, arguments) in [
        (
            "the nightly compiler (rustup toolchain install nightly)",
            "rustup",
            &["run", "nightly", "rustc", "--version"][..],
        ),
        ("a C++ compiler (apt-get install g++), libFuzzer is written in C++", "c++", &["--version"]),
    ] {
        if step::run(&folder, program, arguments).is_err() {
            println!("NOT RUN: fuzzing needs {what}");
            return Ok(());
        }
    }
    let cargo = ["run", "nightly", "cargo"];
    step::run(&folder, "rustup", &[&cargo[..], &["build", "--locked", "--release", "--bins"]].concat())?;
    let mut failed = Vec::new();
    for target in targets(&folder)? {
        println!("\n==> {target}");
        let (corpus, found) = (format!("corpus/{target}"), format!("artifacts/{target}"));
        for made in [&corpus, &found] {
            fs::create_dir_all(folder.join(made)).with_context(|| format!("cannot make fuzz/{made}"))?;
        }
        let limits = [
            format!("-max_total_time={seconds}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
            format!("-artifact_prefix={found}/"),
            "-print_final_stats=1".to_owned(),
            corpus,
            format!("corpus-seeds/{target}"),
        ];
        let run = ["run", "--locked", "--release", "--bin", &target, "--"];
        let arguments = cargo.into_iter().chain(run).chain(limits.iter().map(String::as_str)).collect::<Vec<_>>();
        if step::run(&folder, "rustup", &arguments).is_err() {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("found something in {}: the inputs lie in fuzz/artifacts", failed.join(", "));
    }
    Ok(())
}

/// The targets are a workspace of their own, which no other step builds: their lock file must follow the dependencies of
/// what they feed, or else they cannot be built.
pub(crate) fn check_lock(root: &Path) -> Result<()> {
    let update = ["update", "--workspace", "--locked", "--manifest-path", "fuzz/Cargo.toml"];
    let outdated = "fuzz/Cargo.lock lacks dependencies: run `cargo update --workspace --manifest-path fuzz/Cargo.toml`";
    step::run(root, &step::cargo(), &update).context(outdated)
}

/// The names of the targets, in order.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let files = tree::files(&folder.join("fuzz_targets"), &["rs"])?;
    Ok(files.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect())
}
