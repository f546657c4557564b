//! Central Office and settings in, the server's StatefulSet, ServiceAccount and ConfigMap out. Pure.

use std::path::Path;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use peerdist_core::ports::Role;
use serde_json::{Value, json};

use crate::apply::Desired;
use crate::fleet::ValidOffice;
use crate::names::{
    NETWORKS, NETWORKS_KEY, SERVER, SERVER_ADDRESS_KEY, SERVER_COMPONENT, SERVER_IDENTITY, SERVER_NODE_LABEL,
    SERVER_NODES_KEY, labels,
};
use crate::pod::{
    PROGRAM, SERVER_HTTP_PORT, USER, add_placement, add_traces, from_pod, init_containers, no_rights, owner, ports,
    probe, resources,
};
use crate::server::Place;
use crate::settings::{FileRoots, ServerStorage, Settings, SourceAuthorities};

/// Where a volume of the cluster is mounted.
const CLAIM_FOLDER: &str = "/var/lib/peerdist-server";

/// Where it finds the networks that sources must not lead to, and follows them.
const NETWORKS_FOLDER: &str = "/etc/peerdist";
/// Where it finds its identity, and follows it.
const IDENTITY_FOLDER: &str = "/etc/peerdist-identity";
/// Where it finds authorities of sources besides those of its image, and follows them.
const AUTHORITIES_FOLDER: &str = "/etc/peerdist-source-authorities";
/// What the one file in there is called, whatever its key.
const AUTHORITIES_FILE: &str = "ca.crt";
/// Where the image has the public ones. A program that is told of a folder looks nowhere else by itself.
const AUTHORITIES_OF_IMAGE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Kubelet lets the group of the pod read, which is the program's own, and nobody else.
const IDENTITY_MODE: u32 = 0o440;

/// What the server has in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerObjects {
    /// Where it is and was; absent until that is known for the first time.
    pub config_map: Option<Desired>,
    /// Networks that sources must not lead to.
    pub networks: Desired,
    /// Whom it runs as. Its rights come with the installation: the operator hands out none.
    pub service_account: Desired,
    /// The server.
    pub stateful_set: Desired,
}

/// What is told about a server that runs already: where it is, and which networks are the cluster's own.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerMaps {
    /// Where it is and was; absent until that is known for the first time.
    pub config_map: Option<Desired>,
    /// Networks that sources must not lead to.
    pub networks: Desired,
}

/// Builds what is told about the server of the Office with this name and identity.
pub fn build_maps(office: &str, uid: &str, place: Option<&Place>, networks: &[IpNet], namespace: &str) -> ServerMaps {
    let metadata = metadata(office, uid);
    let config_map = place.map(|Place { address, nodes }| {
        let nodes: String = nodes.iter().map(|node| format!("{node}\n")).collect();
        let data = json!({SERVER_ADDRESS_KEY: address.to_string(), SERVER_NODES_KEY: nodes});
        Desired::new::<ConfigMap>(namespace, SERVER, json!({"metadata": metadata, "data": data}))
    });
    let lines: String = networks.iter().map(|network| format!("{network}\n")).collect();
    let data = json!({NETWORKS_KEY: lines});
    let networks = Desired::new::<ConfigMap>(namespace, NETWORKS, json!({"metadata": metadata, "data": data}));
    ServerMaps { config_map, networks }
}

/// Builds all objects of the server.
pub fn build(
    central: &ValidOffice,
    place: Option<&Place>,
    networks: &[IpNet],
    settings: &Settings,
    namespace: &str,
) -> ServerObjects {
    let office = central.office.name.as_str();
    let ServerMaps { config_map, networks } = build_maps(office, &central.uid, place, networks, namespace);
    let metadata = metadata(office, &central.uid);
    let service_account = Desired::new::<ServiceAccount>(namespace, SERVER, json!({"metadata": metadata}));
    let mut stateful_set = json!({
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            // Otherwise a pod that never becomes ready is never replaced by a better one.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": pod_labels()},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": template(settings),
        },
    });
    if let ServerStorage::Claim { size, storage_class_name } = &settings.server.storage {
        let mut claim = json!({
            "metadata": {"name": "storage"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size.to_string()}}},
        });
        if let Some(class) = storage_class_name {
            claim["spec"]["storageClassName"] = json!(class);
        }
        stateful_set["spec"]["volumeClaimTemplates"] = json!([claim]);
    }
    let stateful_set = Desired::new::<StatefulSet>(namespace, SERVER, stateful_set);
    ServerObjects { config_map, networks, service_account, stateful_set }
}

