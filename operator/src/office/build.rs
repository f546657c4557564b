//! Office and settings in, DaemonSet, ConfigMap and ServiceAccount out. Pure, and nothing in the pod template changes
//! when the server moves: its address is in a ConfigMap of its own.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use peerdist_core::ports::Role;
use peerdist_crds::office::NodeSelection;
use serde_json::{Value, json};

use crate::apply::Desired;
use crate::fleet::ValidOffice;
use crate::names::{
    ASSIGNED_OFFICE_LABEL, CLIENT_COMPONENT, OFFICE_LABEL, SERVER, SERVER_ADDRESS_KEY, client_objects, digest,
    label_value, labels,
};
use crate::pod::{
    CLIENT_HTTP_PORT, PROGRAM, add_placement, from_pod, no_rights, owner, ports, probe, resources, storage_container,
};
use crate::settings::Settings;

/// Where the join token is in a client's container.
const JOIN_TOKEN_FOLDER: &str = "/etc/peerdist/join-token";
/// Where the address of the server is.
const SERVER_FOLDER: &str = "/etc/peerdist/server";
/// Annotation of a pod with the digest of its environment: pods read it only when they start.
const CONFIGURATION_ANNOTATION: &str = "peerdist.io/configuration";

/// What an office has in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientObjects {
    /// What its clients are told by environment variables.
    pub config_map: Desired,
    /// Whom its clients run as. Without rights.
    pub service_account: Desired,
    /// Its clients.
    pub daemon_set: Desired,
}

/// Builds all objects of an office.
pub fn build(office: &ValidOffice, settings: &Settings, namespace: &str) -> ClientObjects {
    let name = client_objects(office.office.name.as_str());
    let configuration = configuration(office);
    let metadata = metadata(office);
    let config_map = json!({"metadata": metadata, "data": configuration});
    let service_account = json!({"metadata": metadata, "automountServiceAccountToken": false});
    let daemon_set = json!({
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": pod_selector(office)},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": format!("{}%", settings.client.max_unavailable_percent)},
            },
            "revisionHistoryLimit": 3,
            "template": template(office, settings, &name, &configuration),
        },
    });
    ClientObjects {
        config_map: Desired::new::<ConfigMap>(namespace, &name, config_map),
        service_account: Desired::new::<ServiceAccount>(namespace, &name, service_account),
        daemon_set: Desired::new::<DaemonSet>(namespace, &name, daemon_set),
    }
}

fn metadata(office: &ValidOffice) -> Value {
    let name = office.office.name.as_str();
    let mut labels = labels(CLIENT_COMPONENT);
    labels.insert(OFFICE_LABEL.to_owned(), label_value(name));
    json!({"labels": labels, "ownerReferences": owner(name, &office.uid)})
}

fn pod_selector(office: &ValidOffice) -> Value {
    json!({
        "app.kubernetes.io/name": "peerdist",
        "app.kubernetes.io/component": CLIENT_COMPONENT,
        OFFICE_LABEL: label_value(office.office.name.as_str()),
    })
}

fn configuration(office: &ValidOffice) -> Value {
    json!({
        "PEERDIST_OFFICE": office.office.name.as_str(),
        "PEERDIST_ROOT": office.storage_path,
        "PEERDIST_JOIN_TOKEN_FILE": format!("{JOIN_TOKEN_FOLDER}/token"),
    })
}

fn template(office: &ValidOffice, settings: &Settings, name: &str, configuration: &Value) -> Value {
    let pod = &settings.client.pod;
    let mut template = json!({
        "metadata": {
            "labels": pod_selector(office),
            "annotations": {CONFIGURATION_ANNOTATION: digest(&configuration.to_string())},
        },
        "spec": {
            "hostNetwork": true,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "serviceAccountName": name,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "nodeSelector": node_selector(office),
            "initContainers": [storage_container(&settings.image, pod, &office.storage_path)],
            "containers": [client_container(office, settings, name)],
            "volumes": volumes(office, settings),
        },
    });
    add_placement(&mut template, pod, &settings.image_pull_secrets);
    template
}

fn node_selector(office: &ValidOffice) -> Value {
    match &office.selection {
        NodeSelection::Labels(labels) => json!(labels),
        NodeSelection::Subnets(_) => json!({ASSIGNED_OFFICE_LABEL: label_value(office.office.name.as_str())}),
    }
}

