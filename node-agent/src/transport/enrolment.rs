//! How a node gets its certificate: enrolment with a join token, renewal with the certificate it has.
//! When to do which is the driver's decision.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use noq::ClientConfig;
use peerdist_core::ports::{Role, SERVER_SMALL};
use peerdist_core::wire::proto::{self, envelope::Message};

use super::Transport;
use super::connections::presented_certificates;
use super::identity::{IdentityError, pinned_roots};
use super::join_token::JoinToken;
use super::messages::{MessageClass, RequestError};
use super::tls::{self, TlsError};

/// An enrolment or renewal that failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The server could not be asked, or refused.
    #[error("enrolment at the server: {0}")]
    Request(#[from] RequestError),
    /// The reply is not one to an enrolment.
    #[error("enrolment at the server: its reply carries no certificate: it runs an incompatible version")]
    Reply,
    /// The certificate cannot be used or stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A role without small messages cannot enrol.
    #[error("this role does not enrol")]
    NoRow,
}

impl Transport {
    /// Enrols at the server: checks it against the token's pin, sends the token, and takes the certificate.
    ///
    /// # Errors
    /// [`EnrolError`]; nothing changes then.
    pub async fn enrol(
        &self,
        server: IpAddr,
        token: &JoinToken,
        node: proto::Node,
    ) -> Result<proto::EnrolReply, EnrolError> {
        let requester = self.requesters.get(&MessageClass::Small).ok_or(EnrolError::NoRow)?;
        self.identity.say_why_anew(token.pins(), self.address, SystemTime::now());
        let config = ClientConfig::new(tls::enrolling_client(token.pins())?);
        let envelope = self.enrolment_request(token.secret().to_owned(), node)?;
        let to = SocketAddr::new(server, SERVER_SMALL);
        let (reply, connection) = requester.request_once(config, to, &envelope).await?;
        let enrolment = enrolment_of(reply)?;
        let presented = presented_certificates(&connection).unwrap_or_default();
        let root = tls::find_root(&presented, token.pins()).ok_or(EnrolError::Reply)?;
        let roots = pinned_roots(vec![root.clone().into_owned()], &enrolment, token.pins());
        self.identity.install(&roots, enrolment.clone())?;
        self.use_office_key();
        Ok(enrolment)
    }

    /// Gets a new certificate from the server with the one that is in force, and with what the token proves besides. That
    /// goes to nobody but a server that the roots in force vouch for. The pins say which roots to trust from now on;
    /// without them that stays as it is.
    ///
    /// # Errors
    /// [`EnrolError`]; the old certificate stays in force then.
    pub async fn renew(
        &self,
        server: IpAddr,
        node: proto::Node,
        token_secret: &str,
        pins: Option<&[[u8; 32]]>,
    ) -> Result<proto::EnrolReply, EnrolError> {
        let envelope = self.enrolment_request(token_secret.to_owned(), node)?;
        let reply = self.request(server, Role::Server, MessageClass::Small, envelope).await?;
        let enrolment = enrolment_of(reply)?;
        self.identity.renew(enrolment.clone(), pins)?;
        self.use_office_key();
        Ok(enrolment)
    }

    /// Broadcasts are authenticated with the key that enrolment gave.
    pub(super) fn use_office_key(&self) {
        let key = self.identity.enrolment().and_then(|enrolment| <[u8; 32]>::try_from(&enrolment.office_key[..]).ok());
        if let (Some(broadcaster), Some(key)) = (&self.broadcaster, key) {
            broadcaster.set_office_key(&key);
        }
    }

    fn enrolment_request(&self, token: String, node: proto::Node) -> Result<proto::Envelope, IdentityError> {
        let certificate_request = self.identity.certificate_request()?.into();
        let enrol = proto::Enrol { token, node: Some(node), certificate_request };
        Ok(proto::Envelope { traceparent: String::new(), message: Some(Message::Enrol(enrol)) })
    }
}

fn enrolment_of(reply: proto::Reply) -> Result<proto::EnrolReply, EnrolError> {
    match reply.reply {
        Some(proto::reply::Reply::Enrol(enrolment)) => Ok(enrolment),
        _ => Err(EnrolError::Reply),
    }
}
