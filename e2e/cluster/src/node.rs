//! One node of a cluster: containerd, kube-proxy and kubelet in namespaces of their own. Its disk is a folder, mounted at
//! `/var/lib` where only the node sees it. How it starts is written in `node.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use peerdist_e2e_net::topology::Host;
use rustix::process::{Pid, Signal, kill_process};

use crate::control_groups::ControlGroups;
use crate::process::Process;

/// What starts one.
const START: &str = include_str!("node.sh");
/// Image of the process that holds a pod's namespaces.
const SANDBOX_IMAGE: &str = "localhost/peerdist-e2e-tools:1";

/// Folders that all nodes have in common.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Programs of Kubernetes, and how to reach the API server: `NODE.kubeconfig`.
    pub programs: PathBuf,
    /// Archives of images.
    pub images: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
    /// Where each node has its folder.
    pub nodes: PathBuf,
    /// DNS for pods.
    pub resolver: String,
}

/// A running node. It ends with the value, with everything that runs on it.
pub struct Node {
    name: String,
    folder: PathBuf,
    // The first ends the second's processes; groups can go when they are empty.
    process: Process,
    _groups: ControlGroups,
}

impl Node {
    /// Starts one whose network exists. `number` is from 1.
    ///
    /// # Errors
    /// When a file cannot be written or the process cannot be started.
    pub fn start(shared: &Shared, host: &Host, number: usize, namespace_file: &str) -> Result<Self> {
        let (name, folder) = (host.name.clone(), shared.nodes.join(&host.name));
        for inner in ["lib", "log", "cni", "run"] {
            fs::create_dir_all(folder.join(inner)).with_context(|| format!("cannot make a folder of {name}"))?;
        }
        let groups = ControlGroups::new(&name)?;
        let token = fs::read(shared.programs.join(format!("{name}.kubeconfig")))?;
        for (file, text) in [
            ("kubeconfig", String::from_utf8(token)?),
            ("containerd.toml", containerd(&folder)),
            ("cni/10-pods.conflist", pod_network(number)),
            ("kubelet.yaml", kubelet(&folder, groups.name(), &shared.resolver)),
            ("kube-proxy.yaml", proxy(shared, &name)),
            ("node.sh", START.to_owned()),
        ] {
            fs::write(folder.join(file), text).with_context(|| format!("cannot write {file} of {name}"))?;
        }
        let mut command = Command::new("nsenter");
        // Not `ip netns exec`: that one hides the control groups.
        command.arg(format!("--net={namespace_file}")).args(["setpriv", "--pdeathsig", "KILL"]);
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
        command.arg(folder.join("node.sh")).arg(&folder).arg(&shared.programs).arg(&shared.images).arg(&shared.logs);
        command.arg(&name).arg(host.address.to_string());
        let process = Process::start(command, &shared.logs.join(format!("{name}.log")))?;
        Ok(Self { name, folder, process, _groups: groups })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its `/var/lib`.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("lib")
    }
}

impl Drop for Node {
    /// Kills the first process of the namespace and waits until all of them are gone, mounts included.
    fn drop(&mut self) {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        self.process.wait();
    }
}

/// The pods of node `number`.
pub fn pod_subnet(number: usize) -> String {
    format!("10.244.{number}.0/24")
}

fn pod_network(number: usize) -> String {
    let subnet = pod_subnet(number);
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
    .to_string()
}

fn containerd(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/run/state\"\n\
         [grpc]\naddress = \"{folder}/run/containerd.sock\"\n[ttrpc]\naddress = \"{folder}/run/containerd.sock.ttrpc\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{SANDBOX_IMAGE}\"\ndisable_apparmor = true\n\
         restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{folder}/cni\"\n"
    )
}

/// Nothing is evicted: the disk is this machine's.
fn kubelet(folder: &Path, groups: &str, resolver: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}\n\
         authorization: {{mode: AlwaysAllow}}\ncgroupDriver: cgroupfs\ncgroupRoot: /{groups}\n\
         containerRuntimeEndpoint: unix://{}/run/containerd.sock\nenforceNodeAllocatable: []\n\
         failCgroupV1: false\nfailSwapOn: false\nlocalStorageCapacityIsolation: false\nimageGCHighThresholdPercent: 100\n\
         resolvConf: \"\"\nclusterDNS: [{resolver}]\nclusterDomain: cluster.local\n\
         evictionHard: {{memory.available: 100Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}}\n",
        folder.display()
    )
}

fn proxy(shared: &Shared, name: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
         clientConnection: {{kubeconfig: '{}/admin.kubeconfig'}}\nhostnameOverride: {name}\n\
         conntrack: {{maxPerCore: 0, min: 0}}\n",
        shared.programs.display()
    )
}
