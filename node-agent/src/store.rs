//! Content on disk: trees, journal, manifests.
//!
//! A [`NodeStore`] owns one root folder, on a client as in the server's library:
//! `packages/<namespace>/<name>/<version>/` are the published trees and `packages/<namespace>/<name>/current` a link
//! to the active one, `staging/` has what still arrives, `journal/` what is known about both. The published tree is
//! the chunk store: a chunk has one place, the files it covers.
//!
//! The way of a package: [`NodeStore::put_root`], [`NodeStore::put_page`], [`NodeStore::prepare`] (space, empty tree,
//! local copies), [`NodeStore::write_chunk`], [`NodeStore::flush`] (written becomes held), [`NodeStore::publish`],
//! [`NodeStore::delete`]. All calls block and take `&self`: call them from threads that may wait.
//!
//! In reading order: `node_store` opens a root and answers questions; `prepare`, `write`, `flush`, `read`, `publish`,
//! `remove`, `ingest`, `verify` are its verbs, `recover` what opening does, `remove_root` its end; `package`, `journal`, `pages`, `segments`,
//! `tree`, `open_files` are what they work on; `beneath` is how any of them touches the disk: never through a link.

pub(crate) mod beneath;
mod error;
mod flush;
mod ingest;
pub(crate) mod journal;
mod local_copy;
mod lru;
mod node_store;
mod open_files;
mod package;
mod pages;
mod prepare;
mod publish;
mod read;
mod recent;
mod recover;
mod remove;
mod remove_root;
mod segments;
mod space;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod verify;
mod write;

pub use error::{ChunkFault, FlushError, ReadError, StoreError};
pub use ingest::IngestStaging;
pub use node_store::{NodeStore, StoreLimits, StoredPackage};
pub use prepare::Prepared;
pub use publish::Publication;
pub use space::StagedBytes;
pub use verify::{PackageReport, VerifyFault, VerifyReport};
pub use write::ChunkOutcome;
