//! A distribution, validated: one `PackageDistribution` object as the rest of the code sees it. Parsing objects is
//! the business of whoever reads them; what a text must look like to become a source or a digest is decided here.

mod source;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::source::{PackageSource, SourceDigest, SourceError, SourceUri, percent_decoded};
use crate::names::{DistributionKey, PackageKey, Version};
use crate::office::Office;

/// Versions kept when the object does not say: the current one and the one before.
pub const RETENTION_VERSIONS_DEFAULT: u32 = 2;
/// Most versions of one distribution that are kept, the current one included.
pub const RETENTION_VERSIONS_MAX: u32 = 100;

/// One validated `PackageDistribution`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Namespace and name of the object.
    pub key: DistributionKey,
    /// The version that the targets should hold.
    pub version: Version,
    /// Where the package comes from.
    pub source: PackageSource,
    /// Whether an archive becomes its contents.
    pub unpack: Unpack,
    /// Which offices are targeted.
    pub offices: OfficeSelector,
    /// Which packages go first when several are on the way.
    pub priority: Priority,
    /// No byte of this version moves before.
    pub not_before: Option<Timestamp>,
    /// Transfers rest, and what is there stays.
    pub paused: bool,
    /// Versions kept, the current one included: 1 to [`RETENTION_VERSIONS_MAX`].
    pub retention_versions: u32,
    /// Rises with every change of the object.
    pub generation: u64,
}

impl Distribution {
    /// The package: this distribution at its version.
    pub fn package(&self) -> PackageKey {
        PackageKey { distribution: self.key.clone(), version: self.version.clone() }
    }

    /// Whether the object may replace `older`: a version names one content, so its source changes only with it.
    ///
    /// # Errors
    /// [`VersionReused`] with the field that differs.
    pub fn check_replaces(&self, older: &Self) -> Result<(), VersionReused> {
        let field = if self.version != older.version {
            return Ok(());
        } else if self.source.uri != older.source.uri {
            "spec.source.uri"
        } else if self.source.digest != older.source.digest {
            "spec.source.digest"
        } else if self.unpack != older.unpack {
            "spec.unpack"
        } else {
            return Ok(());
        };
        Err(VersionReused { field, version: self.version.clone() })
    }
}

/// A version that would name other content than before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field} changed while spec.version is still {version}: expected a new version with new content; set spec.version"
)]
pub struct VersionReused {
    /// The field that changed.
    pub field: &'static str,
    /// The version that stayed.
    pub version: Version,
}

/// Whether an archive is distributed as its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Unpack {
    /// An archive becomes its contents, anything else stays as it is.
    Auto,
    /// Every source stays as it is.
    #[default]
    None,
}

/// Which packages go first. Later variants are more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Priority {
    /// After all others.
    Low,
    /// In between.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// Selects offices by label; the empty selector selects all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfficeSelector {
    /// Labels that an office must have, with these values.
    pub match_labels: BTreeMap<String, String>,
}

impl OfficeSelector {
    /// Whether the office has every label asked for.
    pub fn matches(&self, office: &Office) -> bool {
        self.match_labels.iter().all(|(label, value)| office.labels.get(label) == Some(value))
    }
}

impl std::fmt::Display for OfficeSelector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels: Vec<String> = self.match_labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        formatter.write_str(&if labels.is_empty() { "all offices".to_owned() } else { labels.join(",") })
    }
}