fn client_container(office: &ValidOffice, settings: &Settings, name: &str) -> Value {
    json!({
        "name": CLIENT_COMPONENT,
        "image": settings.image,
        "command": [PROGRAM],
        "args": ["client"],
        "envFrom": [{"configMapRef": {"name": name}}],
        "env": [
            from_pod("PEERDIST_NODE", "spec.nodeName"),
            from_pod("PEERDIST_ADDRESS", "status.hostIP"),
            {
                "name": "PEERDIST_SERVER",
                "valueFrom": {"configMapKeyRef": {"name": SERVER, "key": SERVER_ADDRESS_KEY}},
            },
        ],
        "ports": ports(Role::Client, CLIENT_HTTP_PORT),
        "resources": resources(&settings.client.pod),
        "securityContext": no_rights(),
        "livenessProbe": probe("/livez", CLIENT_HTTP_PORT, 20),
        "readinessProbe": probe("/readyz", CLIENT_HTTP_PORT, 10),
        "volumeMounts": [
            {"name": "storage", "mountPath": office.storage_path},
            {"name": "join-token", "mountPath": JOIN_TOKEN_FOLDER, "readOnly": true},
            {"name": "server", "mountPath": SERVER_FOLDER, "readOnly": true},
        ],
    })
}

/// The Secret may come later: a client waits for its token.
fn volumes(office: &ValidOffice, settings: &Settings) -> Value {
    json!([
        {"name": "storage", "hostPath": {"path": office.storage_path, "type": "DirectoryOrCreate"}},
        {"name": "join-token", "secret": {"secretName": settings.join_token_secret, "optional": true}},
        {"name": "server", "configMap": {"name": SERVER, "optional": true}},
    ])
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::fleet::Fleet;
    use crate::fleet::tests::{office, site};
    use crate::golden::check_golden;
    use crate::settings::tests::settings;

    fn built(spec: Value, settings: &Settings) -> ClientObjects {
        let offices = [office("hub", 1, site("hub", None)), office("store-0042", 2, spec)];
        let fleet = Fleet::new(&offices, &[]);
        let valid = fleet.accepted().find(|office| office.office.name.as_str() == "store-0042").unwrap();
        build(valid, settings, "peerdist")
    }

    /// Nothing may get lost on the way through the types of Kubernetes: that would be a field it does not know.
    fn check_known<K: Serialize + DeserializeOwned>(desired: &Desired) {
        let typed: K = serde_json::from_value(desired.body.clone()).unwrap();
        let again = serde_json::to_value(typed).unwrap();
        assert!(!crate::apply::differs(&desired.body, &again), "{again}");
    }

    #[test]
    fn objects_are_as_committed() {
        let objects = built(site("store", Some("hub")), &settings());
        let ClientObjects { config_map, service_account, daemon_set } = &objects;
        check_golden("office.yaml", &[&config_map.body, &service_account.body, &daemon_set.body]);
        check_known::<ConfigMap>(config_map);
        check_known::<ServiceAccount>(service_account);
        check_known::<DaemonSet>(daemon_set);
    }

    #[test]
    fn offices_by_subnet_select_by_the_label_of_the_operator() {
        let objects = built(json!({"parent": "hub", "subnets": ["10.42.0.0/24"]}), &settings());
        let selector = &objects.daemon_set.body["spec"]["template"]["spec"]["nodeSelector"];
        assert_eq!(*selector, json!({ASSIGNED_OFFICE_LABEL: "store-0042"}));
    }

    #[test]
    fn the_same_office_gives_the_same_objects_and_another_image_gives_others() {
        let objects = built(site("store", Some("hub")), &settings());
        assert_eq!(built(site("store", Some("hub")), &settings()), objects);
        let other = Settings { image: "other".to_owned(), ..settings() };
        let changed = built(site("store", Some("hub")), &other);
        assert!(crate::apply::differs(&changed.daemon_set.body, &objects.daemon_set.body));
        assert_eq!(changed.config_map, objects.config_map);
    }

    #[test]
    fn tolerations_priority_and_pull_secrets_reach_the_pod() {
        let mut settings = settings();
        settings.image_pull_secrets = vec!["registry".to_owned()];
        settings.client.pod.priority_class_name = Some("high".to_owned());
        settings.client.pod.tolerations =
            vec![serde_json::from_value(json!({"key": "edge", "operator": "Exists"})).unwrap()];
        let objects = built(site("store", Some("hub")), &settings);
        let pod = &objects.daemon_set.body["spec"]["template"]["spec"];
        assert_eq!(pod["priorityClassName"], "high");
        assert_eq!(pod["tolerations"], json!([{"key": "edge", "operator": "Exists"}]));
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
    }
}
