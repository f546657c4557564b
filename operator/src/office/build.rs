//! Office and settings in, DaemonSet and ServiceAccount out. Pure. What clients are told stands in the pod template, so
//! that pods and what they are told change in one write; the address of the server does not, since nothing may be rolled
//! out when it moves.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use peerdist_core::ports::Role;
use peerdist_crds::names::{TOKEN_AUDIENCE, TRUST, TRUST_KEY};
use peerdist_crds::office::NodeSelection;
use serde_json::{Value, json};

use crate::apply::Desired;
use crate::fleet::ValidOffice;
use crate::names::{
    ASSIGNED_OFFICE_LABEL, CLIENT_COMPONENT, OFFICE_LABEL, SERVER, SERVER_ADDRESS_KEY, client_objects, label_value,
    labels,
};
use crate::pod::{
    CLIENT_HTTP_PORT, PROGRAM, add_placement, add_traces, from_pod, init_containers, no_rights, owner, ports, probe,
    resources,
};
use crate::settings::Settings;

/// Where a client finds the token of its pod, whom to trust, and the address of the server, which it follows.
const FOLDER: &str = "/etc/peerdist";
/// Kubelet makes a new token when little of this is left; a client shows it once, when it enrols.
const TOKEN_SECONDS: u32 = 3600;

/// What an office has in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientObjects {
    /// Whom its clients run as. Without rights.
    pub service_account: Desired,
    /// Its clients.
    pub daemon_set: Desired,
}

/// Builds all objects of an office.
pub fn build(office: &ValidOffice, settings: &Settings, namespace: &str) -> ClientObjects {
    let name = client_objects(office.office.name.as_str());
    let metadata = metadata(office);
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
            "template": template(office, settings, &name),
        },
    });
    ClientObjects {
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

fn template(office: &ValidOffice, settings: &Settings, name: &str) -> Value {
    let pod = &settings.client.pod;
    let mut template = json!({
        "metadata": {"labels": pod_selector(office)},
        "spec": {
            "hostNetwork": true,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "serviceAccountName": name,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "nodeSelector": node_selector(office),
            "initContainers": init_containers(settings, pod, Some(&office.storage_path), Role::Client),
            "containers": [client_container(office, settings)],
            "volumes": volumes(office),
        },
    });
    if matches!(office.selection, NodeSelection::Labels(_)) {
        template["spec"]["affinity"] = unless_of_another(office);
    }
    add_placement(&mut template, pod, &settings.image_pull_secrets);
    template
}

/// The labels that a node of the office must have.
pub(super) fn node_selector(office: &ValidOffice) -> BTreeMap<String, String> {
    match &office.selection {
        NodeSelection::Labels(labels) => labels.clone(),
        NodeSelection::Subnets(_) => {
            BTreeMap::from([(ASSIGNED_OFFICE_LABEL.to_owned(), label_value(office.office.name.as_str()))])
        }
    }
}

/// A node that the operator gave to another office is left out, although it has the labels.
fn unless_of_another(office: &ValidOffice) -> Value {
    let own = label_value(office.office.name.as_str());
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": ASSIGNED_OFFICE_LABEL, "operator": "DoesNotExist"}]},
        {"matchExpressions": [{"key": ASSIGNED_OFFICE_LABEL, "operator": "In", "values": [own]}]},
    ]}}})
}

fn client_container(office: &ValidOffice, settings: &Settings) -> Value {
    let mut container = json!({
        "name": CLIENT_COMPONENT,
        "image": settings.image,
        "command": [PROGRAM],
        "args": ["client"],
        "env": [
            {"name": "PEERDIST_OFFICE", "value": office.office.name.as_str()},
            {"name": "PEERDIST_ROOT", "value": office.storage_path},
            {"name": "PEERDIST_JOIN_TOKEN_FILE", "value": format!("{FOLDER}/token")},
            {"name": "PEERDIST_TRUST_FILE", "value": format!("{FOLDER}/{TRUST_KEY}")},
            {"name": "PEERDIST_SERVER_FILE", "value": format!("{FOLDER}/{SERVER_ADDRESS_KEY}")},
            from_pod("PEERDIST_NODE", "spec.nodeName"),
            from_pod("PEERDIST_ADDRESS", "status.hostIP"),
        ],
        "ports": ports(Role::Client, CLIENT_HTTP_PORT),
        "resources": resources(&settings.client.pod),
        "securityContext": no_rights(),
        // No startup probe: the program answers while it still checks its storage, which may take minutes.
        "livenessProbe": probe("/livez", CLIENT_HTTP_PORT, 20),
        "readinessProbe": probe("/readyz", CLIENT_HTTP_PORT, 10),
        "volumeMounts": [
            {"name": "storage", "mountPath": office.storage_path},
            {"name": "enrolment", "mountPath": FOLDER, "readOnly": true},
        ],
    });
    add_traces(&mut container, &settings.traces);
    container
}

