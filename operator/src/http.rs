//! Metrics and health over HTTP, for the scraper and the kubelet. Nothing here needs or gives credentials.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::watches::Caches;

/// What the endpoints tell; clones share it.
#[derive(Clone)]
pub struct Health {
    metrics: Arc<Metrics>,
    state: Arc<RwLock<Stage>>,
}

/// How far the operator is.
#[derive(Clone, Default)]
pub enum Stage {
    /// It waits for the lease, ready to take over.
    #[default]
    Waiting,
    /// It has the lease and reads what the cluster has.
    Reading,
    /// It works on these caches.
    Working(Box<Caches>),
}

impl Health {
    /// Tells these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, state: Arc::default() }
    }

    /// Says how far the operator is.
    pub fn set(&self, stage: Stage) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn stage(&self) -> Stage {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `/metrics`, `/livez` and `/readyz` until the token is cancelled.
///
/// # Errors
/// [`io::Error`] when the listener fails for good.
pub async fn serve(listener: TcpListener, health: Health, stop: CancellationToken) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    tokio::select! {
        result = async { axum::serve(listener, router).await } => result,
        () = stop.cancelled() => Ok(()),
    }
}

/// One that waits is as ready as one that works: a Deployment of two must become available.
async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    match health.stage() {
        Stage::Waiting => (StatusCode::OK, "lease: held by another operator\n"),
        Stage::Reading => (StatusCode::SERVICE_UNAVAILABLE, "caches: not filled yet\n"),
        Stage::Working(_) => (StatusCode::OK, "lease: ok\ncaches: ok\n"),
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    if let Stage::Working(caches) = health.stage() {
        health.metrics.count_objects(&caches);
    }
    match health.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