fn metadata(office: &str, uid: &str) -> Value {
    json!({"labels": labels(SERVER_COMPONENT), "ownerReferences": owner(office, uid)})
}

fn pod_labels() -> Value {
    json!({"app.kubernetes.io/name": "peerdist", "app.kubernetes.io/component": SERVER_COMPONENT})
}

fn template(settings: &Settings) -> Value {
    let pod = &settings.server.pod;
    let mut template = json!({
        "metadata": {"labels": pod_labels()},
        "spec": {
            "hostNetwork": true,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "serviceAccountName": SERVER,
            "enableServiceLinks": false,
            "securityContext": {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"},
            "terminationGracePeriodSeconds": 60,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": SERVER_NODE_LABEL, "operator": "Exists"}]},
            ]}}},
            "containers": [container(settings)],
        },
    });
    let host_path = match &settings.server.storage {
        ServerStorage::HostPath(path) => Some(path.as_str()),
        ServerStorage::Claim { .. } => None,
    };
    template["spec"]["initContainers"] = init_containers(settings, pod, host_path, Role::Server);
    // Nothing is fetched before the networks are known: without the ConfigMap the pod does not start.
    let items = json!([{"key": NETWORKS_KEY, "path": NETWORKS_KEY}]);
    let networks = json!({"name": "networks", "configMap": {"name": NETWORKS, "items": items}});
    // Nor is anybody enrolled before the operator has made the identity.
    let identity = json!({"name": "identity", "secret": {"secretName": SERVER_IDENTITY, "defaultMode": IDENTITY_MODE}});
    let storage =
        host_path.map(|path| json!({"name": "storage", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}));
    // A node that does not have them is no node for this server: an empty folder made there would only look like one.
    let roots = file_roots(settings);
    let files = roots
        .iter()
        .enumerate()
        .map(|(index, root)| json!({"name": files_volume(index), "hostPath": {"path": root, "type": "Directory"}}));
    let authorities = settings.server.source_authorities.as_ref().map(authorities_volume);
    template["spec"]["volumes"] =
        storage.into_iter().chain([networks, identity]).chain(authorities).chain(files).collect();
    add_placement(&mut template, pod, &settings.image_pull_secrets);
    template
}

/// Where the server stores.
fn root(settings: &Settings) -> &str {
    match &settings.server.storage {
        ServerStorage::HostPath(path) => path,
        ServerStorage::Claim { .. } => CLAIM_FOLDER,
    }
}

/// The settings were checked beside the storage that they ask for; a server that keeps another must not read that as a
/// source either.
fn file_roots(settings: &Settings) -> FileRoots {
    settings.server.file_roots.apart_from(Path::new(root(settings)))
}

/// Without the ConfigMap the pod does not start: a name that is wrong is told at once, not by one source after the other.
fn authorities_volume(authorities: &SourceAuthorities) -> Value {
    let SourceAuthorities { config_map, key } = authorities;
    let items = json!([{"key": key, "path": AUTHORITIES_FILE}]);
    json!({"name": "source-authorities", "configMap": {"name": config_map, "items": items}})
}

/// The whole folder is mounted: kubelet does not renew a file that is mounted by itself.
fn add_authorities(container: &mut Value) {
    if let Some(variables) = container["env"].as_array_mut() {
        variables.push(json!({"name": "SSL_CERT_FILE", "value": AUTHORITIES_OF_IMAGE}));
        variables.push(json!({"name": "SSL_CERT_DIR", "value": AUTHORITIES_FOLDER}));
    }
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.push(json!({"name": "source-authorities", "mountPath": AUTHORITIES_FOLDER, "readOnly": true}));
    }
}

