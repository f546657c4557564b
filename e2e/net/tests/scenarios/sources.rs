//! Where a server in a cluster fetches packages from: whatever an object, a redirect or a resolver says, nothing is
//! connected to that its networks forbid. In its namespace every address is one's own, so that each attempt gets an answer,
//! and the kernel counts them.

mod forms;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use peerdist_e2e_net::counters::Counters;
use peerdist_e2e_net::fleet::built_program;
use peerdist_e2e_net::network::{Network, Rules};
use peerdist_e2e_net::ruleset::TABLE;
use peerdist_e2e_net::scratch::Scratch;
use peerdist_e2e_net::shell;
use peerdist_e2e_net::topology::Topology;

use self::forms::{Expected, Form};

/// Networks of pods, services and nodes.
const CLUSTER_NETWORKS: [&str; 4] = ["10.244.0.0/16", "10.96.0.0/16", "192.168.50.0/24", "fd00:10:244::/56"];
/// Where anybody may fetch from.
const ORIGIN: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// Fewest forms that the rule itself must have refused: others are no addresses at all.
const REFUSED_BY_RULE_MIN: usize = 60;
/// Shows the processes their own resolver and hosts file, and becomes the rest.
const WITH_RESOLVER: &str = r#"mount --bind "$1/resolv.conf" /etc/resolv.conf && mount --bind "$1/hosts" /etc/hosts &&
    shift && exec "$@""#;

#[test]
fn no_form_of_a_source_leads_to_a_forbidden_address() -> Result<()> {
    let network = Network::with_rules("sources", Topology::central(1), Rules::None)?;
    let mut scratch = Scratch::new("sources", 0)?;
    let (namespace, folder) = (network.namespace("server"), scratch.folder("run")?);
    own_every_address(&namespace)?;
    let forms = forms::all();
    write_files(&folder, &forms)?;

    let program = scratch.program(&built_program("peerdist-e2e-sources")?)?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.namespace_file("server")));
    command.args(["unshare", "--mount", "sh", "-c", WITH_RESOLVER, "sh"]).arg(&folder);
    let output = command.arg(program).arg(&folder).args(CLUSTER_NETWORKS).output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let outcomes: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).context("outcomes")?;

    let counters = Counters::read(&namespace)?;
    let (allowed, forbidden) = (counters.of("allowed").packets, counters.of("forbidden").packets);
    let refused = outcomes.values().filter(|outcome| *outcome == "AddressForbidden").count();
    println!(
        "{} forms, {refused} refused by the rule; connections: {allowed} allowed, {forbidden} forbidden",
        forms.len()
    );
    for form in &forms {
        let outcome = outcomes.get(&form.name).with_context(|| format!("{}: no outcome", form.uri))?;
        println!("{:<24} {}", outcome, form.uri);
        let arrived = outcome == "arrived";
        ensure!(arrived == (form.expected == Expected::Arrives), "{}: {outcome}", form.uri);
    }
    ensure!(forbidden == 0, "{forbidden} connections to forbidden addresses");
    ensure!(refused >= REFUSED_BY_RULE_MIN, "only {refused} forms were refused by the rule");
    ensure!(allowed > 0, "the counters count nothing");
    scratch.discard_logs();
    Ok(())
}

/// Makes every address an own one, and counts who is connected to.
fn own_every_address(namespace: &str) -> Result<()> {
    // Hosts of a fleet have none.
    let enable = "for device in all lo; do echo 0 > /proc/sys/net/ipv6/conf/$device/disable_ipv6; done";
    shell::run("ip", &["netns", "exec", namespace, "sh", "-c", enable])?;
    for family in ["-4", "-6"] {
        shell::run(
            "ip",
            &[family, "-n", namespace, "route", "add", "local", "default", "dev", "lo", "table", "local"],
        )?;
    }
    let [four, six] = ORIGIN;
    let rules = format!(
        "table inet {TABLE} {{
  counter allowed {{}}
  counter forbidden {{}}
  chain output {{
    type filter hook output priority filter; policy accept;
    meta l4proto != tcp accept
    tcp flags & (syn | ack) != syn accept
    ip daddr {four} counter name \"allowed\" accept
    ip6 daddr {six} counter name \"allowed\" accept
    counter name \"forbidden\"
  }}
}}
"
    );
    shell::run_with_input("ip", &["netns", "exec", namespace, "nft", "-f", "-"], &rules).map(drop)
}

fn write_files(folder: &Path, forms: &[Form]) -> Result<()> {
    fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.53\n")?;
    fs::write(folder.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(folder.join("names"), forms::NAMES.map(|(address, name)| format!("{address} {name}\n")).concat())?;
    let manifests = folder.join("manifests");
    fs::create_dir(&manifests)?;
    let mut objects =
        "apiVersion: peerdist.io/v1alpha1\nkind: Office\nmetadata: {name: central}\nspec: {}\n".to_owned();
    for Form { name, uri, .. } in forms {
        let uri = serde_json::to_string(uri)?;
        objects += &format!(
            "---\napiVersion: peerdist.io/v1alpha1\nkind: PackageDistribution\n\
             metadata: {{name: {name}, namespace: demo}}\nspec: {{version: \"1\", source: {{uri: {uri}}}}}\n"
        );
    }
    fs::write(manifests.join("objects.yaml"), objects).context("manifests")
}
