//! How a node gets another certificate while it runs: with the one in force, which a pod backs with its token, so that
//! the server of a cluster sees that the node is still one of its office. When that is due is decided in `node`.

use std::time::SystemTime;

use peerdist_core::message::encode_node;

use super::node::Context;
use crate::transport::EnrolError;

impl Context {
    /// A new certificate: with the one that is in force, or with the token when that has run out or the server is under
    /// a root that only the trust file tells of.
    pub(super) async fn renew(&self) -> Result<(), EnrolError> {
        let (me, server) = (encode_node(&self.settings.me()), self.settings.server.get());
        let identity = self.transport.identity();
        let token = self.settings.token().unwrap_or_else(|error| {
            tracing::warn!(%error, "the certificate is renewed without knowing which roots to trust from now on");
            None
        });
        // The token of a pod says that it still is one of its office; a join token says nothing new.
        let secret = self.settings.pod_secret();
        let Some(token) = token else {
            return self.transport.renew(server, me, &secret, None).await.map(drop);
        };
        if !identity.is_expired(SystemTime::now()) {
            let renewed = self.transport.renew(server, me.clone(), &secret, Some(token.pins())).await.map(drop);
            if renewed.is_ok() || identity.trusts_all(token.pins()) {
                return renewed;
            }
        }
        self.transport.enrol(server, &token, me).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peerdist_core::ports::Role;
    use peerdist_core::wire::proto::envelope::Message;
    use peerdist_core::wire::proto::{self, reply::Reply};

    use super::super::ServerAddress;
    use super::super::fixture::{TestNode, address, certify};
    use super::*;
    use crate::transport::{Authority, Transport, TransportSettings};

    const POD_TOKEN: &str = "of.a.pod";

    /// Answers one renewal. Returns the token that came with it.
    async fn answer_one(server: &Transport, authority: &Authority) -> String {
        let message = server.next_message().await.unwrap();
        let Some(Message::Enrol(enrol)) = message.envelope.message else { panic!("expected a renewal") };
        let now = SystemTime::now();
        let issued = authority.issue(&enrol.certificate_request, &message.from, message.address, now).unwrap();
        message.reply.send(proto::Reply { reply: Some(Reply::Enrol(authority.reply(issued))) });
        enrol.token
    }

    #[tokio::test]
    async fn pod_shows_its_token_when_it_renews_its_certificate_whatever_its_trust_file_says() {
        let (folder, at, now) = (tempfile::tempdir().unwrap(), address(24), SystemTime::now());
        let authority = Authority::open(folder.path(), now).unwrap();
        let identity = Arc::new(authority.server_identity(at, now).unwrap());
        let server = Transport::bind(Role::Server, at, identity, TransportSettings::default(), Arc::default()).unwrap();
        let node = TestNode::prepared(23, |settings| {
            let trust = settings.root.join("trust");
            std::fs::write(&settings.join_token_file, POD_TOKEN).unwrap();
            std::fs::write(&trust, hex::encode(authority.root_sha256())).unwrap();
            (settings.server, settings.trust_file) = (ServerAddress::fixed(at), Some(trust));
            certify(settings, &authority, now);
        });
        let TestNode { context, .. } = &node;
        let renew = async || {
            let before = context.transport.identity().enrolment().unwrap().certificate;
            let (renewed, token) = tokio::join!(context.renew(), answer_one(&server, &authority));
            renewed.unwrap();
            assert_eq!(token, POD_TOKEN);
            assert_ne!(context.transport.identity().enrolment().unwrap().certificate, before);
            assert!(context.transport.identity().trusts_all(&[authority.root_sha256()]));
        };
        renew().await;
        let trust = context.settings.trust_file.as_ref().unwrap();
        std::fs::write(trust, "no digest").unwrap();
        renew().await;
        std::fs::remove_file(trust).unwrap();
        renew().await;
    }
}
