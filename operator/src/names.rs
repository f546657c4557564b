//! Names and labels of everything the operator makes. A name that would be too long is cut and made unique by a digest.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "peerdist-operator";
/// Label of a node that an office selects by subnet. The operator's own: nobody else writes it.
pub const ASSIGNED_OFFICE_LABEL: &str = "peerdist.io/assigned-office";
/// Label of a node that may run the server. The user's own: the operator never writes it.
pub const SERVER_NODE_LABEL: &str = "peerdist.io/server";
/// Label of objects and pods: the office they belong to.
pub const OFFICE_LABEL: &str = "peerdist.io/office";
/// Annotation with the digest of what was applied.
pub const APPLIED_ANNOTATION: &str = "peerdist.io/applied";
/// Annotation of the Lease with the namespace of the installation.
pub const INSTALLATION_ANNOTATION: &str = "peerdist.io/installation";
/// Name of the server's StatefulSet, ServiceAccount and ConfigMap.
pub const SERVER: &str = "peerdist-server";
/// Key of the server's ConfigMap: its address.
pub const SERVER_ADDRESS_KEY: &str = "address";
/// `app.kubernetes.io/component` of clients.
pub const CLIENT_COMPONENT: &str = "client";
/// `app.kubernetes.io/component` of the server.
pub const SERVER_COMPONENT: &str = "server";
/// Selects what the operator made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=peerdist-operator";
/// Selects the server's pods.
pub const SERVER_POD_SELECTOR: &str = "app.kubernetes.io/name=peerdist,app.kubernetes.io/component=server";

/// Longest value of a label.
const LABEL_VALUE_BYTES_MAX: usize = 63;
/// Longest part of an office's name in the name of an object, so that controllers can append to it.
const NAME_PART_BYTES_MAX: usize = 180;
/// Hex digits of the digest that makes a cut name unique.
const DIGEST_DIGITS: usize = 16;

/// Name of an office's DaemonSet, ConfigMap and ServiceAccount.
pub fn client_objects(office: &str) -> String {
    format!("peerdist-office-{}", shortened(office, NAME_PART_BYTES_MAX))
}

/// An office's name as the value of a label.
pub fn label_value(office: &str) -> String {
    shortened(office, LABEL_VALUE_BYTES_MAX)
}

/// Labels of an object of a component.
pub fn labels(component: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "peerdist"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/part-of", "peerdist"),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Hex digest of some text.
pub fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn shortened(name: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let kept: String = name.chars().take(bytes_max - DIGEST_DIGITS - 1).collect();
    let unique: String = digest(name).chars().take(DIGEST_DIGITS).collect();
    format!("{}-{unique}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_and_long_ones_stay_different() {
        assert_eq!(client_objects("store-0042"), "peerdist-office-store-0042");
        assert_eq!(label_value("store.0042"), "store.0042");
        let (first, second) = (format!("{}-1", "a".repeat(200)), format!("{}-2", "a".repeat(200)));
        assert_ne!(label_value(&first), label_value(&second));
        assert_ne!(client_objects(&first), client_objects(&second));
        assert!(label_value(&first).len() <= 63 && client_objects(&first).len() <= 253 - 11);
    }
}
