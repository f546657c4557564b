//! What kubelet does with a volume from a Secret or a ConfigMap: files behind one link, which it turns when the object
//! changes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use peerdist_e2e_cluster::waiting::eventually;
use serde::de::DeserializeOwned;

/// Pause between two looks: kubelet takes longer.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// The link that is turned.
const CURRENT: &str = "..data";

/// An object that can be mounted.
pub(crate) trait Mountable: Clone + DeserializeOwned + Debug + Send + Sync + 'static {
    fn files(&self) -> BTreeMap<String, Vec<u8>>;
}

impl Mountable for Secret {
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.data.iter().flatten().map(|(name, value)| (name.clone(), value.0.clone())).collect()
    }
}

impl Mountable for ConfigMap {
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.data.iter().flatten().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect()
    }
}

/// Waits for the object and follows it until the test ends. While it is away, its files stay.
pub(crate) async fn mount<K: Mountable>(api: Api<K>, name: &'static str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut mounted = Mounted { folder: folder.to_owned(), files: BTreeMap::new(), turns: 0 };
    eventually(&format!("{name} can be mounted"), async || {
        if let Some(object) = api.get_opt(name).await? {
            mounted.turn(object.files())?;
        }
        Ok(mounted.turns > 0)
    })
    .await?;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            if let Ok(Some(object)) = api.get_opt(name).await {
                mounted.turn(object.files()).expect("the folder of the test can be written");
            }
        }
    });
    Ok(())
}

struct Mounted {
    folder: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    turns: u32,
}

impl Mounted {
    fn turn(&mut self, files: BTreeMap<String, Vec<u8>>) -> Result<()> {
        if files == self.files {
            return Ok(());
        }
        self.turns += 1;
        let version = format!("..{}", self.turns);
        fs::create_dir(self.folder.join(&version))?;
        for (name, content) in &files {
            fs::write(self.folder.join(&version).join(name), content)?;
            let link = self.folder.join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new(CURRENT).join(name), link)?;
            }
        }
        let turned = self.folder.join("..data_tmp");
        symlink(&version, &turned)?;
        fs::rename(turned, self.folder.join(CURRENT)).context("turn the link")?;
        let former = self.folder.join(format!("..{}", self.turns - 1));
        if former.exists() {
            fs::remove_dir_all(former)?;
        }
        self.files = files;
        Ok(())
    }
}
