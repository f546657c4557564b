//! Messages of the machines over the transport: encoding, the reply, and what became of them.

use std::net::IpAddr;

use peerdist_core::message::{DecodeError, Message, decode_envelope, encode_envelope};
use peerdist_core::peer::{ContentClass, MessageClass, NodeRef, Peer};
use peerdist_core::ports::Role;
use peerdist_core::wire::proto;
use tracing::{Instrument, Span};

use crate::telemetry::{current_traceparent, with_parent};
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
    /// The reason word of a refusal.
    pub(super) fn refused(self) -> Option<String> {
        match self {
            Self::Unreachable => None,
            Self::Refused(reason) => Some(reason),
        }
    }
}

/// Sends a message and waits for its reply, as a part of the current trace. A plan and a want begin one when there is
/// none: the way of a package is worth to be followed, the many reports are not.
pub(super) async fn send(
    transport: &Transport,
    address: IpAddr,
    role: Role,
    class: MessageClass,
    message: &Message,
) -> Result<(), SendFailure> {
    let span = match message {
        Message::Plan(_) => tracing::info_span!("plan", to = %address),
        Message::Want(want) => tracing::info_span!("want", to = %address, digest = %want.digest),
        _ => Span::current(),
    };
    send_in_trace(transport, address, role, class, message).instrument(span).await
}

async fn send_in_trace(
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
