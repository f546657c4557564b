//! A web server inside the cluster with what the samples distribute, known by the name of its Service.

use anyhow::{Context, Result};
use peerdist_e2e_cluster::commands::Commands;
use serde_json::json;

use crate::eyes::{DIGESTS, NAMESPACE};
use crate::sites::Node;

/// Its port.
const PORT: u16 = 8080;
/// Makes the archive and the file of the samples, and serves them.
const SERVE: &str = "mkdir -p /www/pos-app/bin && cd /www/pos-app && \
    for n in 1 2 3 4; do head -c 2500000 /dev/urandom > bin/$n; done && \
    for n in $(seq 200); do echo $n > setting-$n; done && \
    tar -cf - . | gzip > ../pos-app-7.4.1.tar.gz && cd .. && \
    mkdir price-list && head -c 50000000 /dev/urandom > price-list/prices-2026-12.csv && \
    ln -s price-list/prices-2026-12.csv . && echo ready > ready && exec httpd -f -p 8080 -h /www";

/// The running server.
pub(crate) struct Origin {
    /// Address of its Service.
    pub(crate) address: String,
}

impl Origin {
    /// Starts it on a node.
    pub(crate) fn start(commands: &Commands, image: &str, node: &Node) -> Result<Self> {
        let labels = json!({"app": "origin"});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "origin", "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node.name},
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "origin", "image": image, "command": ["busybox", "sh", "-c", SERVE],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "www", "mountPath": "/www"}],
                    }],
                    "volumes": [{"name": "www", "emptyDir": {}}],
                },
            },
            {
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "origin", "namespace": NAMESPACE},
                "spec": {"selector": labels, "ports": [{"port": PORT}]},
            },
        ]});
        commands.kubectl_with(&["apply", "--filename", "-"], &list.to_string())?;
        commands.kubectl(&[
            "wait",
            "--namespace",
            NAMESPACE,
            "--for=condition=Ready",
            "pod/origin",
            "--timeout=120s",
        ])?;
        let service = ["get", "service", "origin", "--namespace", NAMESPACE, "--output", "jsonpath={.spec.clusterIP}"];
        Ok(Self { address: commands.kubectl(&service)? })
    }

    /// What the samples call `https://repo.example.com`.
    pub(crate) fn url(&self) -> String {
        format!("http://origin.{NAMESPACE}.svc.cluster.local:{PORT}")
    }

    /// Adds a package of one file, `NAME.bin`.
    pub(crate) fn add(&self, commands: &Commands, name: &str, bytes: u64) -> Result<()> {
        let script = format!(
            "mkdir /www/{name} && head -c {bytes} /dev/urandom > /www/{name}/{name}.bin && ln -s {name}/{name}.bin /www/"
        );
        run(commands, &script).map(drop)
    }

    /// Digest of a file that it serves.
    pub(crate) fn sha256(&self, commands: &Commands, file: &str) -> Result<String> {
        let printed = run(commands, &format!("sha256sum /www/{file}"))?;
        Ok(printed.split_whitespace().next().context("a digest")?.to_owned())
    }

    /// Names and digests of all files of a package.
    pub(crate) fn digests(&self, commands: &Commands, package: &str) -> Result<String> {
        run(commands, &format!("cd /www/{package} && {DIGESTS}"))
    }
}

fn run(commands: &Commands, script: &str) -> Result<String> {
    commands.kubectl(&["exec", "--namespace", NAMESPACE, "origin", "--", "busybox", "sh", "-c", script])
}
