//! The QUIC settings of each kind of traffic, and the ports each role binds for it.
//!
//! Content gets large windows and large kernel buffers; messages get small ones, because a client has nine endpoints.
//! The congestion controller follows the port that is dialled: background for 34341, 34345 and 34750 at both ends.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use noq::congestion::CubicConfig;
use noq::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use noq_proto::RandomConnectionIdGenerator;
use noq_proto::crypto::{CryptoError, HmacKey};
use peerdist_core::ports::{self, Role};
use peerdist_core::wire::SMALL_MESSAGE_BYTES_MAX;

use super::background::BackgroundFactory;
use super::interface::{DATAGRAM_BYTES_MAX, Interface};
use super::socket::SocketLimits;

/// Message connections close after this long without use.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// A peer that answers nothing for this long while content flows or waits is gone.
const CONTENT_IDLE: Duration = Duration::from_secs(15);
/// Content connections say so often that they live: a paused transfer is not an idle connection.
const CONTENT_KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Round trip assumed before the first measurement: a lost first packet is repeated after three of these.
const ROUND_TRIP_INITIAL: Duration = Duration::from_millis(100);

/// Every path must carry this.
const DATAGRAM_BYTES_INITIAL: u16 = 1200;
/// Messages stay within an Ethernet frame: their receive buffers grow with the largest datagram.
const MESSAGE_DATAGRAM_BYTES_MAX: u16 = 1452;

/// Requests of one peer at a time.
const SMALL_STREAMS_MAX: u32 = 64;
const LARGE_STREAMS_MAX: u32 = 16;
/// Transfers of one peer at a time.
pub(super) const CONTENT_STREAMS_MAX: u32 = 16;

const SMALL_WINDOW_BYTES: u32 = SMALL_MESSAGE_BYTES_MAX as u32 + 1024;
const SMALL_CONNECTION_BYTES: u32 = 256 << 10;
const LARGE_WINDOW_BYTES: u32 = 1 << 20;
const LARGE_CONNECTION_BYTES: u32 = 2 << 20;
/// noq closes a connection when a stream holds more than 2,048 unread packets, and does not merge full ones: the window
/// must be well below that many of the smallest packets.
const CONTENT_WINDOW_BYTES: u32 = 3 << 19;
/// Ten transfers that nobody reads do not stop the others of the same peer.
const CONTENT_CONNECTION_BYTES: u32 = 16 << 20;
const CONTENT_SEND_BYTES: u64 = 4 << 20;

const MESSAGE_KERNEL_BYTES: usize = 256 << 10;
const CONTENT_KERNEL_BYTES: usize = 4 << 20;
const MESSAGE_RECEIVE_BUFFERS: usize = 4;
const CONTENT_RECEIVE_BUFFERS: usize = 8;
/// Receive offload joins up to this many datagrams.
const OFFLOAD_SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// Foreground content starts with what any LAN takes at once.
const LAN_WINDOW_INITIAL_BYTES: u64 = 128 << 10;

/// Packets between two acknowledgements on background connections, and the longest wait for one: late
/// acknowledgements would look like a queue. Foreground content, which is sent in batches, keeps QUIC's own rule.
const BACKGROUND_ACK_PACKETS: u32 = 9;
const BACKGROUND_ACK_DELAY: Duration = Duration::from_millis(1);

/// Timeouts that make losses persistent. On a local path three of them are shorter than a busy host's scheduling.
const PERSISTENT_TIMEOUTS: u32 = 20;

/// Kinds of traffic that have settings of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Traffic {
    SmallMessage,
    ForegroundMessage,
    BackgroundMessage,
    ForegroundContent,
    BackgroundContent,
}

/// Whether an endpoint opens or takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dials,
    Accepts,
}

/// One endpoint of a role. An endpoint that dials content serves both kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) port: u16,
    pub(super) side: Side,
    pub(super) traffic: Traffic,
}

/// The QUIC endpoints of a role, from the table of who dials from where.
pub(super) fn plans(role: Role) -> Vec<Plan> {
    use Traffic::{BackgroundContent, BackgroundMessage, ForegroundContent, ForegroundMessage, SmallMessage};
    let dials = |port, traffic| Plan { port, side: Side::Dials, traffic };
    let accepts = |port, traffic| Plan { port, side: Side::Accepts, traffic };
    match role {
        Role::Server => vec![
            dials(ports::SERVER_SMALL_REPLY, SmallMessage),
            accepts(ports::SERVER_SMALL, SmallMessage),
            dials(ports::SERVER_FOREGROUND_REPLY, ForegroundMessage),
            accepts(ports::SERVER_FOREGROUND, ForegroundMessage),
            dials(ports::SERVER_BACKGROUND_REPLY, BackgroundMessage),
            accepts(ports::SERVER_BACKGROUND, BackgroundMessage),
            dials(ports::SERVER_CONTENT_CONTROL, ForegroundContent),
        ],
        Role::Client => vec![
            dials(ports::CLIENT_SMALL_REPLY, SmallMessage),
            accepts(ports::CLIENT_SMALL, SmallMessage),
            dials(ports::CLIENT_FOREGROUND_REPLY, ForegroundMessage),
            accepts(ports::CLIENT_FOREGROUND, ForegroundMessage),
            dials(ports::CLIENT_BACKGROUND_REPLY, BackgroundMessage),
            accepts(ports::CLIENT_BACKGROUND, BackgroundMessage),
            dials(ports::CLIENT_CONTENT_CONTROL, ForegroundContent),
            accepts(ports::CLIENT_FOREGROUND_CONTENT, ForegroundContent),
            accepts(ports::CLIENT_BACKGROUND_CONTENT, BackgroundContent),
        ],
        Role::Vesc => vec![dials(ports::VESC_REPLY, SmallMessage)],
    }
}

