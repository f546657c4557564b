//! The node agent: the roles server and client, the drivers around `peerdist-core`, the stores, the HTTP
//! endpoints, the embedded mode and the command line.
//!
//! In reading order: [`cli`] is what people type; [`embedded`] runs every role in one process; [`driver`] turns
//! sockets, timers and commands into events for the core's machines; [`transport`] is QUIC on the ports of the
//! catalogue; [`source`] brings packages in; [`store`] keeps content on disk; [`database`] keeps the server's
//! metadata; [`desired`] reads the objects, [`cluster`] speaks to a Kubernetes API; [`metrics`] and [`http`] let people watch;
//! [`status`] and [`report`] are what they see;
//! [`firewall`] renders rules; [`port_holder`] says who has a port; `private_file` replaces small files whole;
//! `printable` makes text from outside fit a line; [`decoders`] is for tests only.

pub mod cli;
pub mod cluster;
pub mod database;
pub mod decoders;
pub mod desired;
pub mod driver;
pub mod embedded;
pub mod firewall;
#[cfg(test)]
mod golden;
pub mod http;
pub mod metrics;
pub mod port_holder;
mod printable;
mod private_file;
pub mod report;
pub mod source;
pub mod status;
pub mod store;
pub mod transport;
