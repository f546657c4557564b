//! The port catalogue: the 26 rows of the published specification as data.
//!
//! Everything that needs a port number, a firewall rule or a transfer class takes it from here. Rendering as
//! tables and firewall rules is the command line's business (`peerdist ports`).

use std::fmt;

use serde::Serialize;

/// Who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The peer-to-peer server in the Central Office.
    Server,
    /// The peer-to-peer client, one a node.
    Client,
    /// The VMware Enterprise Systems Connector.
    Vesc,
}

/// The transfer classes of the metrics (`class` label).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferClass {
    /// Small messages and their replies.
    SmallMessage,
    /// Large messages inside an office, and between the server and the Central Office.
    ForegroundMessage,
    /// Large messages between offices.
    BackgroundMessage,
    /// Requests to every client of a subnet.
    Broadcast,
    /// Content inside an office.
    ForegroundContent,
    /// Content from an office to its child office.
    BackgroundContent,
    /// Control signals of any large transfer (Adaptive Protocol).
    ContentControl,
    /// Messages of the VESC.
    VescMessage,
}

impl TransferClass {
    /// Every class, in the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::SmallMessage,
        Self::ForegroundMessage,
        Self::BackgroundMessage,
        Self::Broadcast,
        Self::ForegroundContent,
        Self::BackgroundContent,
        Self::ContentControl,
        Self::VescMessage,
    ];

    /// The label value in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SmallMessage => "small_message",
            Self::ForegroundMessage => "foreground_message",
            Self::BackgroundMessage => "background_message",
            Self::Broadcast => "broadcast",
            Self::ForegroundContent => "foreground_content",
            Self::BackgroundContent => "background_content",
            Self::ContentControl => "content_control",
            Self::VescMessage => "vesc_message",
        }
    }

    /// Position in [`TransferClass::ALL`], for tables indexed by class.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for TransferClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Which of the receiving role's hosts a sender may reach (the "to" column).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Any host of the role.
    Any,
    /// Clients of the same office, the parent office and child offices.
    SameParentOrChildOffice,
    /// Clients in the same subnet.
    SameSubnet,
    /// Clients in the Central Office.
    CentralOffice,
    /// Clients of the same office.
    SameOffice,
    /// Clients of child offices.
    ChildOffice,
}

/// One row of the port tables. All rows are UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PortRow {
    /// Number of the table, 1 to 8.
    pub table: u8,
    /// The sending component.
    pub from: Role,
    /// The receiving component.
    pub to: Role,
    /// Which receivers the row covers.
    pub reach: Reach,
    /// Destination port.
    pub port: u16,
    /// Transfer class of the datagrams that this row carries.
    pub class: TransferClass,
    /// Whether the port receives acknowledgements and replies (the sender's dialling port).
    pub reply_side: bool,
    /// What flows to the port.
    pub description: &'static str,
}

/// Server: dials small messages from here; acknowledgements and replies arrive here.
pub const SERVER_SMALL_REPLY: u16 = 34322;
/// Server: accepts small messages, also the VESC's.
pub const SERVER_SMALL: u16 = 34323;
/// Server: dials foreground messages from here.
pub const SERVER_FOREGROUND_REPLY: u16 = 34331;
/// Server: accepts foreground messages.
pub const SERVER_FOREGROUND: u16 = 34333;
/// Server: dials background messages from here.
pub const SERVER_BACKGROUND_REPLY: u16 = 34339;
/// Server: accepts background messages.
pub const SERVER_BACKGROUND: u16 = 34341;
/// Server: dials content from here; control signals arrive here.
pub const SERVER_CONTENT_CONTROL: u16 = 34545;
/// Client: dials small messages from here.
pub const CLIENT_SMALL_REPLY: u16 = 34324;
/// Client: accepts small messages.
pub const CLIENT_SMALL: u16 = 34325;
/// Client: sends and receives broadcasts.
pub const CLIENT_BROADCAST: u16 = 34329;
/// Client: dials foreground messages from here.
pub const CLIENT_FOREGROUND_REPLY: u16 = 34335;
/// Client: accepts foreground messages.
pub const CLIENT_FOREGROUND: u16 = 34337;
/// Client: dials background messages from here.
pub const CLIENT_BACKGROUND_REPLY: u16 = 34343;
/// Client: accepts background messages.
pub const CLIENT_BACKGROUND: u16 = 34345;
/// Client: dials content from here; control signals arrive here.
pub const CLIENT_CONTENT_CONTROL: u16 = 34546;
/// Client: accepts content of its own office (and, in the Central Office, of the server).
pub const CLIENT_FOREGROUND_CONTENT: u16 = 34760;
/// Client: accepts content of the parent office.
pub const CLIENT_BACKGROUND_CONTENT: u16 = 34750;
/// VESC: dials its messages from here; responses arrive here.
pub const VESC_REPLY: u16 = 34320;

/// First and last port of the specification, for reservation checks.
pub const PORT_RANGE: std::ops::RangeInclusive<u16> = VESC_REPLY..=CLIENT_FOREGROUND_CONTENT;

use Reach::{Any, CentralOffice, ChildOffice, SameOffice, SameParentOrChildOffice, SameSubnet};
use Role::{Client, Server, Vesc};
use TransferClass::{
    BackgroundContent, BackgroundMessage, Broadcast, ContentControl, ForegroundContent, ForegroundMessage,
    SmallMessage, VescMessage,
};

