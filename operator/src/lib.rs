//! The Kubernetes operator: reads Offices, PackageDistributions and VescEndpoints and makes the cluster what they say.
//!
//! In reading order: [`command`] starts [`run`], which wires everything, or [`check`], which looks whether another works,
//! or [`cleanup`], which takes everything away, both reading lists in `pages`; [`options`] and [`settings`] say with what.
//! [`watches`] keeps the caches, with objects as [`held`] says; `planner` hands what changed to the controllers, and
//! [`context`] is what all of them have at hand. [`fleet`] judges all offices together: which form one tree, and which
//! node belongs to which; [`storage`] says which folders they may use. [`office`], [`package`] and [`vesc`] are
//! controllers, each reads as dereference, validate, build, apply, status, and [`nodes`] is the one that labels.
//! [`server`] is what the Central Office has besides, [`identity`] by which keys it is the server, `pod` what the pods of
//! both have in common, [`starting`] and [`preflight`] what keeps pods from starting. [`apply`] writes only what differs,
//! [`conditions`] and [`status`] do so for what users read, all under the names in [`names`]. [`lease`] elects the one
//! operator that writes, and its fence stops all others. [`metrics`] and [`http`] show how it goes.
//!
//! Not here: what the server and the clients do, certificates of nodes, enrolment, and the chart.

pub mod apply;
pub mod check;
pub mod cleanup;
pub mod command;
pub mod conditions;
pub mod context;
pub mod fleet;
pub mod held;
pub mod http;
pub mod identity;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod office;
pub mod options;
pub mod package;
mod pages;
mod planner;
mod pod;
pub mod preflight;
pub mod run;
pub mod server;
pub mod settings;
pub mod starting;
pub mod status;
pub mod storage;
pub mod vesc;
pub mod watches;

#[cfg(test)]
mod golden;
