//! The programs of Kubernetes: one binary, built once by Go and kept in the user's cache folder, linked under
//! the names that it goes by.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Release of Kubernetes, as in `kubernetes/go.mod`.
const VERSION: &str = "v1.36.3";
/// Names that the binary goes by.
const COMPONENTS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"];
/// What the binary is made from.
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];
/// Characters of a digest that tell binaries apart.
const DIGEST_CHARACTERS: usize = 16;
/// Above this the Go compiler tidies up its memory after all.
const COMPILER_MEMORY: &str = "2GiB";
/// Package with the version that the programs tell.
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";

/// Links all programs into a folder, after building them if this machine has not yet.
///
/// # Errors
/// As [`built`].
pub fn link_into(folder: &Path) -> Result<()> {
    let built = built()?;
    for component in COMPONENTS {
        std::os::unix::fs::symlink(&built, folder.join(component))
            .with_context(|| format!("cannot link {component}"))?;
    }
    Ok(())
}

/// The one binary behind all names, built now if this machine has none yet.
///
/// # Errors
/// When there is no Go, or the build fails.
pub fn built() -> Result<PathBuf> {
    let folder = cache()?.join("peerdist/kubernetes").join(format!("{VERSION}-{}", digest()?));
    let binary = folder.join("kubernetes");
    if !binary.is_file() {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        build(&binary)?;
    }
    Ok(binary)
}

/// Where what is built once stays.
pub(crate) fn cache() -> Result<PathBuf> {
    match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => Ok(cache.into()),
        (_, Some(home)) => Ok(Path::new(&home).join(".cache")),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: expected a folder for what is built once"),
    }
}

/// Of all that the binary is made from, so that no old one is taken for it.
fn digest() -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for name in SOURCES {
        let path = source().join(name);
        hasher.update(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hasher.finalize().to_hex().chars().take(DIGEST_CHARACTERS).collect())
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

/// Takes minutes the first time. The result appears whole, by rename.
fn build(binary: &Path) -> Result<()> {
    println!("building etcd and Kubernetes {VERSION}; this takes minutes, once");
    let unfinished = binary.with_extension(format!("{}.new", std::process::id()));
    let flags = format!(
        "-s -w -X {VERSION_PACKAGE}.gitVersion={VERSION} -X {VERSION_PACKAGE}.gitMajor=1 -X {VERSION_PACKAGE}.gitMinor=36"
    );
    let status = Command::new("go")
        // A third of the compiler's time goes into what tests do without: what debuggers need, which the linker throws away
        // anyway, functions inlined into others, and tidying up memory that ends with the process.
        .args(["build", "-trimpath", "-gcflags=all=-dwarf=false -l", "-ldflags", &flags, "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(source())
        .env("CGO_ENABLED", "0")
        .env("GOGC", "off")
        .env("GOMEMLIMIT", COMPILER_MEMORY)
        .stdin(Stdio::null())
        .status()
        .context("cannot start go: it builds etcd and Kubernetes, install it")?;
    if !status.success() {
        bail!("go build of etcd and Kubernetes ended with {status}");
    }
    std::fs::rename(&unfinished, binary).context("cannot put the built program in its place")
}