/// Which role dials this accepting port from that remote port; `None`: nobody may.
pub(super) fn dialling_role(accepting_port: u16, remote_port: u16) -> Option<Role> {
    use Role::{Client, Server, Vesc};
    let table: &[(u16, Role)] = match accepting_port {
        ports::SERVER_SMALL => &[(ports::CLIENT_SMALL_REPLY, Client), (ports::VESC_REPLY, Vesc)],
        ports::SERVER_FOREGROUND => &[(ports::CLIENT_FOREGROUND_REPLY, Client)],
        ports::SERVER_BACKGROUND => &[(ports::CLIENT_BACKGROUND_REPLY, Client)],
        ports::CLIENT_SMALL => &[(ports::SERVER_SMALL_REPLY, Server), (ports::CLIENT_SMALL_REPLY, Client)],
        ports::CLIENT_FOREGROUND => {
            &[(ports::SERVER_FOREGROUND_REPLY, Server), (ports::CLIENT_FOREGROUND_REPLY, Client)]
        }
        ports::CLIENT_BACKGROUND => {
            &[(ports::SERVER_BACKGROUND_REPLY, Server), (ports::CLIENT_BACKGROUND_REPLY, Client)]
        }
        ports::CLIENT_FOREGROUND_CONTENT => {
            &[(ports::SERVER_CONTENT_CONTROL, Server), (ports::CLIENT_CONTENT_CONTROL, Client)]
        }
        ports::CLIENT_BACKGROUND_CONTENT => &[(ports::CLIENT_CONTENT_CONTROL, Client)],
        _ => &[],
    };
    table.iter().find(|&&(port, _)| port == remote_port).map(|&(_, role)| role)
}

impl Traffic {
    pub(super) fn is_content(self) -> bool {
        matches!(self, Self::ForegroundContent | Self::BackgroundContent)
    }

    /// The port that takes this traffic at a role; `None`: no such row.
    pub(super) fn accepting_port(self, role: Role) -> Option<u16> {
        plans(role).into_iter().find(|plan| plan.side == Side::Accepts && plan.traffic == self).map(|plan| plan.port)
    }

    /// The largest datagram that this traffic sends or takes.
    fn datagram_bytes_max(self, interface: Interface) -> u16 {
        if self.is_content() {
            interface.datagram_bytes_max
        } else {
            interface.datagram_bytes_max.min(MESSAGE_DATAGRAM_BYTES_MAX)
        }
    }

    pub(super) fn socket_limits(self) -> SocketLimits {
        if self.is_content() {
            SocketLimits {
                kernel_bytes: CONTENT_KERNEL_BYTES,
                receive_buffers: CONTENT_RECEIVE_BUFFERS,
                // One largest datagram is as long as the longest joined receive.
                receive_segments: NonZeroUsize::MIN,
            }
        } else {
            SocketLimits {
                kernel_bytes: MESSAGE_KERNEL_BYTES,
                receive_buffers: MESSAGE_RECEIVE_BUFFERS,
                receive_segments: OFFLOAD_SEGMENTS,
            }
        }
    }

    /// The settings of an endpoint. `reset_secret` must be the same in every run of the node.
    pub(super) fn endpoint(self, reset_secret: [u8; 32], address: IpAddr, port: u16) -> EndpointConfig {
        let mut hasher = blake3::Hasher::new_keyed(&reset_secret);
        hasher.update(address.to_string().as_bytes()).update(&port.to_be_bytes());
        let mut config = EndpointConfig::new(Arc::new(ResetKey(*hasher.finalize().as_bytes())));
        // Any connection of the run before gets its reset, so every connection id must look possible.
        config.cid_generator(Arc::new(|| Box::new(RandomConnectionIdGenerator::new(8))));
        config.grease_quic_bit(false);
        let datagram_bytes = if self.is_content() { u16::MAX - 8 } else { 1472 };
        let accepted = config.max_udp_payload_size(datagram_bytes).is_ok();
        debug_assert!(accepted, "both sizes are within what QUIC allows");
        config
    }

