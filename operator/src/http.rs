//! Metrics and health over HTTP, for the scraper and the kubelet. Nothing here needs or gives credentials.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lease::Standing;
use crate::metrics::Metrics;
use crate::watches::Caches;

/// What the endpoints tell; clones share it.
#[derive(Clone)]
pub struct Health {
    metrics: Arc<Metrics>,
    state: Arc<RwLock<Stage>>,
    standing: watch::Receiver<Standing>,
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
    /// Tells these metrics, and how it stands with the lease.
    pub fn new(metrics: Arc<Metrics>, standing: watch::Receiver<Standing>) -> Self {
        Self { metrics, state: Arc::default(), standing }
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

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    let standing = *health.standing.borrow();
    readiness(&health.stage(), standing)
}

/// One that waits for another is as ready as one that works: a Deployment of two must become available. One that cannot
/// read the lease would never take over.
fn readiness(stage: &Stage, standing: Standing) -> (StatusCode, &'static str) {
    match (stage, standing) {
        (Stage::Working(_), _) => (StatusCode::OK, "lease: ok\ncaches: ok\n"),
        (Stage::Waiting, Standing::Waits) => (StatusCode::OK, "lease: held by another operator\n"),
        (Stage::Waiting, Standing::Unknown) => {
            (StatusCode::SERVICE_UNAVAILABLE, "lease: not read or not taken yet: if that lasts, the log says why\n")
        }
        (Stage::Waiting, Standing::Leads) | (Stage::Reading, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "caches: not filled yet\n")
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_read_the_lease_is_not_ready_and_who_waits_for_another_is() {
        for (stage, standing, expected) in [
            (Stage::Waiting, Standing::Unknown, StatusCode::SERVICE_UNAVAILABLE),
            (Stage::Waiting, Standing::Waits, StatusCode::OK),
            (Stage::Waiting, Standing::Leads, StatusCode::SERVICE_UNAVAILABLE),
            (Stage::Reading, Standing::Leads, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let (status, text) = readiness(&stage, standing);
            assert_eq!(status, expected, "{standing:?}: {text}");
        }
    }
}
