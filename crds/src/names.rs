//! Names in a cluster that the operator and the server must agree on: objects, keys, and who a client runs as.

use sha2::{Digest, Sha256};

/// Name of the server's StatefulSet, ServiceAccount and ConfigMap.
pub const SERVER: &str = "peerdist-server";
/// Key of the server's ConfigMap, which the operator writes: the server's address.
pub const SERVER_ADDRESS_KEY: &str = "address";
/// Name of the ConfigMap in which the operator tells clients by which root certificates the server is recognised.
pub const TRUST: &str = "peerdist-trust";
/// Its key: SHA-256 of a root certificate a line, in hexadecimal.
pub const TRUST_KEY: &str = "root-sha256";
/// Name of the ConfigMap in which the operator tells the server the networks of nodes, pods and services.
pub const NETWORKS: &str = "peerdist-networks";
/// Its key: a network a line.
pub const NETWORKS_KEY: &str = "forbidden-sources";
/// Field manager of what the server writes.
pub const SERVER_FIELD_MANAGER: &str = "peerdist-server";
/// Finalizer of a PackageDistribution: it goes when the nodes have let go of the package.
pub const EVICTION_FINALIZER: &str = "peerdist.io/eviction";
/// Audience of the service-account tokens that clients enrol with.
pub const TOKEN_AUDIENCE: &str = "peerdist";
/// Audience of tokens for the server's API. It is another one since that API is not encrypted: whoever reads such a token
/// on its way can do nothing else with it.
pub const API_TOKEN_AUDIENCE: &str = "peerdist-api";

/// Longest part of an office's name in the name of an object, so that controllers can append to it.
const NAME_PART_BYTES_MAX: usize = 180;
/// Hex digits of the digest that makes a cut name unique.
const DIGEST_DIGITS: usize = 16;

/// Name of an office's DaemonSet and ServiceAccount.
pub fn client_objects(office: &str) -> String {
    format!("peerdist-office-{}", shortened(office, NAME_PART_BYTES_MAX))
}

/// A name of at most so many bytes: one that would be too long is cut and made unique by a digest.
pub fn shortened(name: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let kept: String = name.chars().take(bytes_max - DIGEST_DIGITS - 1).collect();
    let unique: String = hex::encode(Sha256::digest(name.as_bytes())).chars().take(DIGEST_DIGITS).collect();
    format!("{}-{unique}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_and_long_ones_stay_different() {
        assert_eq!(client_objects("store-0042"), "peerdist-office-store-0042");
        let (first, second) = (format!("{}-1", "a".repeat(200)), format!("{}-2", "a".repeat(200)));
        assert_ne!(client_objects(&first), client_objects(&second));
        assert!(client_objects(&first).len() <= 253 - 11);
    }
}