/// Kubelet starts the pod once the ConfigMaps are there, which it tries again after seconds; what is optional and comes
/// later shows in a volume only after a minute or more.
fn volumes(office: &ValidOffice) -> Value {
    let from_map = |name: &str, key: &str| json!({"configMap": {"name": name, "items": [{"key": key, "path": key}]}});
    let token = json!({
        "serviceAccountToken": {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"},
    });
    json!([
        {"name": "storage", "hostPath": {"path": office.storage_path, "type": "DirectoryOrCreate"}},
        {"name": "enrolment", "projected": {"sources": [
            token, from_map(TRUST, TRUST_KEY), from_map(SERVER, SERVER_ADDRESS_KEY),
        ]}},
    ])
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::fleet::tests::{judged, office, site};
    use crate::golden::check_golden;
    use crate::settings::tests::{settings, traced_settings};

    fn built(spec: Value, settings: &Settings) -> ClientObjects {
        let offices = [office("hub", 1, site("hub", None)), office("store-0042", 2, spec)];
        let fleet = judged(&offices, &[]);
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
        let ClientObjects { service_account, daemon_set } = &objects;
        check_golden("office.yaml", &[&service_account.body, &daemon_set.body]);
        check_known::<ServiceAccount>(service_account);
        check_known::<DaemonSet>(daemon_set);
    }

    #[test]
    fn offices_by_subnet_select_by_the_label_of_the_operator() {
        let objects = built(json!({"parent": "hub", "subnets": ["10.42.0.0/24"]}), &settings());
        let selector = &objects.daemon_set.body["spec"]["template"]["spec"]["nodeSelector"];
        assert_eq!(*selector, json!({ASSIGNED_OFFICE_LABEL: "store-0042"}));
        assert_eq!(objects.daemon_set.body["spec"]["template"]["spec"]["affinity"], Value::Null);
    }

    #[test]
    fn offices_by_label_leave_out_nodes_that_the_operator_gave_to_others() {
        let objects = built(site("store", Some("hub")), &settings());
        let affinity = &objects.daemon_set.body["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let expression = |index: usize| &terms[index]["matchExpressions"][0];
        assert_eq!(*expression(0), json!({"key": ASSIGNED_OFFICE_LABEL, "operator": "DoesNotExist"}));
        assert_eq!(expression(1)["values"], json!(["store-0042"]));
    }

    #[test]
    fn what_clients_are_told_changes_with_the_pods_in_one_write() {
        let moved = |path: &str| {
            let mut spec = site("store", Some("hub"));
            spec["storage"] = json!({"path": path});
            built(spec, &settings())
        };
        let (before, after) = (moved("/var/lib/peerdist/a"), moved("/var/lib/peerdist/b/"));
        assert_eq!(before.service_account, after.service_account);
        assert_ne!(before.daemon_set, after.daemon_set);
        let variables = &after.daemon_set.body["spec"]["template"]["spec"]["containers"][0]["env"];
        assert!(
            variables.to_string().contains(r#"{"name":"PEERDIST_ROOT","value":"/var/lib/peerdist/b"}"#),
            "{variables}"
        );
    }

    #[test]
    fn clients_send_traces_where_the_settings_say() {
        let variables = |settings: &Settings| {
            let objects = built(site("store", Some("hub")), settings);
            objects.daemon_set.body["spec"]["template"]["spec"]["containers"][0]["env"].to_string()
        };
        assert!(!variables(&settings()).contains("OTEL"));
        let traced = variables(&traced_settings());
        assert!(traced.contains(r#"{"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"http://otel:4318"}"#), "{traced}");
    }

    #[test]
    fn ports_are_reserved_only_if_that_is_asked_for() {
        let names = |settings: &Settings| -> Vec<String> {
            let objects = built(site("store", Some("hub")), settings);
            let containers = &objects.daemon_set.body["spec"]["template"]["spec"]["initContainers"];
            let name = |container: &Value| container["name"].as_str().unwrap().to_owned();
            containers.as_array().unwrap().iter().map(name).collect()
        };
        assert_eq!(names(&settings()), ["storage", "preflight"]);
        let reserving = Settings { reserve_ports: true, ..settings() };
        assert_eq!(names(&reserving), ["storage", "reserve-ports", "preflight"]);
        let objects = built(site("store", Some("hub")), &reserving);
        let context = &objects.daemon_set.body["spec"]["template"]["spec"]["initContainers"][1]["securityContext"];
        assert_eq!((&context["privileged"], &context["allowPrivilegeEscalation"]), (&json!(true), &json!(true)));
    }

    #[test]
    fn the_same_office_gives_the_same_objects_and_another_image_gives_others() {
        let objects = built(site("store", Some("hub")), &settings());
        assert_eq!(built(site("store", Some("hub")), &settings()), objects);
        let other = Settings { image: "other".to_owned(), ..settings() };
        let changed = built(site("store", Some("hub")), &other);
        assert!(crate::apply::differs(&changed.daemon_set.body, &objects.daemon_set.body));
        assert_eq!(changed.service_account, objects.service_account);
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
