//! The harness of the network scenarios: real `peerdist` processes, each in a network namespace of its own, behind
//! stateless rules that let exactly the rows of the port tables pass and count each of them.
//!
//! In reading order: [`topology`] is the fleet on paper; [`ruleset`] renders the rules of one host from it and the port
//! catalogue, and [`printed_rules`] are those that the program prints; [`network`] makes namespaces, bridges and rules of
//! it, and [`counters`] reads them; [`agent`] is one process; [`fleet`] puts all together; [`content`] and [`objects`] are
//! what is distributed; [`trees`] judges what arrived; [`metrics`] asks a process what it counted; [`scratch`] is the
//! folder of a run, and [`ownership`] says whose that and the namespaces are; [`shell`] starts programs.
//! The scenarios themselves are in `tests/scenarios`. Delay and loss are left to the simulation: no link emulator here.

pub mod agent;
pub mod content;
pub mod counters;
pub mod fleet;
pub mod metrics;
pub mod network;
pub mod objects;
pub mod ownership;
pub mod printed_rules;
pub mod ruleset;
pub mod scratch;
pub mod shell;
pub mod topology;
pub mod trees;
