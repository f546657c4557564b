//! The certificates and keys by which a server is one. The operator makes them in a cluster, the server itself elsewhere.
//!
//! [`certificates`] are a root and the intermediates that it signs; [`server_identity`] is all that a server needs to be
//! one, as files; [`private_key`] reads keys that somebody else wrote. Not here: where the files lie, when something is made anew, and who gets a certificate.

pub mod certificates;
pub mod private_key;
pub mod server_identity;

pub use certificates::{CertifiedKey, days, sha256};
pub use server_identity::{DamagedFile, ServerIdentity};
