//! Every decision of peerdist, and no I/O: no sockets, files, threads, clocks or global random generators.
//! Drivers in `peerdist-node-agent` act on what the machines here decide.
//!
//! In reading order: [`ports`] is the published catalogue; [`names`], [`digest`] and [`chunk_set`] are the words
//! everything else speaks; [`chunking`] and [`manifest`] are what a package consists of; [`wire`] is what nodes say to
//! each other; [`office`] is the tree of offices and [`distribution`] what should reach them; [`rollout`] decides what
//! each office holds and when, [`plan`] is what an office is told, and [`signature`] why it is believed. [`message`]
//! holds the validated messages between [`peer`]s. [`client`] and [`server`] are the machines, composed of
//! [`rendezvous`] and [`swarm`]. [`trace`] is by which everything that is done for a package is found together.
//! [`decoders`] is for tests only.

pub mod background;
pub mod broadcast;
pub mod chunk_set;
pub mod chunking;
pub mod client;
pub mod decoders;
pub mod digest;
pub mod distribution;
pub mod manifest;
pub mod message;
pub mod names;
pub mod office;
pub mod peer;
pub mod plan;
pub mod ports;
pub mod rendezvous;
pub mod rollout;
pub mod server;
pub mod signature;
pub mod swarm;
pub mod trace;
pub mod wire;
