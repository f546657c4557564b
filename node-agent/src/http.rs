//! HTTP endpoints of a role on its node's address: metrics and health for everybody, the server's API for whoever
//! may read it (`guard`).
//!
//! | path | credentials | answer |
//! | --- | --- | --- |
//! | `/metrics` | none | Prometheus text format |
//! | `/livez` | none | 200 while the process runs, also before its storage is open |
//! | `/readyz` | none | 200 when every check of [`Readiness`] passes, else 503; a line a check |
//! | `/api/v1/status` | bearer token, server only | [`StatusSnapshot`] as JSON; 404 before the storage is open |

mod api_file;
mod api_token;
mod guard;
mod listener;
mod readiness;
mod tls_provider;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use api_file::{ApiFile, ApiFileError};
pub use api_token::{ApiToken, ApiTokenError};
pub use guard::ApiGuard;
pub use readiness::Readiness;
pub use tls_provider::install_tls_provider;

use crate::metrics::Metrics;
use crate::port_holder::{PortHolder, Protocol, port_holder};
use crate::status::StatusSnapshot;
use guard::Caller;
use listener::BoundedListener;

/// TCP port of the server's endpoints.
pub const SERVER_HTTP_PORT: u16 = 9760;
/// TCP port of the client's endpoints.
pub const CLIENT_HTTP_PORT: u16 = 9761;
/// TCP port of the connector's endpoints.
pub const VESC_HTTP_PORT: u16 = 9762;

/// Path of the server's API.
const STATUS_PATH: &str = "/api/v1/status";
/// What who asks for the API reads where there is none.
const NO_API: &str = "there is no API here, or not yet: /readyz says how far a server is\n";
/// How long answers under way may take after the end was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What a role serves.
#[derive(Clone)]
pub struct HttpService {
    /// The role's metrics.
    pub metrics: Arc<Metrics>,
    /// The role's readiness.
    pub readiness: Readiness,
    /// The server's API; other roles have none, and the server has it once its storage is open.
    pub api: Option<StatusApi>,
}

/// The server's API.
#[derive(Clone)]
pub struct StatusApi {
    /// Who may read it.
    pub guard: ApiGuard,
    /// The latest snapshot; the driver replaces it.
    pub snapshot: watch::Receiver<Arc<StatusSnapshot>>,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (TCP): {}", describe(.holder, .source))]
pub struct HttpBindError {
    /// The wanted address.
    pub address: SocketAddr,
    /// Who has it.
    pub holder: Option<PortHolder>,
    source: io::Error,
}

fn describe(holder: &Option<PortHolder>, source: &io::Error) -> String {
    holder.as_ref().map_or_else(|| source.to_string(), |holder| format!("it is held by {holder}"))
}

/// Binds the address of a role's endpoints.
///
/// # Errors
/// [`HttpBindError`], which names the holder of a port in use.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpBindError> {
    TcpListener::bind(address).await.map_err(|source| {
        let in_use = source.kind() == io::ErrorKind::AddrInUse;
        let holder = in_use.then(|| port_holder(Protocol::Tcp, address)).flatten();
        HttpBindError { address, holder, source }
    })
}

/// Serves until the token is cancelled.
///
/// # Errors
/// [`io::Error`] when the listener fails for good.
pub async fn serve(listener: TcpListener, service: HttpService, stop: CancellationToken) -> io::Result<()> {
    let graceful = stop.clone();
    let router = router(service).into_make_service_with_connect_info::<Caller>();
    let server = axum::serve(BoundedListener::new(listener), router)
        .with_graceful_shutdown(async move { graceful.cancelled().await });
    tokio::select! {
        result = async { server.await } => result,
        () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_GRACE).await } => Ok(()),
    }
}

/// Binds the address of a role's endpoints, serves there while `work` goes on, and gives the listener back with the
/// outcome. The port is never free in between: who connects then waits until somebody serves again.
///
/// # Errors
/// As [`bind`].
pub async fn serve_while<T>(
    address: SocketAddr,
    service: HttpService,
    work: impl Future<Output = T>,
) -> Result<(TcpListener, T), HttpBindError> {
    let unusable = |source| HttpBindError { address, holder: None, source };
    let (listener, kept) = handles(bind(address).await?).map_err(unusable)?;
    let stop = CancellationToken::new();
    // Also when the work is given up.
    let stopped = stop.clone().drop_guard();
    let http = tokio::spawn(serve(listener, service, stop));
    let outcome = work.await;
    drop(stopped);
    drop(http.await);
    Ok((kept, outcome))
}

/// Two handles of one socket, since who serves keeps the one that it was given.
fn handles(listener: TcpListener) -> io::Result<(TcpListener, TcpListener)> {
    let one = listener.into_std()?;
    let other = one.try_clone()?;
    Ok((TcpListener::from_std(one)?, TcpListener::from_std(other)?))
}

