//! The operator on a real API server: objects in, DaemonSets, labels and conditions out, and no write when nothing
//! changed. `cargo xtask e2e cluster` runs it.

mod cleanup;
mod refusals;
mod scene;
mod takeover;
mod violence;
mod waiting_tools;
mod writes;
