//! One request and the redirects that it follows: bounded, never out of TLS, each to an address that the rule allows.
//! Credentials are for the origin of the first address. Once a redirect has left it they are not sent any more, not even
//! back there: the HTTP library compares neighbours only, and would send them to the second page of another host.

use std::fmt;

use peerdist_core::distribution::SourceUri;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, IF_RANGE, LOCATION, RANGE};
use reqwest::{Client, Response, StatusCode, Url};

use super::partial::Pinned;
use crate::source::address_rule::{AddressForbidden, AddressRule};
use crate::source::credentials::Credentials;
use crate::source::uri;

/// Redirects that one request follows.
const REDIRECTS_MAX: usize = 10;

/// What came of the credentials of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsUse {
    /// There are none.
    None,
    /// The answer is that to a request with them.
    Sent,
    /// A redirect led away from where they belong.
    Withheld,
}

impl fmt::Display for CredentialsUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "no credentials were sent, spec.source.secretRef is not set",
            Self::Sent => "the credentials of spec.source.secretRef were sent",
            Self::Withheld => {
                "a redirect led to another host, to which the credentials of spec.source.secretRef were not sent"
            }
        })
    }
}

/// An answer that is no redirect.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) credentials: CredentialsUse,
}

/// Why there is no answer.
pub(super) enum RequestError {
    Http(reqwest::Error),
    Redirect(RedirectRefusal),
    Forbidden(AddressForbidden),
}

/// A redirect that is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RedirectRefusal {
    #[error("more than 10 redirects")]
    TooMany,
    #[error("from https to {0}, which would give up the encryption")]
    Downgrade(String),
    #[error("to the scheme {0:?}")]
    Scheme(String),
}

/// Asks for the content at `url`, or for the rest of it. The client must follow no redirect itself.
pub(super) async fn request(
    client: &Client,
    rule: &AddressRule,
    url: &Url,
    pinned: &Pinned,
    credentials: Option<&Credentials>,
) -> Result<Answer, RequestError> {
    let (mut visited, mut next) = (Vec::new(), url.clone());
    let mut sent = if credentials.is_some() { CredentialsUse::Sent } else { CredentialsUse::None };
    loop {
        rule.check_host(&next).map_err(RequestError::Forbidden)?;
        let allowed = credentials.filter(|_| sent == CredentialsUse::Sent);
        let response = send(client, &next, pinned, allowed).await.map_err(RequestError::Http)?;
        let Some(target) = redirected_to(&response, &next) else {
            return Ok(Answer { response, credentials: sent });
        };
        visited.push(next);
        check_redirect(&visited, &target).map_err(RequestError::Redirect)?;
        if sent == CredentialsUse::Sent && target.origin() != url.origin() {
            sent = CredentialsUse::Withheld;
        }
        next = target;
    }
}

async fn send(
    client: &Client,
    url: &Url,
    pinned: &Pinned,
    credentials: Option<&Credentials>,
) -> Result<Response, reqwest::Error> {
    let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(credentials) = credentials {
        request = request.header(AUTHORIZATION, credentials.header());
    }
    if pinned.flushed_bytes > 0 {
        request = request.header(RANGE, format!("bytes={}-", pinned.flushed_bytes));
        if let Some(validator) = &pinned.validator {
            request = request.header(IF_RANGE, validator);
        }
    }
    request.send().await
}

/// Where the response sends us. A user name or password in there is that server's idea, not ours.
fn redirected_to(response: &Response, url: &Url) -> Option<Url> {
    use StatusCode as S;
    let statuses = [S::MOVED_PERMANENTLY, S::FOUND, S::SEE_OTHER, S::TEMPORARY_REDIRECT, S::PERMANENT_REDIRECT];
    if !statuses.contains(&response.status()) {
        return None;
    }
    let mut target = url.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    target.set_fragment(None);
    // Both fail where a URL can have neither.
    let _ = (target.set_username(""), target.set_password(None));
    Some(target)
}

pub(super) fn check_redirect(visited: &[Url], next: &Url) -> Result<(), RedirectRefusal> {
    if visited.len() > REDIRECTS_MAX {
        return Err(RedirectRefusal::TooMany);
    }
    match next.scheme() {
        "https" => Ok(()),
        "http" if visited.iter().all(|url| url.scheme() == "http") => Ok(()),
        "http" => Err(RedirectRefusal::Downgrade(shown_url(next))),
        scheme => Err(RedirectRefusal::Scheme(scheme.to_owned())),
    }
}

pub(super) fn shown_url(url: &Url) -> String {
    uri::shown(&SourceUri::Http(url.to_string()))
}
