//! Who gets an answer of the server's API: whoever has the token in its folder, and in a cluster whoever the API server
//! says may. What cannot be decided is refused.

use std::net::IpAddr;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use peerdist_crds::names::API_TOKEN_AUDIENCE;

use super::ApiToken;
use super::listener::BoundedListener;
use crate::cluster::{AccessError, AccessReviewer};

/// Who may read the API.
#[derive(Clone)]
pub struct ApiGuard {
    /// The token in the server's folder.
    pub token: ApiToken,
    /// Asks the cluster about other tokens.
    pub reviewer: Option<AccessReviewer>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller(IpAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

/// Passes on what may be answered.
pub(super) async fn check(
    State(guard): State<ApiGuard>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let claimed = authorization.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let path = request.uri().path().to_owned();
    match guard.admit(&path, claimed.as_deref(), caller).await {
        Ok(()) => next.run(request).await,
        Err(refused) => refused,
    }
}

impl ApiGuard {
    async fn admit(&self, path: &str, claimed: Option<&str>, Caller(address): Caller) -> Result<(), Response> {
        match (claimed, &self.reviewer) {
            (Some(claimed), _) if self.token.matches(claimed) => Ok(()),
            (Some(claimed), Some(reviewer)) => {
                reviewer.may_get(path, claimed, address).await.map_err(|error| refusal(&error))
            }
            (None, Some(_)) => Err(unknown(format!("a bearer token is needed, for the audience {API_TOKEN_AUDIENCE}"))),
            (_, None) => Err(unknown("a bearer token is needed: see api-token under the server's root".to_owned())),
        }
    }
}

fn refusal(error: &AccessError) -> Response {
    match error {
        AccessError::Unknown(why) => unknown(why.clone()),
        AccessError::Forbidden { .. } => (StatusCode::FORBIDDEN, format!("{error}\n")).into_response(),
        AccessError::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], format!("{error}\n")).into_response()
        }
    }
}

fn unknown(why: String) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"peerdist\"")];
    (StatusCode::UNAUTHORIZED, challenge, why + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_code() {
        let forbidden = AccessError::Forbidden { user: "reader".to_owned(), right: "/peerdist/api".to_owned() };
        for (error, code) in
            [(AccessError::Unknown("no".to_owned()), 401), (forbidden, 403), (AccessError::Unavailable, 503)]
        {
            assert_eq!(refusal(&error).status().as_u16(), code, "{error}");
        }
    }
}
