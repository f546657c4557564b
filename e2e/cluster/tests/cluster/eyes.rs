//! A pod on every node that sees its disk and asks its client: what arrived is judged where a consumer would read it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use peerdist_e2e_cluster::commands::Commands;
use peerdist_e2e_net::fleet::{CLIENT_HTTP_PORT, SERVER_HTTP_PORT};
use peerdist_e2e_net::metrics::Metrics;
use serde_json::json;

use crate::sites::{Node, Sites};

/// Namespace of what tests run inside the cluster.
pub(crate) const NAMESPACE: &str = "peerdist-e2e";
/// Where clients keep packages, as the pods see it.
const STORAGE: &str = "/disk/peerdist";
/// What is inside of packages that are published, and of those on their way.
pub(crate) const PACKAGES: &str = "/disk/peerdist/packages/";
pub(crate) const STAGING: &str = "/disk/peerdist/staging/";
/// Prints names and digests of all files below the current folder.
pub(crate) const DIGESTS: &str = "find . -type f | sort | xargs busybox sha256sum";

/// The pods, by node.
pub(crate) struct Eyes {
    pods: BTreeMap<String, String>,
}

impl Eyes {
    /// Starts them.
    pub(crate) fn open(commands: &Commands, image: &str, sites: &Sites) -> Result<Self> {
        let labels = json!({"app": "eyes"});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "eyes", "namespace": NAMESPACE},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "hostNetwork": true,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "eyes", "image": image, "command": ["busybox", "sleep", "infinity"],
                    "volumeMounts": [{"name": "disk", "mountPath": "/disk", "readOnly": true}],
                }],
                "volumes": [{"name": "disk", "hostPath": {"path": "/var/lib"}}],
            }}},
        });
        commands.kubectl_with(&["apply", "--filename", "-"], &set.to_string())?;
        commands.kubectl(&["rollout", "status", "--namespace", NAMESPACE, "daemonset/eyes", "--timeout=120s"])?;
        let columns = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{\"\\n\"}{end}";
        let listed =
            commands.kubectl(&["get", "pods", "--namespace", NAMESPACE, "--selector=app=eyes", "--output", columns])?;
        let pairs = listed.lines().filter_map(|line| line.split_once(' '));
        let pods: BTreeMap<String, String> = pairs.map(|(node, pod)| (node.to_owned(), pod.to_owned())).collect();
        for node in sites.all() {
            pods.get(&node.name).with_context(|| format!("no pod looks at {}", node.name))?;
        }
        Ok(Self { pods })
    }

    /// Runs a shell on a node.
    pub(crate) fn run(&self, commands: &Commands, node: &Node, script: &str) -> Result<String> {
        let pod = self.pods.get(&node.name).context("a pod on every node")?;
        commands.kubectl(&["exec", "--namespace", NAMESPACE, pod, "--", "busybox", "sh", "-c", script])
    }

    /// Names and digests of all files of a package's active version.
    pub(crate) fn digests(&self, commands: &Commands, node: &Node, package: &str) -> Result<String> {
        self.run(commands, node, &format!("cd {STORAGE}/packages/retail/{package}/current/ && {DIGESTS}"))
    }

    /// Everything below the folders of a client and of the server.
    pub(crate) fn paths(&self, commands: &Commands, node: &Node) -> Result<Vec<String>> {
        let script =
            format!("for folder in {STORAGE} {STORAGE}-server; do [ ! -d $folder ] || find $folder -mindepth 1; done");
        Ok(self.run(commands, node, &script)?.lines().map(str::to_owned).collect())
    }

    /// What a node's client counted, or the server on it.
    pub(crate) fn metrics(&self, commands: &Commands, node: &Node, port: u16) -> Result<Metrics> {
        let page = self.run(commands, node, &format!("wget -q -O - http://{}:{port}/metrics", node.address))?;
        Metrics::parse(&page)
    }

    /// What all clients and the server counted.
    pub(crate) fn all_metrics(&self, commands: &Commands, sites: &Sites) -> Result<Vec<Metrics>> {
        let server = sites.central.first().context("a Central Office")?;
        let clients = sites.all().map(|node| self.metrics(commands, node, CLIENT_HTTP_PORT));
        clients.chain([self.metrics(commands, server, SERVER_HTTP_PORT)]).collect()
    }
}
