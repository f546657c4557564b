//! A seeded simulation of an office tree, made of the machines of `peerdist-core` alone: no sockets, files or clocks,
//! virtual time, and everything random from one seed, so that a run that failed can be run again.
//!
//! In reading order: [`scenario`] says what a run is about, [`world`] is its loop, `client_site` and `server_site` do
//! what the drivers of the node agent do, `stream` and [`network`] carry content and messages, [`store`] is a node's
//! disk, `operator` kills and edits, [`hostile`] nodes lie, [`stalls`] make them slow, [`measure`] counts, [`deaths`] are
//! counted too, with what was `passing` only through the dead, [`check`] says what did not hold, [`pace`] how long it
//! took. It proves decisions and leaves out what only real processes show: sockets, disks, QUIC,
//! memory.

pub mod check;
pub mod client_site;
pub mod content;
pub mod deaths;
pub mod hostile;
pub mod measure;
pub mod network;
mod operator;
pub mod pace;
mod passing;
pub mod scenario;
mod server_site;
pub mod stalls;
pub mod store;
mod stream;
pub mod world;
