//! The operator against a real API server: etcd and kube-apiserver on loopback addresses, built from Go modules.
//!
//! In reading order: [`binaries`] brings the programs, [`control_plane`] starts them, [`audit`] counts what they
//! accepted, [`objects`] writes what a test needs, [`process`] is a program to be killed, [`waiting`] waits for what a test
//! expects. Nodes and pods are objects only: nothing runs in them, and a test writes the counts that a controller would.

pub mod audit;
pub mod binaries;
pub mod control_plane;
pub mod objects;
pub mod process;
pub mod waiting;
