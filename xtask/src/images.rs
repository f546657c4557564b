//! `cargo xtask images`: OCI images of operator and node-agent as layouts and archives, without a container runtime and
//! without network. The same source makes the same bytes: times are fixed, files sorted, paths of this machine left out.
//!
//! An image holds one static program, the certificates by which sources are recognised, and nothing else. Development
//! images hold the debug build and the libraries of this machine instead: cheap enough for tests, and for nothing else.
//!
//! In reading order: [`build`] makes the programs, [`files`] says what goes into an image, [`elf`] whether the program needs
//! more than that, [`layer`] packs it, [`layout`] writes blobs and index, [`software`] lists what was linked in.

mod build;
mod elf;
mod files;
mod layer;
mod layout;
mod software;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use self::build::Programs;
use self::layout::{Layout, MANIFEST};
use self::software::SoftwareList;
use crate::step;

/// The one target that can be linked statically with what a Debian machine has.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Where images are said to come from: no registry that somebody could own, and what `podman` calls local images, too.
const REGISTRY: &str = "localhost";
/// Image with tools for tests.
const TOOLS: &str = "peerdist-e2e-tools";
/// Its only tag.
const TOOLS_TAG: &str = "1";
/// User and group of every program.
const USER: &str = "65532:65532";
/// Where programs lie in an image.
const PROGRAMS: &str = "/usr/bin";
/// Nothing in an image tells when it was made.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What to make.
#[derive(Args)]
pub(crate) struct Options {
    /// Target to build for; another one than this machine's needs its standard library and linker
    #[arg(long, value_name = "TRIPLE", default_value = TARGET, conflicts_with = "development")]
    target: String,
    /// Debug builds with this machine's libraries, for tests
    #[arg(long)]
    development: bool,
}

/// One program of ours and the image that it gets.
struct Product {
    image: &'static str,
    package: &'static str,
    program: &'static str,
    title: &'static str,
}

const PRODUCTS: [Product; 2] = [
    Product {
        image: "peerdist-operator",
        package: "peerdist-operator",
        program: "peerdist-operator",
        title: "peerdist operator",
    },
    Product {
        image: "peerdist-node-agent",
        package: "peerdist-node-agent",
        program: "peerdist",
        title: "peerdist server and client",
    },
];

/// Makes all images and prints them.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    make_all(root, options, false).map(drop)
}

/// Makes what tests in a cluster need, and says in which folder it is: debug builds or the real images, and one with
/// tools.
pub(crate) fn for_tests(root: &Path, release: bool) -> Result<PathBuf> {
    make_all(root, &Options { target: TARGET.to_owned(), development: !release }, true)
}

fn make_all(root: &Path, options: &Options, for_tests: bool) -> Result<PathBuf> {
    let programs = build::programs(root, options)?;
    let folder = step::target_folder(root).join(if options.development { "images-development" } else { "images" });
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!("{:<32} {:<18} {:>12}  digest", "image", "tag", "bytes");
    for product in &PRODUCTS {
        let software = SoftwareList::of(root, product.package, &options.target)?;
        let tag = tag(&software.version, options);
        let made = make(&folder, product, &programs, &software, &tag, options)?;
        println!("{:<32} {tag:<18} {:>12}  {}", repository(product.image), made.bytes, made.digest);
    }
    if for_tests {
        make_tools(&folder)?;
    }
    println!("layouts, archives and lists of software: {}", folder.display());
    Ok(folder)
}

/// Development images bear another tag, so that nobody takes them for the real ones.
fn tag(version: &str, options: &Options) -> String {
    let architecture = build::architecture(&options.target);
    match (options.development, architecture) {
        (true, _) => format!("{version}-development"),
        (false, "amd64") => version.to_owned(),
        (false, other) => format!("{version}-{other}"),
    }
}

/// The name of an image without its tag.
fn repository(image: &str) -> String {
    format!("{REGISTRY}/{image}")
}

/// What was made.
struct Made {
    digest: String,
    bytes: u64,
}

fn make(
    folder: &Path,
    product: &Product,
    programs: &Programs,
    software: &SoftwareList,
    tag: &str,
    options: &Options,
) -> Result<Made> {
    let files = files::of_image(&programs.file(product.program), PROGRAMS, options.development)?;
    let labels = labels(product, programs, software);
    let list = serde_json::to_vec_pretty(&software.document(product.title))?;
    fs::write(folder.join(format!("{}.cdx.json", product.image)), &list)
        .context("cannot write the list of software")?;
    let container = json!({
        "User": USER,
        "Env": [format!("PATH={PROGRAMS}")],
        "Entrypoint": [format!("{PROGRAMS}/{}", product.program)],
        "WorkingDir": "/",
        "Labels": labels,
    });
    let platform = Platform { tag, architecture: build::architecture(&options.target) };
    write(folder, product.image, &files, &Description { container, labels, list: Some(list) }, &platform)
}

