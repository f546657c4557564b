//! Messages of the machines over the transport: encoding, the reply, and what became of them.

use std::fmt;
use std::net::IpAddr;

use peerdist_core::message::{DecodeError, Message, decode_envelope, encode_envelope};
use peerdist_core::names::PackageKey;
use peerdist_core::peer::{ContentClass, MessageClass, NodeRef, Peer};
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use peerdist_telemetry::{current_traceparent, join_package_trace, with_parent};
use tracing::Span;
use tracing::field::display;

use crate::transport::{self, PeerIdentity, RequestError, Transport};

/// Why a message did not do its work.
#[derive(Debug, Clone)]
pub(super) enum SendFailure {
    /// The peer was not there, or did not answer.
    Unreachable,
    /// The peer refused it with this reason word.
    Refused(String),
}

impl SendFailure {
    /// Whether nobody answered who is what the peer is meant to be. With another certificate it is somebody else.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Refused(reason) => reason == "certificate",
        }
    }

    /// The reason word of a refusal.
    pub(super) fn refused(self) -> Option<String> {
        match self {
            Self::Unreachable => None,
            Self::Refused(reason) => Some(reason),
        }
    }
}

/// The span in which a message is sent. What asks for a package or says that it is complete belongs to the trace of that
/// package, and a plan, which speaks of many, begins one when there is none. The many reports are not worth it.
pub(super) fn span_of_sending(message: &Message, to: &impl fmt::Display, package: Option<&PackageKey>) -> Span {
    let name = package.map(display);
    let span = match message {
        Message::Want(_) => tracing::info_span!("want", %to, package = name),
        Message::Complete { .. } => tracing::info_span!("complete", %to, package = name),
        Message::Plan(_) => return tracing::info_span!("plan", %to),
        _ => return Span::current(),
    };
    if let Some(package) = package {
        join_package_trace(&span, package);
    }
    span
}

/// Sends a message and waits for its reply, as a part of the current trace.
pub(super) async fn send(
    transport: &Transport,
    address: IpAddr,
    role: Role,
    class: MessageClass,
    message: &Message,
) -> Result<(), SendFailure> {
    let envelope = encode_envelope(message, current_traceparent());
    match transport.request(address, role, class_on_ports(class), envelope).await {
        Ok(_) => Ok(()),
        Err(RequestError::Refused { reason, message: text, .. }) => {
            tracing::debug!(%address, reason, text, "refused");
            Err(SendFailure::Refused(reason))
        }
        Err(error) => {
            // Nobody will ask again for what cannot be sent at all, for example a plan that is too large.
            match error {
                RequestError::Protocol { .. } => tracing::error!(%address, %error, ?class, "cannot be sent"),
                _ => tracing::debug!(%address, %error, ?class, "undelivered"),
            }
            Err(SendFailure::Unreachable)
        }
    }
}

/// What a received message leads to belongs to the trace of its sender, if that has one.
pub(super) fn span_of(envelope: &proto::Envelope, from: IpAddr) -> Span {
    if envelope.traceparent.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!("message", %from);
    with_parent(&span, &envelope.traceparent);
    span
}

/// The node behind a certificate; `None` for a peer that is no client.
pub(super) fn node_of(identity: &PeerIdentity, address: IpAddr) -> Option<NodeRef> {
    match identity {
        PeerIdentity::Client { office, node } => Some(NodeRef { name: node.clone(), office: office.clone(), address }),
        _ => None,
    }
}

/// The peer behind a certificate, as the machines name it.
pub(super) fn peer_of(identity: &PeerIdentity, address: IpAddr) -> Option<Peer> {
    match identity {
        PeerIdentity::Server => Some(Peer::Server),
        identity => node_of(identity, address).map(Peer::Node),
    }
}

/// A request that a driver answers itself, or a message for the machine.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A node wants a certificate.
    Enrol(proto::Enrol),
    /// A peer wants a page of a manifest.
    Manifest(proto::ManifestRequest),
    /// For the machine.
    Message(Message),
}

/// Sorts and parses what arrived.
pub(super) fn parse(envelope: proto::Envelope) -> Result<Incoming, DecodeError> {
    use proto::envelope::Message as Wire;
    match envelope.message {
        Some(Wire::Enrol(enrol)) => Ok(Incoming::Enrol(enrol)),
        Some(Wire::ManifestRequest(request)) => Ok(Incoming::Manifest(request)),
        message => Ok(Incoming::Message(decode_envelope(proto::Envelope { message, ..envelope })?)),
    }
}

/// The transport's name of a message class.
pub(super) fn class_on_ports(class: MessageClass) -> transport::MessageClass {
    match class {
        MessageClass::Small => transport::MessageClass::Small,
        MessageClass::Foreground => transport::MessageClass::Foreground,
        MessageClass::Background => transport::MessageClass::Background,
    }
}

/// The transport's name of a content class.
pub(super) fn content_on_ports(class: ContentClass) -> transport::ContentClass {
    match class {
        ContentClass::Foreground => transport::ContentClass::Foreground,
        ContentClass::Background => transport::ContentClass::Background,
    }
}
