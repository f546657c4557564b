//! Desired state: what people want, as objects, validated. [`DesiredSource`] is where it comes from and how it
//! changes; [`DirectorySource`] is the one that reads a directory of YAML files, [`ClusterSource`] the one that watches the objects
//! of a cluster. What is done about it is decided in the core.
//!
//! The way of an object: `document` splits files into documents and finds what each is about, `objects` turns the
//! documents into one validated state, `secrets` those that are Secrets, `revision` keeps the last good objects in force when an edit is bad,
//! `last_good` over a restart too, and `directory` watches.

mod cluster;
mod directory;
mod document;
mod error;
mod last_good;
mod objects;
mod revision;
mod secrets;
mod source_uri;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use peerdist_core::distribution::Distribution;
use peerdist_core::names::{DistributionKey, OfficeName};
use peerdist_core::office::OfficeTree;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::source::KnownSecrets;

pub use self::cluster::ClusterSource;
pub use self::directory::DirectorySource;
pub use self::error::{ErrorScope, NO_OFFICE_SELECTED, ObjectError, object_of};
pub use self::objects::{EMBEDDED_NODES_ANNOTATION, EMBEDDED_NODES_DEFAULT, EMBEDDED_NODES_MAX};

/// Everything that people want, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredState {
    /// The offices.
    pub offices: OfficeTree,
    /// What should reach them.
    pub distributions: BTreeMap<DistributionKey, Distribution>,
    /// Nodes that embedded mode runs in each office, at least one each.
    pub embedded_nodes: BTreeMap<OfficeName, u32>,
    /// Secrets that a manifest directory has for sources.
    pub secrets: Arc<KnownSecrets>,
    /// The objects of a cluster behind all this, also those that are refused or being deleted.
    pub objects: ClusterObjects,
}

/// What a cluster says of objects besides their content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterObjects {
    /// Every PackageDistribution.
    pub packages: BTreeMap<DistributionKey, PackageObject>,
    /// Identities of the Offices.
    pub offices: BTreeMap<OfficeName, String>,
}

/// A PackageDistribution as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageObject {
    /// Its identity: one that is made anew under the same name has another.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Somebody deleted it, and it waits for the nodes to let go of the package.
    pub is_deleted: bool,
    /// Why the server does not act upon its latest form.
    pub refusal: Option<ObjectError>,
}

/// News from a source.
#[derive(Debug, Clone)]
pub struct DesiredUpdate {
    /// What holds from now on. `None`: the set as a whole is unusable, and what was in force stays in force.
    pub state: Option<Arc<DesiredState>>,
    /// Everything that is wrong now: of the set if there is no state, of single packages otherwise. A package named
    /// here is in the state as it last was good, or not at all.
    pub errors: Vec<ObjectError>,
}

/// Whether a manifest file with these bytes would be a usable set of its own.
pub(crate) fn is_usable(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let documents = document::split("manifest.yaml", text);
    documents.is_ok_and(|documents| objects::read(&documents, Path::new("/manifests"), &|_: &str| None).state.is_some())
}

/// Where desired state comes from.
pub trait DesiredSource: Send {
    /// Waits for news; the first call returns what is there. May be cancelled without losing any.
    fn next(&mut self) -> impl Future<Output = DesiredUpdate> + Send;
}

/// Waits for news in a task of its own and hands them on until `stop`. A source that looks once a second would never
/// look again if each message and tick of a driver's loop ended its wait.
pub fn watch(mut source: impl DesiredSource + 'static, stop: CancellationToken) -> mpsc::Receiver<DesiredUpdate> {
    let (news, received) = mpsc::channel(1);
    tokio::spawn(stop.run_until_cancelled_owned(async move { while news.send(source.next().await).await.is_ok() {} }));
    received
}