fn router(service: HttpService) -> Router {
    let open = Router::new()
        .route("/metrics", get(metrics))
        .with_state(service.metrics)
        .route("/livez", get(|| async { "ok\n" }))
        .merge(Router::new().route("/readyz", get(readyz)).with_state(service.readiness));
    match service.api {
        None => open.route(STATUS_PATH, get(|| async { (StatusCode::NOT_FOUND, NO_API) })),
        Some(api) => {
            let guard = middleware::from_fn_with_state(api.guard.clone(), guard::check);
            open.merge(Router::new().route(STATUS_PATH, get(status)).with_state(api).layer(guard))
        }
    }
}

async fn metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, readiness.report()).into_response()
}

async fn status(State(api): State<StatusApi>) -> Response {
    let snapshot = Arc::clone(&api.snapshot.borrow());
    axum::Json(&*snapshot).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::snapshot_under_way;

    struct Served {
        url: String,
        readiness: Readiness,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
        snapshot: watch::Sender<Arc<StatusSnapshot>>,
    }

    async fn served(token: &ApiToken) -> Served {
        install_tls_provider();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (snapshot, receiver) = watch::channel(Arc::new(snapshot_under_way()));
        let readiness = Readiness::new(["enrolled"]);
        let service = HttpService {
            metrics: Arc::new(Metrics::new(Arc::default()).unwrap()),
            readiness: readiness.clone(),
            api: Some(StatusApi { guard: ApiGuard { token: token.clone(), reviewer: None }, snapshot: receiver }),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, service, stop.clone()));
        Served { url, readiness, stop, task, snapshot }
    }

    async fn get_text(url: &str, token: Option<&str>) -> (u16, String) {
        let request = reqwest::Client::builder().no_proxy().build().unwrap().get(url);
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn metrics_and_health_need_no_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let served = served(&ApiToken::create(&directory.path().join("api-token")).unwrap()).await;
        let (code, text) = get_text(&format!("{}/metrics", served.url), None).await;
        assert_eq!(code, 200);
        assert!(text.contains("peerdist_transfer_bytes_total"));
        assert_eq!(get_text(&format!("{}/livez", served.url), None).await.0, 200);
        let readyz = format!("{}/readyz", served.url);
        assert_eq!(get_text(&readyz, None).await, (503, "enrolled: not yet\n".into()));
        served.readiness.set("enrolled", Ok(()));
        assert_eq!(get_text(&readyz, None).await, (200, "enrolled: ok\n".into()));
    }

    #[tokio::test]
    async fn api_answers_only_with_the_token() {
        let directory = tempfile::tempdir().unwrap();
        let token = ApiToken::create(&directory.path().join("api-token")).unwrap();
        let served = served(&token).await;
        let url = format!("{}/api/v1/status", served.url);
        assert_eq!(get_text(&url, None).await.0, 401);
        assert_eq!(get_text(&url, Some("guess")).await.0, 401);
        let mut later = snapshot_under_way();
        later.links.clear();
        served.snapshot.send_replace(Arc::new(later.clone()));
        let (code, text) = get_text(&url, Some(token.as_str())).await;
        assert_eq!(code, 200);
        assert_eq!(serde_json::from_str::<StatusSnapshot>(&text).unwrap(), later);
    }

    #[tokio::test]
    async fn listener_that_comes_back_serves_on_and_was_bound_all_the_time() {
        install_tls_provider();
        let address: SocketAddr = "127.83.3.1:9760".parse().unwrap();
        let (readyz, api) = (format!("http://{address}/readyz"), format!("http://{address}/api/v1/status"));
        let readiness = Readiness::new(["storage"]);
        let metrics = Arc::new(Metrics::new(Arc::default()).unwrap());
        let service = HttpService { metrics, readiness: readiness.clone(), api: None };
        let asking = async { (get_text(&readyz, None).await, get_text(&api, None).await) };
        let (listener, (early, early_api)) = serve_while(address, service.clone(), asking).await.unwrap();
        assert_eq!(early, (503, "storage: not yet\n".to_owned()));
        assert_eq!(early_api, (404, NO_API.to_owned()));
        assert!(bind(address).await.is_err());
        readiness.set("storage", Ok(()));
        tokio::spawn(serve(listener, service, CancellationToken::new()));
        assert_eq!(get_text(&readyz, None).await, (200, "storage: ok\n".to_owned()));
    }

    #[tokio::test]
    async fn serving_ends_when_asked_to() {
        let directory = tempfile::tempdir().unwrap();
        let served = served(&ApiToken::create(&directory.path().join("api-token")).unwrap()).await;
        served.stop.cancel();
        served.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn address_in_use_names_its_holder() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind(first.local_addr().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("held by process {}", std::process::id())), "{error}");
    }
}