/// The 26 rows, in the order of the specification.
#[rustfmt::skip]
pub const ROWS: [PortRow; 26] = [
    row(1, Client, Server, Any, SERVER_SMALL_REPLY, SmallMessage, true, "acknowledgements and replies to the server's small messages"),
    row(1, Client, Server, Any, SERVER_SMALL, SmallMessage, false, "small messages"),
    row(1, Client, Server, Any, SERVER_FOREGROUND_REPLY, ForegroundMessage, true, "large replies, Foreground Protocol"),
    row(1, Client, Server, Any, SERVER_FOREGROUND, ForegroundMessage, false, "large messages, Foreground Protocol"),
    row(1, Client, Server, Any, SERVER_BACKGROUND_REPLY, BackgroundMessage, true, "large replies, Background Protocol"),
    row(1, Client, Server, Any, SERVER_BACKGROUND, BackgroundMessage, false, "large messages, Background Protocol"),
    row(2, Server, Client, Any, CLIENT_SMALL_REPLY, SmallMessage, true, "acknowledgements and replies to clients' small messages"),
    row(2, Server, Client, Any, CLIENT_SMALL, SmallMessage, false, "small messages"),
    row(2, Server, Client, Any, CLIENT_FOREGROUND_REPLY, ForegroundMessage, true, "large replies, Foreground Protocol"),
    row(2, Server, Client, Any, CLIENT_FOREGROUND, ForegroundMessage, false, "large messages, Foreground Protocol"),
    row(2, Server, Client, Any, CLIENT_BACKGROUND_REPLY, BackgroundMessage, true, "large replies, Background Protocol"),
    row(2, Server, Client, Any, CLIENT_BACKGROUND, BackgroundMessage, false, "large messages, Background Protocol"),
    row(3, Client, Client, SameParentOrChildOffice, CLIENT_SMALL_REPLY, SmallMessage, true, "acknowledgements and replies"),
    row(3, Client, Client, SameParentOrChildOffice, CLIENT_SMALL, SmallMessage, false, "small messages"),
    row(3, Client, Client, SameParentOrChildOffice, CLIENT_FOREGROUND_REPLY, ForegroundMessage, true, "large replies, Foreground Protocol"),
    row(3, Client, Client, SameParentOrChildOffice, CLIENT_FOREGROUND, ForegroundMessage, false, "large messages, Foreground Protocol"),
    row(3, Client, Client, SameParentOrChildOffice, CLIENT_BACKGROUND_REPLY, BackgroundMessage, true, "large replies, Background Protocol"),
    row(3, Client, Client, SameParentOrChildOffice, CLIENT_BACKGROUND, BackgroundMessage, false, "large messages, Background Protocol"),
    row(4, Client, Client, SameSubnet, CLIENT_BROADCAST, Broadcast, false, "requests broadcast to other clients"),
    row(5, Server, Client, CentralOffice, CLIENT_FOREGROUND_CONTENT, ForegroundContent, false, "content, Foreground Protocol"),
    row(6, Client, Client, SameOffice, CLIENT_FOREGROUND_CONTENT, ForegroundContent, false, "content, Foreground Protocol"),
    row(6, Client, Client, ChildOffice, CLIENT_BACKGROUND_CONTENT, BackgroundContent, false, "content, Background Protocol"),
    row(7, Client, Server, Any, SERVER_CONTENT_CONTROL, ContentControl, true, "control signals of any large transfer, Adaptive Protocol"),
    row(7, Client, Client, SameParentOrChildOffice, CLIENT_CONTENT_CONTROL, ContentControl, true, "control signals of any large transfer, Adaptive Protocol"),
    row(8, Vesc, Server, Any, SERVER_SMALL, VescMessage, false, "activation, health checks, application metadata"),
    row(8, Server, Vesc, Any, VESC_REPLY, VescMessage, true, "responses to VESC's requests"),
];

#[allow(clippy::too_many_arguments, reason = "one argument a column of the table")]
const fn row(
    table: u8,
    from: Role,
    to: Role,
    reach: Reach,
    port: u16,
    class: TransferClass,
    reply_side: bool,
    description: &'static str,
) -> PortRow {
    PortRow { table, from, to, reach, port, class, reply_side, description }
}

/// Ports on which a role must be able to receive, ascending, without repetition.
pub fn listening_ports(role: Role) -> Vec<u16> {
    let mut ports: Vec<u16> = ROWS.iter().filter(|row| row.to == role).map(|row| row.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Class of a datagram by its destination port; `None` for a port outside the catalogue.
/// What goes to or comes from the VESC's port is a VESC message, whatever the other end.
pub fn class_of_datagram(source_port: u16, destination_port: u16) -> Option<TransferClass> {
    if source_port == VESC_REPLY {
        return Some(VescMessage);
    }
    ROWS.iter().find(|row| row.port == destination_port).map(|row| row.class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_disjoint_ports_so_that_they_share_a_host() {
        let (server, client, vesc) = (listening_ports(Server), listening_ports(Client), listening_ports(Vesc));
        assert_eq!((server.len(), client.len(), vesc.len()), (7, 10, 1));
        assert!(server.iter().all(|port| !client.contains(port) && !vesc.contains(port)));
        assert!(client.iter().all(|port| !vesc.contains(port)));
    }

    #[test]
    fn class_follows_the_destination_port() {
        assert_eq!(class_of_datagram(SERVER_SMALL, CLIENT_SMALL_REPLY), Some(SmallMessage));
        assert_eq!(class_of_datagram(CLIENT_FOREGROUND_CONTENT, CLIENT_CONTENT_CONTROL), Some(ContentControl));
        assert_eq!(class_of_datagram(VESC_REPLY, SERVER_SMALL), Some(VescMessage));
        assert_eq!(class_of_datagram(1, 2), None);
    }
}
