//! The client of one who leads: reads pass as they are; a write passes the fence, and is given so little time, here and
//! at the API server, that it cannot arrive after another took the Lease.

use std::future::ready;
use std::task::{Context, Poll};

use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, Uri};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::timeout;
use tower::{BoxError, Layer, Service};

use crate::lease::{Fence, Moment, WRITE_TIMEOUT};

/// A write that was given up: whether it happened is not known, and the cache will tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API server did not answer to a write within {} s", WRITE_TIMEOUT.as_secs())]
struct TooSlow;

/// It must not repeat a request by itself: a repetition would not pass the fence again, and could arrive minutes after
/// the first try. Controllers repeat what failed.
pub(super) fn fenced_client(mut config: Config, fence: Fence) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.with_layer(&FenceLayer { fence }).build())
}

struct FenceLayer {
    fence: Fence,
}

impl<S> Layer<S> for FenceLayer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { inner, fence: self.fence.clone() }
    }
}

struct Fenced<S> {
    inner: S,
    fence: Fence,
}

impl<S> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return self.inner.call(request).boxed();
        }
        let allowed = self.fence.check(Moment::now()).map_err(BoxError::from);
        match allowed.and_then(|()| with_time_limit(request)) {
            Ok(request) => {
                let answer = timeout(WRITE_TIMEOUT, self.inner.call(request));
                answer.map(|answer| answer.unwrap_or_else(|_| Err(Box::new(TooSlow)))).boxed()
            }
            Err(error) => ready(Err(error)).boxed(),
        }
    }
}

/// The API server gives a request up as well: one that waits in its queues would land later otherwise.
fn with_time_limit<B>(request: Request<B>) -> Result<Request<B>, BoxError> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}timeout={}s", WRITE_TIMEOUT.as_secs());
    let mut parts = head.uri.into_parts();
    parts.path_and_query = Some(path.parse()?);
    head.uri = Uri::from_parts(parts)?;
    Ok(Request::from_parts(head, body))
}

#[cfg(test)]
mod tests {
    use std::future::{Future, Ready};
    use std::pin::Pin;
    use std::time::Duration;

    use super::*;

    /// Answers with the address of each request.
    struct Echo;

    impl Service<Request<Body>> for Echo {
        type Response = String;
        type Error = BoxError;
        type Future = Ready<Result<String, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            ready(Ok(request.uri().to_string()))
        }
    }

    /// Never answers.
    struct Silence;

    impl Service<Request<Body>> for Silence {
        type Response = ();
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending().boxed()
        }
    }

    fn request(method: Method, uri: &str) -> Request<Body> {
        Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn reads_always_pass_and_writes_only_while_the_fence_is_open() {
        let fence = Fence::default();
        let mut client = FenceLayer { fence: fence.clone() }.layer(Echo);
        assert_eq!(client.call(request(Method::GET, "/a")).await.unwrap(), "/a");
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            fence.set(None);
            let error = client.call(request(method.clone(), "/a")).await.unwrap_err();
            assert!(error.to_string().contains("does not hold the lease"), "{error}");
            fence.set(Some(Moment::now() + Duration::from_secs(60)));
            assert_eq!(client.call(request(method.clone(), "/a")).await.unwrap(), "/a?timeout=2s");
            assert_eq!(client.call(request(method, "/a?b=c")).await.unwrap(), "/a?b=c&timeout=2s");
        }
    }

    #[tokio::test]
    async fn a_write_without_an_answer_is_given_up() {
        let fence = Fence::default();
        fence.set(Some(Moment::now() + Duration::from_secs(60)));
        let mut client = FenceLayer { fence }.layer(Silence);
        let error = client.call(request(Method::PATCH, "/a")).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&TooSlow));
    }
}
