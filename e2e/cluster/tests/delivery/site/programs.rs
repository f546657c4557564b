//! The programs that run: operator, server and clients as processes of their own, with tokens of their accounts.

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
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_e2e_net::shell;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SERVER;
use super::installation::{Installation, SiteOptions};

/// Audience of tokens for the API server.
const KUBERNETES: &str = "https://kubernetes.default.svc";
/// Pause before an operator that ended is followed by another.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// As a Deployment would: an operator that ends without being told, for example because it could not renew its Lease in
/// time, is followed by another. The task ends when it is told to, with the operator that runs then.
pub(super) async fn start_operator(
    plane: &ControlPlane,
    hand: &Hand,
    folder: &Path,
    options: &SiteOptions,
    stop: &CancellationToken,
) -> Result<JoinHandle<Result<Process>>> {
    let token = token(hand, "peerdist-operator", None, KUBERNETES).await?;
    let (kubeconfig, settings) = (folder.join("operator.kubeconfig"), folder.join("settings.yaml"));
    fs::write(&kubeconfig, plane.kubeconfig_text(&token))?;
    fs::write(&settings, options.settings())?;
    let (options, stop) = (options.clone(), stop.clone());
    let start = move || {
        let program = Path::new(env!("CARGO_BIN_EXE_peerdist-e2e-operator"));
        Process::start_operator(program, "operator", &kubeconfig, &settings, &options.variables())
    };
    let mut operator = start()?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(operator),
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
            if let Some(status) = operator.ended()? {
                let last = operator.last_lines();
                eprintln!("the operator ended with {status} and is followed by another:\n{last}");
                operator = start()?;
            }
        }
    }))
}

/// On its fixed address.
pub(super) async fn start_server(installation: &Installation, origin: IpAddr) -> Result<Process> {
    let token = token(&installation.hand, "peerdist-server", None, KUBERNETES).await?;
    let path = |name: &str| installation.path(name);
    fs::write(path("kubeconfig"), installation.plane.kubeconfig_text(&token))?;
    let mut command = peerdist("server")?;
    command.envs(installation.options.variables());
    command.env("KUBECONFIG", path("kubeconfig")).args(["--kubernetes", "--address", SERVER]);
    command.arg("--allowed-sources").arg(format!("{origin}/32"));
    command.arg("--authority").arg(path("identity"));
    // How full the disk of this machine is, is not what is tried.
    command.args(["--keep-free-percent", "0"]);
    command.arg("--root").arg(path("library")).arg("--join-token-file").arg(path("join-token"));
    Process::start(command, &path("server.log"))
}

/// Ends a program as kubelet does.
pub(super) async fn end(program: &mut Process, name: &str) -> Result<()> {
    program.terminate()?;
    eventually(&format!("{name} ends"), async || Ok(program.ended()?.is_some())).await
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
    let mut command = shell::mortal(program);
    command.arg(role);
    Ok(command)
}
