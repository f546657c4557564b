//! `peerdist remove-storage`: removes everything that an agent keeps in its storage directory, for the last pods of an
//! installation. It may stay afterwards, because the pods of a DaemonSet must not end.

use std::path::PathBuf;

use clap::Args;

use super::ExitStatus;
use super::roles::stop_on_signal;
use crate::store::NodeStore;

/// Which directory, and what then.
#[derive(Debug, Args)]
pub(super) struct RemoveStorageOptions {
    /// Directory of a client's packages or of the server
    #[arg(long, value_name = "DIR", env = "PEERDIST_ROOT")]
    root: PathBuf,
    /// Stay until told to end
    #[arg(long)]
    stay: bool,
}

pub(super) async fn run(options: RemoveStorageOptions) -> ExitStatus {
    let RemoveStorageOptions { root, stay } = options;
    let stop = stop_on_signal();
    let removed = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || NodeStore::remove_root(&root)).await
    };
    match removed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
        Ok(left) if left.is_empty() => println!("{}: nothing of peerdist is left", root.display()),
        Ok(left) => println!("{}: left, since it is not of peerdist: {}", root.display(), left.join(", ")),
        Err(error) => {
            eprintln!("peerdist remove-storage: {error}");
            return ExitStatus::Failed;
        }
    }
    if stay {
        stop.cancelled().await;
    }
    ExitStatus::Done
}