fn files_volume(index: usize) -> String {
    format!("files-{index}")
}

fn container(settings: &Settings) -> Value {
    let root = root(settings);
    let mut container = json!({
        "name": SERVER_COMPONENT,
        "image": settings.image,
        "command": [PROGRAM],
        "args": ["server", "--kubernetes", format!("--forbidden-sources-file={NETWORKS_FOLDER}/{NETWORKS_KEY}")],
        "env": [
            from_pod("PEERDIST_ADDRESS", "status.hostIP"),
            {"name": "PEERDIST_ROOT", "value": root},
            {"name": "PEERDIST_JOIN_TOKEN_FILE", "value": format!("{root}/join-token")},
            {"name": "PEERDIST_AUTHORITY", "value": IDENTITY_FOLDER},
        ],
        "ports": ports(Role::Server, SERVER_HTTP_PORT),
        "resources": resources(&settings.server.pod),
        "securityContext": no_rights(),
        // No startup probe: the program answers while it still checks its storage, which may take minutes.
        "livenessProbe": probe("/livez", SERVER_HTTP_PORT, 20),
        "readinessProbe": probe("/readyz", SERVER_HTTP_PORT, 10),
        "volumeMounts": [
            {"name": "storage", "mountPath": root},
            {"name": "networks", "mountPath": NETWORKS_FOLDER, "readOnly": true},
            {"name": "identity", "mountPath": IDENTITY_FOLDER, "readOnly": true},
        ],
    });
    add_traces(&mut container, &settings.traces);
    let server = &settings.server;
    if server.source_authorities.is_some() {
        add_authorities(&mut container);
    }
    for (flag, networks) in
        [("--allowed-sources", &server.allowed_sources), ("--forbidden-sources", &server.forbidden_sources)]
    {
        if let (false, Some(arguments)) = (networks.is_empty(), container["args"].as_array_mut()) {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            arguments.push(json!(format!("{flag}={}", networks.join(","))));
        }
    }
    let roots = file_roots(settings);
    if let (false, Some(arguments)) = (roots.is_empty(), container["args"].as_array_mut()) {
        arguments.push(json!(format!("--file-roots={roots}")));
    }
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        let mount =
            |(index, root): (usize, &Path)| json!({"name": files_volume(index), "mountPath": root, "readOnly": true});
        mounts.extend(roots.iter().enumerate().map(mount));
    }
    // What fills a volume of its own keeps nobody else from writing, and kubelet evicts nobody for it.
    let is_volume = matches!(server.storage, ServerStorage::Claim { .. });
    let kept_free_percent = server.keep_free_percent.or(is_volume.then_some(0));
    for (flag, value) in [
        ("--retention-seconds", server.retention_seconds.map(|seconds| seconds.to_string())),
        ("--storage-limit", server.storage_limit.map(|limit| limit.to_string())),
        ("--keep-free-percent", kept_free_percent.map(|percent| percent.to_string())),
    ] {
        if let (Some(value), Some(arguments)) = (value, container["args"].as_array_mut()) {
            arguments.push(json!(format!("{flag}={value}")));
        }
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::differs;
    use crate::fleet::tests::{judged, office, site};
    use crate::golden::check_golden;
    use crate::settings::tests::{settings, traced_settings};

    fn built(address: Option<&str>, settings: &Settings) -> ServerObjects {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let central = fleet.accepted().next().unwrap();
        let networks = ["10.1.0.1/32", "10.96.0.0/12"].map(|network| network.parse().unwrap());
        build(central, address.map(place).as_ref(), &networks, settings, "peerdist")
    }

    /// After it moved once.
    fn place(address: &str) -> Place {
        Place { address: address.parse().unwrap(), nodes: ["hub-2", "hub-1"].map(str::to_owned).to_vec() }
    }

    #[test]
    fn objects_are_as_committed() {
        let objects = built(Some("10.0.0.7"), &settings());
        let config_map = objects.config_map.unwrap();
        let (networks, account) = (&objects.networks.body, &objects.service_account.body);
        check_golden("server.yaml", &[&config_map.body, networks, account, &objects.stateful_set.body]);
        let typed: StatefulSet = serde_json::from_value(objects.stateful_set.body.clone()).unwrap();
        assert!(!differs(&objects.stateful_set.body, &serde_json::to_value(typed).unwrap()));
    }

    #[test]
    fn a_pod_that_never_became_ready_is_replaced_all_the_same() {
        assert_eq!(built(None, &settings()).stateful_set.body["spec"]["podManagementPolicy"], "Parallel");
    }

    #[test]
    fn a_server_that_moves_changes_nothing_but_its_place() {
        let (here, there) = (built(Some("10.0.0.7"), &settings()), built(Some("10.0.0.8"), &settings()));
        assert_eq!(here.stateful_set, there.stateful_set);
        assert_ne!(here.config_map, there.config_map);
        let told = here.config_map.unwrap().body["data"].clone();
        assert_eq!(told, json!({"address": "10.0.0.7", "nodes": "hub-2\nhub-1\n"}));
        assert_eq!(built(None, &settings()).config_map, None);
    }

    #[test]
    fn what_is_told_about_a_server_is_the_same_while_its_office_is_refused() {
        let objects = built(Some("10.0.0.7"), &settings());
        let networks = ["10.1.0.1/32", "10.96.0.0/12"].map(|network| network.parse().unwrap());
        let maps = build_maps("hub", "uid-hub", Some(&place("10.0.0.7")), &networks, "peerdist");
        assert_eq!((maps.config_map, maps.networks), (objects.config_map, objects.networks));
    }

    #[test]
    fn a_new_node_changes_the_networks_and_rolls_nothing() {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let central = fleet.accepted().next().unwrap();
        let built = |networks: &[IpNet]| build(central, None, networks, &settings(), "peerdist");
        let (few, more) = (built(&[]), built(&["10.1.0.1/32".parse().unwrap()]));
        assert_eq!(few.stateful_set, more.stateful_set);
        assert_ne!(few.networks, more.networks);
    }

    #[test]
    fn server_sends_traces_where_the_settings_say() {
        let variables = |settings: &Settings| {
            built(None, settings).stateful_set.body["spec"]["template"]["spec"]["containers"][0]["env"].to_string()
        };
        assert!(!variables(&settings()).contains("OTEL"));
        let traced = variables(&traced_settings());
        assert!(traced.contains(r#"{"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"http://otel:4318"}"#), "{traced}");
    }

    #[test]
    fn old_versions_stay_as_long_as_the_settings_say() {
        let text = "image: a\nserver: {storage: {hostPath: /x}, retentionSeconds: 60}";
        let arguments = |settings: &Settings| {
            built(None, settings).stateful_set.body["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
        };
        assert!(arguments(&Settings::parse(text).unwrap()).contains("--retention-seconds=60"));
        assert!(!arguments(&settings()).contains("--retention"), "the program knows what is usual");
    }

    #[test]
    fn the_library_is_bounded_as_the_settings_say_and_has_a_volume_for_itself() {
        for (server, expected) in [
            ("storage: {hostPath: /x}", ""),
            ("storage: {hostPath: /x}, storageLimit: 1.5Ti, keepFreePercent: 5", "1536Gi 5"),
            ("storage: {hostPath: /x}, keepFreePercent: 0", "0"),
            ("storage: {claim: {size: 1Gi}}", "0"),
            ("storage: {claim: {size: 1Gi}}, storageLimit: 500M, keepFreePercent: 7", "500000000 7"),
        ] {
            let settings = Settings::parse(&format!("image: a\nserver: {{{server}}}")).unwrap();
            let set = built(None, &settings).stateful_set.body;
            let arguments = set["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
            let flags = ["--storage-limit=", "--keep-free-percent="];
            let value = |argument: &Value| {
                let argument = argument.as_str().unwrap();
                flags.iter().find_map(|flag| argument.strip_prefix(flag)).map(str::to_owned)
            };
            assert_eq!(arguments.iter().filter_map(value).collect::<Vec<_>>().join(" "), expected, "{server}");
        }
    }

    #[test]
    fn authorities_of_a_config_map_count_beside_those_of_the_image() {
        let text = "image: registry.example/peerdist:1\nserver:\n  storage: {hostPath: /var/lib/peerdist-server}\n  \
                    sourceAuthorities: {configMap: company-roots, key: roots.pem}\n";
        let set = built(None, &Settings::parse(text).unwrap()).stateful_set.body;
        check_golden("server-source-authorities.yaml", &[&set]);
        let spec = &set["spec"]["template"]["spec"];
        let source = json!({"name": "company-roots", "items": [{"key": "roots.pem", "path": "ca.crt"}]});
        assert_eq!(spec["volumes"][3], json!({"name": "source-authorities", "configMap": source}));
        let (container, folder) = (&spec["containers"][0], "/etc/peerdist-source-authorities");
        let mount = json!({"name": "source-authorities", "mountPath": folder, "readOnly": true});
        assert_eq!(container["volumeMounts"][3], mount);
        let variables = container["env"].as_array().unwrap();
        for (name, value) in [("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), ("SSL_CERT_DIR", folder)] {
            assert!(variables.contains(&json!({"name": name, "value": value})), "{name}: {variables:?}");
        }
        let typed: StatefulSet = serde_json::from_value(set.clone()).unwrap();
        assert!(!differs(&set, &serde_json::to_value(typed).unwrap()));
        let usual = built(None, &settings()).stateful_set.body.to_string();
        assert!(!usual.contains("SSL_CERT") && !usual.contains("source-authorities"), "none is what is usual");
    }

    #[test]
    fn folders_of_files_are_mounted_where_they_lie_and_only_read() {
        let text = "image: registry.example/peerdist:1\nserver:\n  storage: {hostPath: /var/lib/peerdist-server}\n  \
                    fileRoots: [/srv/files, /data/packages]\n";
        let set = built(None, &Settings::parse(text).unwrap()).stateful_set.body;
        check_golden("server-file-roots.yaml", &[&set]);
        let spec = &set["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert!(container["args"].to_string().contains(r#""--file-roots=/srv/files,/data/packages""#));
        for (index, root) in ["/srv/files", "/data/packages"].into_iter().enumerate() {
            let (volume, mount) = (&spec["volumes"][index + 3], &container["volumeMounts"][index + 3]);
            assert_eq!(volume["hostPath"], json!({"path": root, "type": "Directory"}));
            assert_eq!(*mount, json!({"name": volume["name"], "mountPath": root, "readOnly": true}));
        }
        let typed: StatefulSet = serde_json::from_value(set.clone()).unwrap();
        assert!(!differs(&set, &serde_json::to_value(typed).unwrap()));
        assert!(!built(None, &settings()).stateful_set.body.to_string().contains("files-0"), "none is what is usual");
    }

    #[test]
    fn a_storage_that_is_kept_is_no_source() {
        let text = "image: a\nserver: {storage: {claim: {size: 1Gi}}, fileRoots: [/srv, /data]}";
        let mut settings = Settings::parse(text).unwrap();
        settings.server.storage = ServerStorage::HostPath("/srv/library".to_owned());
        let set = built(None, &settings).stateful_set.body;
        let arguments = set["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        assert!(arguments.contains(r#""--file-roots=/data""#), "{arguments}");
    }

    #[test]
    fn a_claim_takes_the_place_of_the_path() {
        let text = "image: a\nserver: {storage: {claim: {size: 100Gi, storageClassName: fast}}}";
        let set = built(None, &Settings::parse(text).unwrap()).stateful_set.body;
        let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["resources"]["requests"]["storage"], "100Gi");
        assert_eq!(claim["storageClassName"], "fast");
        let init_containers = &set["spec"]["template"]["spec"]["initContainers"];
        assert_eq!((&init_containers[0]["name"], &init_containers[1]), (&json!("preflight"), &Value::Null));
        assert_eq!(set["spec"]["template"]["spec"]["securityContext"]["fsGroup"], USER);
        let typed: StatefulSet = serde_json::from_value(set.clone()).unwrap();
        assert!(!differs(&set, &serde_json::to_value(typed).unwrap()));
    }
}
