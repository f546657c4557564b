//! Drivers: loops that turn sockets, timers and tasks into events for the core's machines, and what the machines want
//! into calls. [`client`] and [`server`] are the two roles; [`messages`] is how both talk; [`sending`] streams chunks
//! to a receiver that asked; [`in_turn`] keeps tasks on one package apart. Decisions are made in `peerdist-core`, storage
//! in `store`, sockets in `transport`.

pub mod client;
mod in_turn;
mod messages;
pub mod progress;
mod sending;
pub mod server;

pub use client::run_client;
pub use server::run_server;
