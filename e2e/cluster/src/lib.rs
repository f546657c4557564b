//! peerdist on a real Kubernetes, built from Go modules: the operator against an API server alone, or the images on nodes
//! with kubelets.
//!
//! In reading order: [`binaries`] brings the programs, [`control_plane`] starts them, [`audit`] counts what they
//! accepted, [`objects`] writes what a test needs, [`process`] is a program to be killed, [`fake_nodes`] are nodes in great
//! numbers, [`waiting`] waits for what a test expects. There nodes and pods are objects only: nothing runs in them, and a
//! test writes the counts that a controller would.
//!
//! [`cluster`] is a whole one on this machine, with nodes: [`node`] starts one, [`control_groups`] are those of its pods,
//! [`names`] answers them, [`commands`] are what a user types.

pub mod audit;
pub mod binaries;
pub mod cluster;
pub mod commands;
pub mod control_groups;
pub mod control_plane;
pub mod fake_nodes;
pub mod names;
pub mod node;
pub mod objects;
pub mod process;
pub mod waiting;
