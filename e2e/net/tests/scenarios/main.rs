//! The network scenarios, run one after the other as root: `cargo xtask test`, or
//! `cargo test --workspace --test scenarios -- --test-threads=1 --nocapture NAME`. They assert counts and states, never
//! times.

mod harness;
mod kills;
mod refusals;
mod rows;
mod sources;
mod wan;

/// Bytes of a mebibyte.
const MEBIBYTE: u64 = 1024 * 1024;
