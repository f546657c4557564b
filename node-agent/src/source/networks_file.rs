//! Networks in a file, one a line, which somebody else replaces while we run: those of a cluster's nodes, pods and
//! services. A file that cannot be read any more, or says something else, leaves the last good list in force.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ipnet::IpNet;

/// Most of a file that is read: more does not fit into a ConfigMap.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file that is followed.
#[derive(Debug)]
pub struct NetworksFile {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    modified: SystemTime,
    networks: Vec<IpNet>,
}

/// A file without a usable list.
#[derive(Debug, thiserror::Error)]
pub enum NetworksFileError {
    /// It cannot be read.
    #[error("cannot read the networks in {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no network.
    #[error("{line:?} in {} is no network: expected lines such as 10.244.0.0/16", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, cut.
        line: String,
    },
}

impl NetworksFile {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// [`NetworksFileError`]
    pub fn open(path: PathBuf) -> Result<Self, NetworksFileError> {
        let read = Mutex::new(read(&path)?);
        Ok(Self { path, read })
    }

    /// Whether one of the networks has the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = std::fs::metadata(&self.path).and_then(|file| file.modified());
        if modified.is_ok_and(|modified| modified != known.modified) {
            match read(&self.path) {
                Ok(fresh) => *known = fresh,
                Err(error) => tracing::warn!(%error, "the networks that were known before stay forbidden"),
            }
        }
        known.networks.iter().any(|network| network.contains(&address))
    }
}

fn read(path: &PathBuf) -> Result<Read, NetworksFileError> {
    let failed = |source| NetworksFileError::File { path: path.clone(), source };
    let file = std::fs::metadata(path).map_err(failed)?;
    if file.len() > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
    }
    let modified = file.modified().map_err(failed)?;
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let network = |line: &str| {
        let wrong = || NetworksFileError::Line { path: path.clone(), line: line.chars().take(60).collect() };
        line.parse::<IpNet>().map_err(|_| wrong())
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(Read { modified, networks: lines.map(network).collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_new_list_counts_at_once_and_a_broken_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forbidden");
        assert!(NetworksFile::open(path.clone()).is_err());
        let write = |text: &str, second: u64| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        };
        write("10.1.0.1/32\nfd00::/64\n", 1);
        let file = NetworksFile::open(path.clone()).unwrap();
        let contains = |address: &str| file.contains(address.parse().unwrap());
        assert!(contains("10.1.0.1") && contains("fd00::7") && !contains("10.1.0.2"));
        write("10.1.0.2/32\n", 2);
        assert!(contains("10.1.0.2") && !contains("10.1.0.1"));
        write("rubbish", 3);
        assert!(contains("10.1.0.2"));
        std::fs::remove_file(&path).unwrap();
        assert!(contains("10.1.0.2"));
    }
}