    /// The settings of a connection, the same at both ends.
    pub(super) fn connection(self, interface: Interface, background: &Arc<BackgroundFactory>) -> TransportConfig {
        let mut config = TransportConfig::default();
        let datagram_bytes = self.datagram_bytes_max(interface).min(DATAGRAM_BYTES_MAX);
        config
            .initial_mtu(DATAGRAM_BYTES_INITIAL)
            .min_mtu(DATAGRAM_BYTES_INITIAL)
            .initial_rtt(ROUND_TRIP_INITIAL)
            .persistent_congestion_threshold(PERSISTENT_TIMEOUTS)
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(datagram_bytes);
        config.mtu_discovery_config((self != Self::SmallMessage).then_some(discovery));
        self.set_windows(&mut config);
        self.set_timers(&mut config);
        self.set_controller(&mut config, background);
        config
    }

    fn set_windows(self, config: &mut TransportConfig) {
        let (streams, stream_bytes, connection_bytes) = match self {
            Self::SmallMessage => (SMALL_STREAMS_MAX, SMALL_WINDOW_BYTES, SMALL_CONNECTION_BYTES),
            Self::ForegroundMessage | Self::BackgroundMessage => {
                (LARGE_STREAMS_MAX, LARGE_WINDOW_BYTES, LARGE_CONNECTION_BYTES)
            }
            Self::ForegroundContent | Self::BackgroundContent => {
                (CONTENT_STREAMS_MAX, CONTENT_WINDOW_BYTES, CONTENT_CONNECTION_BYTES)
            }
        };
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .stream_receive_window(VarInt::from_u32(stream_bytes))
            .receive_window(VarInt::from_u32(connection_bytes))
            .send_window(if self.is_content() { CONTENT_SEND_BYTES } else { stream_bytes.into() });
    }

    fn set_timers(self, config: &mut TransportConfig) {
        let (idle, keep_alive) =
            if self.is_content() { (CONTENT_IDLE, Some(CONTENT_KEEP_ALIVE)) } else { (IDLE, None) };
        config.max_idle_timeout(IdleTimeout::try_from(idle).ok()).keep_alive_interval(keep_alive);
    }

    fn set_controller(self, config: &mut TransportConfig, background: &Arc<BackgroundFactory>) {
        match self {
            Self::BackgroundMessage | Self::BackgroundContent => {
                config.congestion_controller_factory(background.clone());
                let mut acknowledgements = AckFrequencyConfig::default();
                acknowledgements
                    .ack_eliciting_threshold(VarInt::from_u32(BACKGROUND_ACK_PACKETS))
                    .max_ack_delay(Some(BACKGROUND_ACK_DELAY));
                config.ack_frequency_config(Some(acknowledgements));
                // A datagram at a time: the request for acknowledgements is written without a look at the room left,
                // and noq panics when it meets a later, shorter datagram of a batch. Bursts are unwanted here anyway.
                config.enable_segmentation_offload(false);
            }
            Self::ForegroundContent => {
                let mut cubic = CubicConfig::default();
                cubic.initial_window(LAN_WINDOW_INITIAL_BYTES);
                config.congestion_controller_factory(Arc::new(cubic));
            }
            Self::SmallMessage | Self::ForegroundMessage => {
                config.congestion_controller_factory(Arc::new(CubicConfig::default()));
            }
        }
    }
}

/// Keyed BLAKE3 as QUIC's key for stateless resets.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use peerdist_core::ports::listening_ports;

    use super::*;

    #[test]
    fn endpoints_are_exactly_the_ports_of_the_catalogue() {
        for role in [Role::Server, Role::Client, Role::Vesc] {
            let mut bound: Vec<u16> = plans(role).iter().map(|plan| plan.port).collect();
            if role == Role::Client {
                bound.push(ports::CLIENT_BROADCAST);
            }
            bound.sort_unstable();
            assert_eq!(bound, listening_ports(role));
        }
    }

    #[test]
    fn only_dialling_ports_of_the_same_class_are_let_in() {
        assert_eq!(dialling_role(ports::CLIENT_SMALL, ports::SERVER_SMALL_REPLY), Some(Role::Server));
        assert_eq!(dialling_role(ports::CLIENT_SMALL, ports::CLIENT_FOREGROUND_REPLY), None);
        assert_eq!(dialling_role(ports::CLIENT_BACKGROUND_CONTENT, ports::SERVER_CONTENT_CONTROL), None);
        assert_eq!(dialling_role(ports::CLIENT_BACKGROUND_CONTENT, 40000), None);
    }

    #[test]
    fn traffic_has_no_port_where_the_tables_have_no_row() {
        assert_eq!(Traffic::ForegroundContent.accepting_port(Role::Server), None);
        assert_eq!(Traffic::BackgroundMessage.accepting_port(Role::Client), Some(ports::CLIENT_BACKGROUND));
    }
}
