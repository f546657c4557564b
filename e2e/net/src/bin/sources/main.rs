//! To be run inside a namespace: a server that follows the rule for sources in a cluster, beside an origin and a resolver
//! that try to lead it to forbidden addresses. Prints what became of each package as JSON and ends when all of them have
//! arrived or failed. What is tried stands in the manifests; who was connected to is counted by the kernel.

mod origin;
mod resolver;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use peerdist_node_agent::desired::DirectorySource;
use peerdist_node_agent::driver::server::{
    AddressRule, BoundServer, FileRule, RETENTION_SECONDS_DEFAULT, RetryPolicy, ServerSettings,
};
use peerdist_node_agent::status::StatusSnapshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::resolver::Resolver;

/// What a package came to that is in the library.
const ARRIVED: &str = "arrived";
/// What has not come to an end after this time never does.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: FOLDER FORBIDDEN_NETWORK...")?);
    let forbidden = arguments.map(|network| network.parse()).collect::<Result<Vec<_>, _>>()?;
    let resolver = Arc::new(Resolver::start(&folder)?);
    origin::start(Arc::downgrade(&resolver))?;
    let server = BoundServer::bind(ServerSettings {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        root: folder.join("server"),
        join_token_file: folder.join("join-token"),
        database: None,
        retry: RetryPolicy::Once,
        sources: AddressRule::checked(Vec::new(), forbidden),
        files: FileRule::any(),
        authority: None,
        retention_seconds: RETENTION_SECONDS_DEFAULT,
        cluster: None,
    })
    .await?;
    let outcomes = run(server, &folder.join("manifests")).await?;
    drop(resolver);
    println!("{}", serde_json::to_string(&outcomes)?);
    Ok(())
}

/// Runs until every package has arrived or failed: the word for that, by name of the package.
async fn run(server: BoundServer, manifests: &Path) -> Result<BTreeMap<String, String>> {
    let (overview, mut snapshots) = (server.overview(), server.snapshots());
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(DirectorySource::new(manifests), stop.clone()));
    let all = snapshots.wait_for(|snapshot| outcomes(snapshot).is_some());
    let said = || format!("not everything came to an end: {:?}", overview.object_errors());
    let mut outcomes = match timeout(PATIENCE, all).await.with_context(said)? {
        Ok(snapshot) => outcomes(&snapshot).unwrap_or_default(),
        Err(_) => bail!("the server ended early"),
    };
    outcomes.extend(overview.object_errors().into_iter().filter_map(|error| {
        let (_, name) = error.object.rsplit_once('/')?;
        Some((name.to_owned(), error.reason))
    }));
    stop.cancel();
    running.await?;
    Ok(outcomes)
}

/// `None` while something is still being tried.
fn outcomes(snapshot: &StatusSnapshot) -> Option<BTreeMap<String, String>> {
    let outcome = |package: &peerdist_node_agent::status::PackageStatus| match (&package.error, package.digest) {
        (_, Some(_)) => Some(ARRIVED.to_owned()),
        (Some(error), None) => Some(error.reason.clone()),
        (None, None) => None,
    };
    let packages = snapshot.packages.iter();
    let outcomes = packages.map(|package| Some((package.name.to_string(), outcome(package)?))).collect();
    if snapshot.packages.is_empty() { None } else { outcomes }
}
