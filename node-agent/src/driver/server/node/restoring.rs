//! What a server finds at its start: the library, and who is known of earlier runs.

use std::time::Duration;

use jiff::Timestamp;
use peerdist_authority::certificates::{EXPIRED_TOLERANCE, NODE_LIFETIME};
use peerdist_core::peer::NodeRef;
use peerdist_core::server::ServerEvent;

use super::Node;
use crate::database::{DatabaseError, NodeRow};
use crate::driver::server::library;

/// A node that got no certificate for so long has none that anybody takes, and is gone.
const GONE_AFTER: Duration = Duration::from_secs(NODE_LIFETIME.as_secs() + EXPIRED_TOLERANCE.as_secs());

impl Node {
    /// What earlier runs left: packages of the library with how far nodes were, and nodes that enrolled.
    pub(super) async fn restore(&mut self) {
        let database = self.parts.database.clone();
        for package in library::stored_packages(&self.parts.store, &*database).await {
            let remembered = async {
                let nodes = database.package_nodes(&package.key).await?;
                Ok::<_, DatabaseError>((nodes, database.chunk_holders(&package.key).await?))
            };
            match remembered.await {
                Ok((nodes, offices)) => {
                    let complete = nodes.iter().filter(|row| row.complete).map(|row| row.node.clone()).collect();
                    self.snapshot.remember(package.key.clone(), nodes, offices);
                    self.handle(ServerEvent::Remembered { package: package.key.clone(), complete });
                }
                Err(error) => {
                    tracing::error!(package = %package.key, %error, "progress cannot be read; offices report it again");
                }
            }
            self.handle(ServerEvent::Ingested(package));
        }
        match database.nodes().await {
            Ok(rows) => {
                let is_gone = |row: &NodeRow| {
                    let since = Timestamp::now().duration_since(row.enrolled_at);
                    Duration::try_from(since).is_ok_and(|since| since > GONE_AFTER)
                };
                let (gone, there): (Vec<NodeRow>, Vec<NodeRow>) = rows.into_iter().partition(is_gone);
                self.forget(&gone.into_iter().map(|row| row.name).collect());
                if !there.is_empty() {
                    self.evictions.know_nodes();
                }
                for row in there {
                    let node = NodeRef { name: row.name, office: row.office, address: row.address };
                    self.handle(ServerEvent::Enrolled { node });
                }
            }
            Err(error) => {
                tracing::error!(%error, "enrolled nodes cannot be read; they are known again when they speak")
            }
        }
    }
}
