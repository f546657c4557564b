//! Drivers: loops that turn sockets, timers and tasks into events for the core's machines, and what the machines want
//! into calls. [`client`] and [`server`] are the two roles; [`messages`] is how both talk; [`sending`] streams chunks
//! to a receiver that asked; [`in_turn`] keeps tasks on one package apart; [`opening`] answers probes while
//! the storage is opened; [`address_trouble`] says why ports cannot be
//! bound. What a role says of itself at `info` is one line for each thing that an operator would ask for afterwards,
//! never one a message, a chunk or a round. Decisions are made in `peerdist-core`, storage in `store`, sockets in
//! `transport`.

mod address_trouble;
pub mod client;
mod in_turn;
mod messages;
mod opening;
pub mod progress;
mod sending;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::run_client;
pub use server::run_server;
