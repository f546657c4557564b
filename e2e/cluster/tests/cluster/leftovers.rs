//! What an installation left behind in the cluster.

use anyhow::Result;
use peerdist_e2e_cluster::commands::Commands;

/// Where something of ours could stay behind.
const KINDS_OF_NAMESPACES: &str = "pods,deployments,replicasets,daemonsets,statefulsets,jobs,services,endpointslices,\
     configmaps,secrets,serviceaccounts,persistentvolumeclaims,leases,roles,rolebindings,networkpolicies,\
     poddisruptionbudgets,controllerrevisions";
const KINDS_OF_CLUSTERS: &str = "clusterroles,clusterrolebindings,priorityclasses";

/// Objects that have the chart in their names or bear its label, the definitions left out: those are to stay. The claim of
/// a StatefulSet begins with the name of its volume.
pub(crate) fn left_in_cluster(commands: &Commands) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for kinds in [KINDS_OF_NAMESPACES, KINDS_OF_CLUSTERS] {
        let names = commands.kubectl(&["get", kinds, "--all-namespaces", "--output=name"])?;
        let is_ours = |line: &&str| line.split_once('/').is_some_and(|(_, name)| name.contains("peerdist"));
        left.extend(names.lines().filter(is_ours).map(str::to_owned));
    }
    let labelled = ["get", "nodes", "--selector=peerdist.io/assigned-office", "--output=name"];
    left.extend(commands.kubectl(&labelled)?.lines().map(str::to_owned));
    Ok(left)
}
