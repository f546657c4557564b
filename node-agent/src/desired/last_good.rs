//! The last good form of each PackageDistribution, kept on disk: after a restart, an object that somebody broke meanwhile
//! stays what it was, instead of going from every node. Offices are not kept: a set whose offices are wrong is not started
//! at all, and nodes of an office that is refused keep what they have.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::private_file;

/// Name of the file in the folder of the server.
pub(super) const FILE_NAME: &str = "last-good.json";
/// Largest file that is read back.
const FILE_BYTES_MAX: u64 = 128 << 20;
/// The file, and what is in it.
#[derive(Debug, Clone)]
pub(super) struct LastGood {
    path: PathBuf,
    /// Objects by what people call them.
    objects: BTreeMap<String, Value>,
}

impl LastGood {
    /// What an earlier run kept in the folder. A file that cannot be read is the same as none.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE_NAME);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
        let objects = read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { path, objects }
    }

    /// The good forms of objects that are refused now.
    pub(super) fn of_refused<'a>(&'a self, refused: &'a [String]) -> impl Iterator<Item = (&'a String, &'a Value)> {
        refused.iter().filter_map(|object| self.objects.get_key_value(object))
    }

    /// These are the objects now; those that are refused stay as they were.
    pub(super) fn keep(&mut self, objects: impl IntoIterator<Item = (String, Value)>, refused: &[String]) {
        let mut kept: BTreeMap<String, Value> = objects.into_iter().collect();
        for object in refused {
            kept.remove(object);
            kept.extend(self.objects.get_key_value(object).map(|(object, value)| (object.clone(), value.clone())));
        }
        if kept == self.objects {
            return;
        }
        self.objects = kept;
        if let Err(error) = self.save() {
            tracing::warn!(path = %self.path.display(), %error, "good objects are not kept for the next start");
        }
    }

    fn save(&self) -> Result<(), Box<dyn std::error::Error>> {
        self.path.parent().map(fs::create_dir_all).transpose()?;
        Ok(private_file::replace(&self.path, &serde_json::to_vec(&self.objects)?)?)
    }
}
