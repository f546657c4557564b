//! Where the server is: at a fixed address, or as a file says that is looked at again and again, because a server in a
//! cluster moves; when nobody answers there, where the plan says. A file that is gone or half written changes nothing.
//! Which address counts when they differ is the core's business ([`ServerAddresses`]).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use peerdist_core::client::ServerAddresses;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// An address and white space fit easily.
const FILE_BYTES_MAX: u64 = 256;

/// The address of the server.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    known: Arc<RwLock<ServerAddresses>>,
    file: Option<PathBuf>,
}

impl ServerAddress {
    /// One that no file changes.
    pub fn fixed(address: IpAddr) -> Self {
        Self { known: Arc::new(RwLock::new(ServerAddresses::new(address))), file: None }
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
        let given = Self::fixed(read(&file)?);
        Some(Self { file: Some(file), ..given })
    }

    /// The address now.
    pub fn get(&self) -> IpAddr {
        self.known.read().unwrap_or_else(PoisonError::into_inner).current()
    }

    /// A plan came into force that names these addresses.
    pub(super) fn take_plan(&self, addresses: &[IpAddr]) {
        if let Some((from, to)) = self.change(|known| known.take_plan(addresses)) {
            tracing::info!(%from, %to, "the plan names another address of the server");
        }
    }

    /// Nobody answered as the server at this address.
    pub(super) fn silent(&self, address: IpAddr) {
        if let Some((from, to)) = self.change(|known| known.silent(address)) {
            tracing::info!(%from, %to, "the server does not answer and is tried at its other address");
        }
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
        let Some(address) = self.file.as_deref().and_then(read) else { return };
        if let Some((from, to)) = self.change(|known| known.give(address)) {
            tracing::info!(%from, %to, "the server moved");
        }
    }

    /// The address before and after a change that made it another one.
    fn change(&self, change: impl FnOnce(&mut ServerAddresses)) -> Option<(IpAddr, IpAddr)> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let from = known.current();
        change(&mut known);
        let to = known.current();
        (from != to).then_some((from, to))
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

    #[test]
    fn plan_is_followed_while_the_address_of_the_file_is_silent_and_until_the_file_says_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        let [of_file, of_plan, moved]: [IpAddr; 3] = [1, 2, 3].map(|number| [10, 0, 0, number].into());
        std::fs::write(&file, of_file.to_string()).unwrap();
        let address = ServerAddress::of_file(file.clone()).unwrap();
        address.take_plan(&[of_plan]);
        assert_eq!(address.get(), of_file);
        for (silent, next) in [(of_file, of_plan), (of_plan, of_file), (of_file, of_plan)] {
            address.silent(silent);
            address.look();
            assert_eq!(address.get(), next);
        }
        std::fs::write(&file, moved.to_string()).unwrap();
        address.look();
        assert_eq!(address.get(), moved);
    }
}
