//! Every decision of peerdist, and no I/O: no sockets, files, threads, clocks or global random generators.
//! Drivers in `peerdist-node-agent` act on what the machines here decide.
//!
//! In reading order: [`ports`] is the published catalogue; [`names`], [`digest`] and [`chunk_set`] are the words
//! everything else speaks; [`wire`] is what nodes say to each other.

pub mod chunk_set;
pub mod digest;
pub mod names;
pub mod ports;
pub mod wire;
