//! `peerdist status`: asks the server's API and prints packages, offices and nodes.

mod text;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;

use super::{ExitStatus, OutputFormat, options::DEFAULT_STATE};
use crate::http::{ApiFile, ApiFileError, ApiToken, ApiTokenError};
use crate::status::StatusSnapshot;

/// Longest answer: 10,000 nodes with a hundred packages fit many times.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Longest wait for the whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to ask.
#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// Base URL of the server's API, for example http://10.0.5.10:9760; goes before --state
    #[arg(long, value_name = "URL", env = "PEERDIST_SERVER_URL", requires = "token_file")]
    server: Option<String>,
    /// File with a token for the server's API, with --server: the server's own, or one of a cluster for the audience
    /// peerdist-api; /dev/stdin will do
    #[arg(long, value_name = "FILE", env = "PEERDIST_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// State directory of an embedded run on this host
    #[arg(long, value_name = "DIR", env = "PEERDIST_STATE", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// What to print
    #[arg(long, value_enum, env = "PEERDIST_OUTPUT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, thiserror::Error)]
enum StatusCommandError {
    #[error(transparent)]
    ApiFile(#[from] ApiFileError),
    #[error(transparent)]
    Token(#[from] ApiTokenError),
    #[error("cannot ask {url}: {}: is the server running?", innermost(.source))]
    Unreachable { url: String, source: reqwest::Error },
    #[error("{url} answered {code}: {message}")]
    Refused { url: String, code: u16, message: String },
    #[error("{url} answered with more than {ANSWER_BYTES_MAX} bytes")]
    TooLong { url: String },
    #[error("{url} did not answer with a status: {source}: is it a peerdist server of this version?")]
    Malformed { url: String, source: serde_json::Error },
}

pub(super) async fn run(options: StatusOptions) -> ExitStatus {
    let output = options.output;
    match ask(options).await.and_then(|(url, answer)| render(&url, &answer, output)) {
        Ok(text) => {
            print!("{text}");
            ExitStatus::Done
        }
        Err(error) => {
            eprintln!("peerdist status: {error}");
            ExitStatus::Failed
        }
    }
}

async fn ask(options: StatusOptions) -> Result<(String, Vec<u8>), StatusCommandError> {
    let StatusOptions { server, token_file, state, output: _ } = options;
    let (base, token_file) = match (server, token_file) {
        (Some(server), Some(token_file)) => (server, token_file),
        _ => {
            let ApiFile { url, token_file } = ApiFile::read(&state.join("server"))?;
            (url, token_file)
        }
    };
    let token = ApiToken::read(&token_file)?;
    let url = format!("{}/api/v1/status", base.trim_end_matches('/'));
    let answer = request(&url, &token).await?;
    Ok((url, answer))
}

async fn request(url: &str, token: &ApiToken) -> Result<Vec<u8>, StatusCommandError> {
    let unreachable = |source| StatusCommandError::Unreachable { url: url.to_owned(), source };
    let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build().map_err(unreachable)?;
    let response = client.get(url).bearer_auth(token.as_str()).send().await.map_err(unreachable)?;
    let code = response.status();
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(bytes) = stream.next().await {
        body.extend_from_slice(&bytes.map_err(unreachable)?);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(StatusCommandError::TooLong { url: url.to_owned() });
        }
    }
    if !code.is_success() {
        let message = String::from_utf8_lossy(&body).chars().take(200).collect::<String>().trim().to_owned();
        return Err(StatusCommandError::Refused { url: url.to_owned(), code: code.as_u16(), message });
    }
    Ok(body)
}

fn render(url: &str, answer: &[u8], output: OutputFormat) -> Result<String, StatusCommandError> {
    let malformed = |source| StatusCommandError::Malformed { url: url.to_owned(), source };
    let snapshot: StatusSnapshot = serde_json::from_slice(answer).map_err(malformed)?;
    match output {
        OutputFormat::Text => Ok(text::render(&snapshot)),
        OutputFormat::Json => Ok(serde_json::to_string(&snapshot).map_err(malformed)? + "\n"),
    }
}

/// The reason at the end of the chain: what reqwest says itself only repeats the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::{self, ApiGuard, HttpService, Readiness, StatusApi, install_tls_provider};
    use crate::metrics::Metrics;
    use crate::status::tests::snapshot_under_way;

    /// A server's API whose address and token are under `state`.
    async fn serve_api(state: &Path) -> String {
        install_tls_provider();
        let root = state.join("server");
        std::fs::create_dir_all(&root).unwrap();
        let token = ApiToken::create(&root.join("api-token")).unwrap();
        let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        ApiFile { url: url.clone(), token_file: "api-token".into() }.write(&root).unwrap();
        let (_, snapshot) = watch::channel(Arc::new(snapshot_under_way()));
        let service = HttpService {
            metrics: Arc::new(Metrics::new(Arc::default()).unwrap()),
            readiness: Readiness::new([]),
            api: Some(StatusApi { guard: ApiGuard { token, reviewer: None }, snapshot }),
        };
        tokio::spawn(http::serve(listener, service, CancellationToken::new()));
        url
    }

    fn options(state: &Path) -> StatusOptions {
        StatusOptions { server: None, token_file: None, state: state.to_owned(), output: OutputFormat::Json }
    }

    #[tokio::test]
    async fn state_directory_leads_to_the_server() {
        let state = tempfile::tempdir().unwrap();
        serve_api(state.path()).await;
        let (url, answer) = ask(options(state.path())).await.unwrap();
        let json = render(&url, &answer, OutputFormat::Json).unwrap();
        assert_eq!(serde_json::from_str::<StatusSnapshot>(&json).unwrap(), snapshot_under_way());
    }

    #[tokio::test]
    async fn wrong_token_and_stopped_server_are_told_apart() {
        let state = tempfile::tempdir().unwrap();
        let url = serve_api(state.path()).await;
        let other = state.path().join("other-token");
        ApiToken::create(&other).unwrap();
        let with_token = |server: &str| StatusOptions {
            server: Some(server.into()),
            token_file: Some(other.clone()),
            ..options(state.path())
        };
        let refused = ask(with_token(&url)).await.unwrap_err();
        assert!(refused.to_string().contains("answered 401"), "{refused}");
        let stopped = ask(with_token("http://127.0.0.1:1")).await.unwrap_err();
        assert!(stopped.to_string().contains("is the server running"), "{stopped}");
    }
}
