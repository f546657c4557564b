//! Who a message comes from or goes to.

use std::fmt;
use std::net::IpAddr;

use crate::names::{NodeName, OfficeName};

/// A node as its peers know it: the identity that its certificate proves, and its address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRef {
    /// Name of the node, unique in the fleet.
    pub name: NodeName,
    /// Its office.
    pub office: OfficeName,
    /// The address its ports are bound to.
    pub address: IpAddr,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.address)
    }
}

/// The other end of a message or a transfer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The server.
    Server,
    /// A client.
    Node(NodeRef),
}

impl Peer {
    /// The node, unless it is the server.
    pub fn node(&self) -> Option<&NodeRef> {
        match self {
            Self::Server => None,
            Self::Node(node) => Some(node),
        }
    }

    /// Whether this is the node of that name.
    pub fn is_node(&self, name: &NodeName) -> bool {
        self.node().is_some_and(|node| node.name == *name)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => formatter.write_str("server"),
            Self::Node(node) => node.fmt(formatter),
        }
    }
}

/// The three classes of messages. Which ports they use follows from the roles of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageClass {
    /// At most [`crate::wire::SMALL_MESSAGE_BYTES_MAX`].
    Small,
    /// Large, inside an office or between the server and the Central Office.
    Foreground,
    /// Large, across an office boundary.
    Background,
}

/// The two classes of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContentClass {
    /// Inside an office, and from the server to the Central Office (port 34760).
    Foreground,
    /// From an office to its child office (port 34750).
    Background,
}
