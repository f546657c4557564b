//! Sources: where packages come from, and their way into the library.
//!
//! In reading order: [`ingest`] ties everything together; [`uri`] and [`digest`] are about what an object says;
//! [`entry`] has the rules for names and links; [`walk`] lists a directory in manifest order; [`tree`] writes beneath a
//! staging folder and nowhere else; [`file`], [`http`] and [`archive`] are the kinds of origin, [`credentials`] what they may ask for; [`disk`] says what
//! still fits; [`AddressRule`], [`NetworksFile`] and [`FileRule`] say from where; [`retry`] says when to try again; [`progress`] counts; [`error`] is what goes wrong, with the field that
//! is at fault.

mod address_rule;
pub mod archive;
pub mod credentials;
pub mod digest;
pub mod disk;
pub mod entry;
pub mod error;
pub mod file;
mod file_roots;
mod host_addresses;
pub mod http;
pub mod ingest;
mod networks_file;
pub mod progress;
pub mod retry;
#[cfg(test)]
pub(crate) mod test_server;
pub mod tree;
pub mod uri;
pub mod walk;

pub use address_rule::{AddressForbidden, AddressRule};
pub use credentials::{Credentials, CredentialsError, KnownSecrets, SecretError, SecretKey};
pub use error::SourceError;
pub use file_roots::{FileForbidden, FileRoot, FileRootError, FileRule};
pub use http::Downloader;
pub use ingest::{Ingest, IngestRequest, Ingested};
pub use networks_file::{NetworksFile, NetworksFileError};
pub use progress::{Phase, Progress};
pub use retry::{FailedTry, Retry, RetryPolicy};
