//! The clients of an embedded run: one for each node that the offices' annotations ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use peerdist_core::names::{NodeName, OfficeName};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::{LoopbackPrefix, UpOptions};
use crate::database::{DatabaseError, MetadataStore};
use crate::desired::DesiredState;
use crate::driver::client::{BoundClient, ClientError, ClientSettings, ServerAddress};
use crate::driver::progress::NodeProgress;
use crate::metrics::Metrics;

/// A node that could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodesError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("offices cannot be given addresses: {0}")]
    Database(#[from] DatabaseError),
    #[error("Office {0}: an embedded run has room for 254 offices, and this is one more: remove offices or state")]
    NoRoom(OfficeName),
    #[error("Office {office}: metadata.name is too long for a node name with its number: {name}")]
    Name { office: OfficeName, name: String },
}

impl NodesError {
    pub(super) fn is_port_in_use(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_port_in_use())
    }

    pub(super) fn is_address_unusable(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_address_unusable())
    }
}

/// A running client.
pub(super) struct RunningNode {
    pub(super) office: OfficeName,
    pub(super) progress: NodeProgress,
    pub(super) metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(super) struct Nodes {
    prefix: LoopbackPrefix,
    state: PathBuf,
    database: Arc<dyn MetadataStore>,
    running: BTreeMap<NodeName, RunningNode>,
}

impl Nodes {
    pub(super) fn new(options: &UpOptions, database: Arc<dyn MetadataStore>) -> Self {
        Self { prefix: options.prefix, state: options.state.clone(), database, running: BTreeMap::new() }
    }

    /// Starts what is missing and stops what is too many. The first clients of a run start together or not at all;
    /// later, one that cannot bind its ports does not hold up the others.
    pub(super) async fn adjust(&mut self, desired: &DesiredState) -> Result<(), NodesError> {
        let offices: BTreeSet<OfficeName> = desired.offices.offices().map(|office| office.name.clone()).collect();
        let indices = self.database.embedded_indices(&offices).await?;
        let mut wanted: BTreeMap<NodeName, ClientSettings> = BTreeMap::new();
        for office in &offices {
            let &index = indices.get(office).ok_or_else(|| NodesError::NoRoom(office.clone()))?;
            let count = desired.embedded_nodes.get(office).copied().unwrap_or(1).min(254);
            for number in 1..=u8::try_from(count).unwrap_or(254) {
                let settings = self.settings(office, index, number)?;
                wanted.insert(settings.node.clone(), settings);
            }
        }
        let surplus: Vec<NodeName> = self.running.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        for name in surplus {
            if let Some(node) = self.running.remove(&name) {
                node.stop.cancel();
                drop(node.task.await);
            }
        }
        if self.running.is_empty() {
            self.forget_all_but(&wanted).await?;
        }
        let (mut bound, mut refused) = (Vec::new(), None);
        for (name, settings) in wanted {
            if self.running.contains_key(&name) {
                continue;
            }
            match BoundClient::bind(settings).await {
                Ok(client) => bound.push(client),
                Err(error) if self.running.is_empty() => return Err(error.into()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        for client in bound {
            self.start(client);
        }
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Nodes of earlier runs that nobody will start again. While a server runs on the database, it speaks of them still.
    async fn forget_all_but(&self, wanted: &BTreeMap<NodeName, ClientSettings>) -> Result<(), DatabaseError> {
        for row in self.database.nodes().await? {
            if !wanted.contains_key(&row.name) {
                self.database.remove_node(&row.name).await?;
            }
        }
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeName, &RunningNode)> {
        self.running.iter()
    }

    /// Whether the node is one of the office.
    pub(super) fn is_in(&self, office: &OfficeName, name: &NodeName) -> bool {
        self.running.get(name).is_some_and(|node| node.office == *office)
    }

    /// Stops every client and waits for it.
    pub(super) async fn stop(&mut self) {
        self.running.values().for_each(|node| node.stop.cancel());
        for node in std::mem::take(&mut self.running).into_values() {
            drop(node.task.await);
        }
    }

    fn settings(&self, office: &OfficeName, index: u8, number: u8) -> Result<ClientSettings, NodesError> {
        let name = format!("{office}-{number}");
        let node = NodeName::new(&name).map_err(|_| NodesError::Name { office: office.clone(), name: name.clone() })?;
        Ok(ClientSettings {
            server: ServerAddress::fixed(self.prefix.server().into()),
            address: self.prefix.node(index, number).into(),
            office: office.clone(),
            node,
            root: self.state.join("nodes").join(name),
            join_token_file: self.state.join("join-token"),
            trust_file: None,
        })
    }

    fn start(&mut self, client: BoundClient) {
        let stop = CancellationToken::new();
        let (name, office) = (client.node().clone(), client.office().clone());
        let (progress, metrics) = (client.progress(), client.metrics());
        let stopped = stop.clone();
        let node = name.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = client.run(stopped).await {
                tracing::error!(%node, "{error}");
            }
        });
        self.running.insert(name, RunningNode { office, progress, metrics, stop, task });
    }
}