/// Busybox of this machine, for what tests do inside a cluster: it sleeps, serves a folder and looks at files.
fn make_tools(folder: &Path) -> Result<Made> {
    let description = Description {
        container: json!({"Env": ["PATH=/bin"], "Entrypoint": ["/bin/busybox", "sleep", "infinity"]}),
        labels: json!({"org.opencontainers.image.title": "busybox of a build machine, for tests of peerdist"}),
        list: None,
    };
    let platform = Platform { tag: TOOLS_TAG, architecture: build::architecture(TARGET) };
    write(folder, TOOLS, &[files::busybox()?], &description, &platform)
}

/// What an image is besides files.
struct Description {
    container: Value,
    labels: Value,
    list: Option<Vec<u8>>,
}

/// For what, and called how.
struct Platform<'a> {
    tag: &'a str,
    architecture: &'a str,
}

fn write(
    folder: &Path,
    image: &str,
    files: &[layer::File],
    description: &Description,
    platform: &Platform<'_>,
) -> Result<Made> {
    let layer = layer::pack(files)?;
    let mut layout = Layout::new(&folder.join(image))?;
    let config = config(&description.container, platform, &layer.uncompressed_digest);
    let config = layout.add("application/vnd.oci.image.config.v1+json", &serde_json::to_vec(&config)?)?;
    let content = layout.add("application/vnd.oci.image.layer.v1.tar+gzip", &layer.compressed)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.value(),
        "layers": [content.value()],
        "annotations": description.labels,
    });
    let manifest = layout.add(MANIFEST, &serde_json::to_vec(&manifest)?)?;
    layout.name(&manifest, &repository(image), platform)?;
    // What loads an archive without being told an image of it wants to find just one manifest.
    layer::archive(&folder.join(image), &folder.join(format!("{image}.tar")))?;
    if let Some(list) = &description.list {
        layout.attach(&manifest, "application/vnd.cyclonedx+json", list)?;
    }
    Ok(Made { digest: manifest.digest, bytes: config.size + content.size })
}

fn config(container: &Value, platform: &Platform<'_>, uncompressed_digest: &str) -> Value {
    json!({
        "created": CREATED,
        "architecture": platform.architecture,
        "os": "linux",
        "config": container,
        "rootfs": {"type": "layers", "diff_ids": [uncompressed_digest]},
        "history": [{"created": CREATED, "created_by": "cargo xtask images"}],
    })
}

fn labels(product: &Product, programs: &Programs, software: &SoftwareList) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": product.title,
        "org.opencontainers.image.version": software.version,
        "org.opencontainers.image.licenses": software.licence,
        "org.opencontainers.image.source": software.repository,
    });
    if let Some(revision) = &programs.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_lists_the_image_alone_by_its_whole_name_and_the_layout_its_software_too() {
        let folder = std::env::temp_dir().join(format!("peerdist-images-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let description = Description { container: json!({}), labels: json!({}), list: Some(b"[]".to_vec()) };
        let platform = Platform { tag: "7", architecture: "arm64" };
        let made = write(&folder, "app", &[], &description, &platform).unwrap();

        let mut archive = tar::Archive::new(fs::File::open(folder.join("app.tar")).unwrap());
        let (mut index, mut blobs) = (Value::Null, 0);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            blobs += usize::from(path.starts_with("blobs/sha256/"));
            if path == "index.json" {
                index = serde_json::from_reader(entry).unwrap();
            }
        }
        let listed = index["manifests"].as_array().unwrap();
        assert_eq!(listed.len(), 1, "{index}");
        assert_eq!(listed[0]["digest"], made.digest);
        assert_eq!(listed[0]["platform"]["architecture"], "arm64");
        let names = json!({"org.opencontainers.image.ref.name": "7", "io.containerd.image.name": "localhost/app:7"});
        assert_eq!(listed[0]["annotations"], names);
        assert_eq!(blobs, 3, "a manifest, a configuration and a layer");

        let index: Value = serde_json::from_slice(&fs::read(folder.join("app/index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0], listed[0]);
        assert_eq!(index["manifests"][1]["artifactType"], "application/vnd.cyclonedx+json");
        fs::remove_dir_all(&folder).unwrap();
    }
}
