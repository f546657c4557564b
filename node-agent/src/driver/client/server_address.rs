//! Where the server is: fixed, or as a file says that is looked at again and again, because a server in a cluster
//! moves. A file that is gone or half written changes nothing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// An address and white space fit easily.
const FILE_BYTES_MAX: u64 = 256;

/// The address of the server.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    current: Arc<RwLock<IpAddr>>,
    file: Option<PathBuf>,
}

impl ServerAddress {
    /// One that never changes.
    pub fn fixed(address: IpAddr) -> Self {
        Self { current: Arc::new(RwLock::new(address)), file: None }
    }

    /// Waits until the file has an address.
    pub async fn wait(file: PathBuf) -> Self {
        if let Some(found) = Self::of_file(file.clone()) {
            return found;
        }
        tracing::info!(file = %file.display(), "waiting for the address of the server");
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Some(found) = Self::of_file(file.clone()) {
                return found;
            }
        }
    }

    fn of_file(file: PathBuf) -> Option<Self> {
        Some(Self { current: Arc::new(RwLock::new(read(&file)?)), file: Some(file) })
    }

    /// The address now.
    pub fn get(&self) -> IpAddr {
        *self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the file until `stop`. A fixed address needs nothing.
    pub(super) async fn follow(self, stop: CancellationToken) {
        if self.file.is_none() {
            return;
        }
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_some() {
            self.look();
        }
    }

    fn look(&self) {
        let known = self.get();
        if let Some(address) = self.file.as_deref().and_then(read).filter(|address| *address != known) {
            tracing::info!(from = %known, to = %address, "the server moved");
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = address;
        }
    }
}

fn read(file: &Path) -> Option<IpAddr> {
    let metadata = std::fs::metadata(file).ok()?;
    let text = (metadata.len() <= FILE_BYTES_MAX).then(|| std::fs::read_to_string(file).ok())??;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_moves_is_followed_and_a_broken_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        assert!(ServerAddress::of_file(file.clone()).is_none());
        std::fs::write(&file, "10.0.0.1\n").unwrap();
        let address = ServerAddress::of_file(file.clone()).unwrap();
        for (text, expected) in [("10.0.0.2", "10.0.0.2"), ("nowhere", "10.0.0.2"), ("fd00::7\n", "fd00::7")] {
            std::fs::write(&file, text).unwrap();
            address.look();
            assert_eq!(address.get().to_string(), expected);
        }
        std::fs::remove_file(&file).unwrap();
        address.look();
        assert_eq!(address.get().to_string(), "fd00::7");
    }
}
