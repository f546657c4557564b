//! Names and labels of everything the operator makes.

use std::collections::BTreeMap;

use peerdist_crds::names::shortened;
pub use peerdist_crds::names::{
    EVICTION_FINALIZER, NETWORKS, NETWORKS_KEY, SERVER, SERVER_ADDRESS_KEY, SERVER_FIELD_MANAGER, TRUST, TRUST_KEY,
    client_objects,
};
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
/// Secret with the root, unless the installation names another.
pub const ROOT_SECRET: &str = "peerdist-root";
/// Secret with all that the server needs to be one, and no root's key.
pub const SERVER_IDENTITY: &str = "peerdist-server-identity";
/// Annotation of that Secret, a user's: another value than the last one asks for a new intermediate.
pub const ROTATE_INTERMEDIATE_ANNOTATION: &str = "peerdist.io/rotate-intermediate";
/// Annotation of that Secret, a user's: another value than the last one asks for the next manifest key.
pub const ROTATE_MANIFEST_KEY_ANNOTATION: &str = "peerdist.io/rotate-manifest-key";
/// Annotation of the Lease with the namespace of the installation.
pub const INSTALLATION_ANNOTATION: &str = "peerdist.io/installation";
/// `app.kubernetes.io/component` of clients.
pub const CLIENT_COMPONENT: &str = "client";
/// `app.kubernetes.io/component` of the server.
pub const SERVER_COMPONENT: &str = "server";
/// `app.kubernetes.io/component` of pods that remove what the server stored on a node before it moved.
pub const FORMER_SERVER_COMPONENT: &str = "former-server";
/// Key of the server's ConfigMap: names of the nodes on which it was, one a line, the latest last.
pub const SERVER_NODES_KEY: &str = "nodes";
/// Selects what the operator made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=peerdist-operator";
/// Selects the pods of clients and server, and those that remove what a server left.
pub const POD_SELECTOR: &str =
    "app.kubernetes.io/name=peerdist,app.kubernetes.io/component in (client,server,former-server)";
/// Selects the server's pods.
pub const SERVER_POD_SELECTOR: &str = "app.kubernetes.io/name=peerdist,app.kubernetes.io/component=server";

/// Selects the clients' pods.
pub const CLIENT_POD_SELECTOR: &str = "app.kubernetes.io/name=peerdist,app.kubernetes.io/component=client";

/// Longest value of a label.
const LABEL_VALUE_BYTES_MAX: usize = 63;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_and_long_ones_stay_different() {
        assert_eq!(label_value("store.0042"), "store.0042");
        let (first, second) = (format!("{}-1", "a".repeat(200)), format!("{}-2", "a".repeat(200)));
        assert_ne!(label_value(&first), label_value(&second));
        assert!(label_value(&first).len() <= 63);
    }
}
