//! The programs that run: the operator in this process, server and clients as processes of their own, with tokens of their
//! accounts.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use peerdist_e2e_cluster::control_plane::ControlPlane;
use peerdist_e2e_cluster::objects::{Hand, NAMESPACE};
use peerdist_e2e_cluster::process::Process;
use peerdist_operator::run::Operator;
use peerdist_operator::settings::Settings;
use peerdist_operator::storage::StoragePrefixes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SERVER;

/// Pause before an operator that ended is followed by another.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// As a Deployment would: an operator that ends without being told, for example because it could not renew its Lease in
/// time, is followed by another.
pub(super) async fn start_operator(
    plane: &ControlPlane,
    hand: &Hand,
    stop: &CancellationToken,
) -> Result<JoinHandle<Result<()>>> {
    let token = token(hand, "peerdist-operator", None, "https://kubernetes.default.svc").await?;
    let (config, stop) = (plane.config(&token).await?, stop.clone());
    Ok(tokio::spawn(async move {
        let mut number = 0;
        loop {
            number += 1;
            let operator = Operator {
                config: config.clone(),
                settings: Settings::parse(
                    "image: example/peerdist:1\nserver: {storage: {hostPath: /var/lib/peerdist-server}}",
                )?,
                namespace: NAMESPACE.to_owned(),
                lease_namespace: "kube-system".to_owned(),
                lease_name: "peerdist-operator".to_owned(),
                storage_prefixes: StoragePrefixes::default(),
                identity: format!("operator-{number}"),
                http: TcpListener::bind("127.0.0.1:0").await?,
            };
            match operator.run(stop.clone()).await {
                Err(error) if !stop.is_cancelled() => {
                    eprintln!("the operator ended and is followed by another: {error}")
                }
                ended => return Ok(ended?),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }))
}

/// On its fixed address.
pub(super) async fn start_server(plane: &ControlPlane, hand: &Hand, folder: &Path, origin: IpAddr) -> Result<Process> {
    let token = token(hand, "peerdist-server", None, "https://kubernetes.default.svc").await?;
    let kubeconfig = folder.join("kubeconfig");
    fs::write(&kubeconfig, plane.kubeconfig_text(&token))?;
    let mut command = peerdist("server")?;
    command.env("KUBECONFIG", kubeconfig).args(["--kubernetes", "--address", SERVER]);
    command.arg("--allowed-sources").arg(format!("{origin}/32"));
    command.arg("--authority").arg(folder.join("identity"));
    command.arg("--root").arg(folder.join("library")).arg("--join-token-file").arg(folder.join("join-token"));
    Process::start(command, &folder.join("server.log"))
}

/// A token of a service account, bound to a pod if one is named.
pub(super) async fn token(hand: &Hand, account: &str, pod: Option<&str>, audience: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(hand.client.clone(), NAMESPACE);
    let bound = pod.map(|pod| json!({"apiVersion": "v1", "kind": "Pod", "name": pod}));
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [audience], "boundObjectRef": bound}}))?;
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let status = made.with_context(|| format!("a token of {account}"))?.status.context("a token")?;
    status.token.context("a token")
}

/// Beside this program, where the build put it.
pub(super) fn peerdist(role: &str) -> Result<Command> {
    let own = std::env::current_exe()?;
    let program = own.parent().and_then(Path::parent).context("a target folder")?.join("peerdist");
    ensure!(program.is_file(), "{} is missing: run `cargo xtask e2e cluster`", program.display());
    let mut command = Command::new(program);
    command.arg(role);
    Ok(command)
}
