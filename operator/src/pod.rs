//! What the pods of clients and server have in common: ports, rights, resources, probes.

use std::collections::BTreeSet;

use peerdist_core::ports::{ROWS, Role};
use serde_json::{Value, json};

use crate::preflight::PREFLIGHT_CONTAINER;
use crate::settings::{PodSettings, Settings, TracesSettings};

/// The program in the image.
pub(crate) const PROGRAM: &str = "peerdist";
/// User and group that the program runs as.
pub(crate) const USER: u32 = 65532;
/// TCP port of the server's metrics and health.
pub(crate) const SERVER_HTTP_PORT: u16 = 9760;
/// TCP port of a client's metrics and health.
pub(crate) const CLIENT_HTTP_PORT: u16 = 9761;

/// Every port that a role binds, from the catalogue. Named as host ports, so that two pods that would bind the same
/// ones are never put on one node.
pub(crate) fn ports(role: Role, http: u16) -> Value {
    let numbers: BTreeSet<u16> = ROWS.iter().filter(|row| row.to == role).map(|row| row.port).collect();
    let port = |name: String, number: u16, protocol: &str| json!({"name": name, "containerPort": number, "hostPort": number, "protocol": protocol});
    let udp = numbers.into_iter().map(|number| port(format!("udp-{number}"), number, "UDP"));
    udp.chain([port("http".to_owned(), http, "TCP")]).collect()
}

/// Rights of a container that runs the program: none.
pub(crate) fn no_rights() -> Value {
    json!({
        "runAsUser": USER,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The container that makes a directory of the node and gives it to the program's user, which kubelet does not do for
/// a path of the host.
fn storage_container(image: &str, pod: &PodSettings, path: &str) -> Value {
    json!({
        "name": "storage",
        "image": image,
        "command": [PROGRAM],
        "args": ["prepare-storage", "--root", path, "--owner", USER.to_string()],
        "resources": resources(pod),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "storage", "mountPath": path}],
    })
}

/// What runs before the program: its directory if it is one of the host, its ports reserved if that is asked for, and a
/// look whether somebody else has them.
pub(crate) fn init_containers(settings: &Settings, pod: &PodSettings, host_path: Option<&str>, role: Role) -> Value {
    let storage = host_path.map(|path| storage_container(&settings.image, pod, path));
    let reserve = settings.reserve_ports.then(|| reserve_container(&settings.image, pod));
    storage.into_iter().chain(reserve).chain([preflight_container(&settings.image, pod, role)]).collect()
}

/// The container that says who has a port that the program needs. Kubelet keeps its last words.
fn preflight_container(image: &str, pod: &PodSettings, role: Role) -> Value {
    let role = match role {
        Role::Server => "server",
        Role::Client => "client",
        Role::Vesc => "vesc",
    };
    json!({
        "name": PREFLIGHT_CONTAINER,
        "image": image,
        "command": [PROGRAM],
        "args": ["preflight", "--role", role],
        "env": [from_pod("PEERDIST_ADDRESS", "status.hostIP")],
        "resources": resources(pod),
        "securityContext": no_rights(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    })
}

/// The container that writes a setting of the node's kernel, which /proc/sys allows to privileged ones only.
fn reserve_container(image: &str, pod: &PodSettings) -> Value {
    json!({
        "name": "reserve-ports",
        "image": image,
        "command": [PROGRAM],
        "args": ["reserve-ports"],
        "resources": resources(pod),
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "readOnlyRootFilesystem": true,
            // Whoever is privileged may also gain rights: what looks at pods refuses one without the other.
            "privileged": true, "allowPrivilegeEscalation": true,
        },
    })
}

/// Memory is asked for as much as it is limited, so that a pod is not killed for what it was promised.
pub(crate) fn resources(pod: &PodSettings) -> Value {
    let memory = pod.memory.to_string();
    json!({"limits": {"memory": memory}, "requests": {"memory": memory, "cpu": processors(pod.cpu_millicores)}})
}

/// As Kubernetes itself writes it.
fn processors(millicores: u32) -> String {
    if millicores.is_multiple_of(1000) { (millicores / 1000).to_string() } else { format!("{millicores}m") }
}

/// A probe of the program's own endpoints, on the node's address.
pub(crate) fn probe(path: &str, port: u16, period_seconds: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    })
}

/// Puts what a pod has only if it is set.
pub(crate) fn add_placement(template: &mut Value, pod: &PodSettings, image_pull_secrets: &[String]) {
    let PodSettings { memory: _, cpu_millicores: _, priority_class_name, tolerations } = pod;
    if let Some(class) = priority_class_name {
        template["spec"]["priorityClassName"] = json!(class);
    }
    if !tolerations.is_empty() {
        template["spec"]["tolerations"] = json!(tolerations);
    }
    if !image_pull_secrets.is_empty() {
        let named = image_pull_secrets.iter().map(|name| json!({"name": name}));
        template["spec"]["imagePullSecrets"] = named.collect();
    }
}

/// Tells the program where traces go, if they are wanted.
pub(crate) fn add_traces(container: &mut Value, traces: &TracesSettings) {
    let TracesSettings { endpoint } = traces;
    if let (Some(endpoint), Some(variables)) = (endpoint, container["env"].as_array_mut()) {
        variables.push(json!({"name": peerdist_telemetry::ENDPOINT_VARIABLE, "value": endpoint}));
    }
}

/// An environment variable with something that Kubernetes knows of the pod.
pub(crate) fn from_pod(name: &str, field: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}})
}

/// An owner of an object: the Office that it is made for. Deleting the Office deletes the object.
pub(crate) fn owner(office: &str, uid: &str) -> Value {
    json!([{
        "apiVersion": peerdist_crds::API_VERSION,
        "kind": "Office",
        "name": office,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}
