//! Manifests: bringing the pages of a package from a peer that has them, making its place on disk, and answering
//! peers that want pages from here.

use std::net::IpAddr;
use std::sync::Arc;

use peerdist_core::client::{Event, PreparedPackage};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ManifestRoot;
use peerdist_core::peer::{MessageClass, Peer};
use peerdist_core::plan::PlannedPackage;
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use peerdist_core::wire::proto::envelope::Message as Wire;
use peerdist_core::wire::proto::reply::Reply;
use peerdist_telemetry::current_traceparent;

use super::node::Context;
use crate::driver::messages::class_on_ports;
use crate::metrics::ContentSource;
use crate::store::{NodeStore, StoreError};
use crate::transport::ReplyHandle;

/// Why a package could not be prepared.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("the manifest is refused: {0}")]
    Manifest(#[from] peerdist_core::manifest::ManifestError),
    #[error("the manifest is not the one that the plan names")]
    OtherManifest,
    #[error("a page of the manifest did not come: {0}")]
    Page(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the work was interrupted")]
    Interrupted,
}

impl PrepareError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Manifest(_) | Self::OtherManifest => "ManifestRefused",
            Self::Page(_) => "ManifestUnavailable",
            Self::Store(error) => error.reason(),
            Self::Interrupted => "Interrupted",
        }
    }

    /// Whether the same try would fail again at once.
    fn is_final(&self) -> bool {
        match self {
            Self::Page(_) | Self::Interrupted => false,
            // Retention may remove what is wanted again: then it is to be brought anew.
            Self::Store(StoreError::BeingRemoved(_) | StoreError::UnknownPackage(_)) => false,
            Self::Manifest(_) | Self::OtherManifest | Self::Store(_) => true,
        }
    }
}

/// Brings what is missing and reports to the machine.
pub(super) async fn prepare(context: Context, planned: PlannedPackage, from: Peer) {
    let digest = planned.digest;
    let event = match try_prepare(&context, planned, &from).await {
        Ok(prepared) => {
            context.metrics.content_bytes(ContentSource::Local).inc_by(prepared.bytes_from_local);
            Event::Prepared(prepared)
        }
        Err(error) => {
            tracing::debug!(node = %context.settings.node, %digest, %from, %error, "package is not prepared yet");
            let (reason, is_final) = (error.reason().to_owned(), error.is_final());
            Event::PrepareFailed { digest, reason, message: error.to_string(), is_final }
        }
    };
    context.tell(event).await;
}

async fn try_prepare(context: &Context, planned: PlannedPackage, from: &Peer) -> Result<PreparedPackage, PrepareError> {
    let root = ManifestRoot::verify(&(&planned.root).into(), &context.trusted())?;
    if root.digest() != planned.digest || *root.package() != planned.key {
        return Err(PrepareError::OtherManifest);
    }
    let digest = planned.digest;
    let store = context.store.clone();
    let missing = blocking(move || store.put_root(&root)).await?;
    for page in missing {
        let bytes = fetch_page(context, from, digest, page).await?;
        let store = context.store.clone();
        blocking(move || store.put_page(digest, page, &bytes)).await?;
    }
    let store = context.store.clone();
    blocking(move || place(&store, digest)).await
}

fn place(store: &NodeStore, digest: Digest) -> Result<PreparedPackage, StoreError> {
    let prepared = store.prepare(digest)?;
    let table = store.chunk_table(digest)?;
    let lengths = (0..table.len()).map(|index| table.length(index).unwrap_or(0)).collect();
    let published = store
        .inventory()
        .iter()
        .any(|package| package.digest == digest && package.published && package.current && package.held.is_full());
    Ok(PreparedPackage {
        digest,
        lengths,
        available: prepared.available,
        held: prepared.held,
        published,
        bytes_from_local: prepared.bytes_from_local,
    })
}

async fn fetch_page(
    context: &Context,
    from: &Peer,
    digest: Digest,
    page: Digest,
) -> Result<bytes::Bytes, PrepareError> {
    let (address, role, class): (IpAddr, Role, MessageClass) = match from {
        Peer::Server => (context.settings.server.get(), Role::Server, MessageClass::Foreground),
        Peer::Node(node) if node.office == context.settings.office => {
            (node.address, Role::Client, MessageClass::Foreground)
        }
        Peer::Node(node) => (node.address, Role::Client, MessageClass::Background),
    };
    let request = proto::ManifestRequest {
        digest: bytes::Bytes::copy_from_slice(digest.as_bytes()),
        page: bytes::Bytes::copy_from_slice(page.as_bytes()),
    };
    let envelope =
        proto::Envelope { traceparent: current_traceparent(), message: Some(Wire::ManifestRequest(request)) };
    let reply = context
        .transport
        .request(address, role, class_on_ports(class), envelope)
        .await
        .map_err(|error| PrepareError::Page(error.to_string()))?;
    match reply.reply {
        Some(Reply::Manifest(manifest)) => Ok(manifest.page),
        _ => Err(PrepareError::Page(format!("{from} sent another reply"))),
    }
}

/// Answers a peer that may read the manifest.
pub(in crate::driver) async fn answer(store: Arc<NodeStore>, request: proto::ManifestRequest, reply: ReplyHandle) {
    let read = || {
        let (digest, page) = (Digest::try_from(&request.digest[..]).ok()?, Digest::try_from(&request.page[..]).ok()?);
        Some(tokio::task::spawn_blocking(move || store.manifest_page(digest, page)))
    };
    let Some(reading) = read() else { return reply.refuse("malformed", "digests of 32 bytes were expected") };
    match reading.await {
        Ok(Ok(page)) => reply.send(proto::Reply { reply: Some(Reply::Manifest(proto::ManifestReply { page })) }),
        Ok(Err(error)) => reply.refuse("not-ready", &error.to_string()),
        Err(_) => reply.refuse("not-ready", "this node stops"),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PrepareError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| PrepareError::Interrupted)?.map_err(PrepareError::Store)
}
