//! What stops a holder whose time is over: every request that writes passes the fence before it is sent. A process
//! that slept through the end of its Lease finds it closed, whatever it was about to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::{Method, Request};
use tower::BoxError;

/// The gate of all writes; clones share it. Closed at first.
#[derive(Debug, Clone)]
pub struct Fence {
    base: Instant,
    /// Milliseconds after the base until which it is open.
    open_until_ms: Arc<AtomicU64>,
}

/// A write without the right to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not hold the lease (any more): the write was not sent")]
pub struct NoLease;

impl Fence {
    /// A closed gate.
    pub fn new(now: Instant) -> Self {
        Self { base: now, open_until_ms: Arc::default() }
    }

    /// Opens until that moment, or closes.
    pub fn set(&self, open_until: Option<Instant>) {
        let milliseconds = open_until.map_or(0, |until| until.saturating_duration_since(self.base).as_millis());
        self.open_until_ms.store(u64::try_from(milliseconds).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether a write may be sent now.
    pub fn is_open(&self, now: Instant) -> bool {
        let since_base = now.saturating_duration_since(self.base).as_millis();
        since_base < u128::from(self.open_until_ms.load(Ordering::Acquire))
    }

    /// Lets reads pass, and writes while it is open.
    ///
    /// # Errors
    /// [`NoLease`] for a write while it is closed.
    pub fn check<B>(&self, request: Request<B>) -> Result<Request<B>, BoxError> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if reads || self.is_open(Instant::now()) { Ok(request) } else { Err(Box::new(NoLease)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(method: Method) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        request
    }

    #[test]
    fn it_is_open_only_until_the_given_moment() {
        let now = Instant::now();
        let fence = Fence::new(now);
        assert!(!fence.is_open(now));
        fence.set(Some(now + Duration::from_secs(10)));
        assert!(fence.is_open(now + Duration::from_millis(9_999)));
        assert!(!fence.is_open(now + Duration::from_secs(10)));
        fence.set(None);
        assert!(!fence.is_open(now));
    }

    #[test]
    fn reads_always_pass_and_writes_only_while_it_is_open() {
        let fence = Fence::new(Instant::now());
        assert!(fence.check(request(Method::GET)).is_ok());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(fence.check(request(method.clone())).is_err(), "{method}");
            fence.set(Some(Instant::now() + Duration::from_secs(60)));
            assert!(fence.check(request(method)).is_ok());
            fence.set(None);
        }
    }
}
