//! What goes wrong between a source and the library: one enum, whose variants know their stable reason word, the
//! field of the object that is at fault, and whether another try can help.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use peerdist_core::distribution::SourceUri;

use super::entry::EntryRefusal;
use super::http::CredentialsUse;
use super::uri;
use crate::printable::printable;
use crate::store::StoreError;

/// How URI, digest and unpack of an object can be corrected at all: a version names one content.
pub(crate) const WITH_VERSION: &str = "(together with spec.version, or delete the object and apply it anew)";

/// Reason word of a file that no folder which the administrator named contains.
pub(crate) const FILE_SOURCE_NOT_ALLOWED: &str = "FileSourceNotAllowed";

/// Why a source did not become a package.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text is no usable address.
    #[error("spec.source.uri {uri:?} is not valid: {expected}; correct it {WITH_VERSION}")]
    UriInvalid {
        /// The refused text.
        uri: String,
        /// What was expected.
        expected: String,
    },
    /// A digest names a sequence of bytes, which a directory is not.
    #[error(
        "spec.source.digest is set, but {path:?} is a directory: remove the digest, or name an archive of it {WITH_VERSION}"
    )]
    DigestOfDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The bytes are not the expected ones.
    #[error(
        "{uri} has the digest {actual}, expected {expected}: correct spec.source.digest or the source {WITH_VERSION}"
    )]
    DigestMismatch {
        /// The source.
        uri: String,
        /// What the object says.
        expected: String,
        /// What arrived.
        actual: String,
    },
    /// The server may not connect there.
    #[error(
        "{uri} leads to {address}, from where this server may not fetch: expected an address outside this host, its link and the networks of the cluster; correct spec.source.uri {WITH_VERSION}, or let the administrator allow the address (server.allowedSources, such as {})",
        IpNet::from(address.to_canonical())
    )]
    AddressForbidden {
        /// The source.
        uri: String,
        /// Where it leads.
        address: IpAddr,
    },
    /// The server may not read it as a source.
    #[error(
        "{path:?} is no source of this server: expected {expected}; correct spec.source.uri {WITH_VERSION}, or let the administrator name its folder (server.fileRoots)"
    )]
    FileSourceNotAllowed {
        /// The file or directory.
        path: PathBuf,
        /// What may be one.
        expected: String,
    },
    /// Nothing is there.
    #[error("{uri} does not exist{detail}: correct spec.source.uri {WITH_VERSION}, or put the source there")]
    SourceMissing {
        /// The source.
        uri: String,
        /// What the origin said, empty when nothing more is known.
        detail: String,
    },
    /// The operating system does not let us read it.
    #[error(
        "{path:?} cannot be read: {source}; let the user of the server read it (uid {}), or publish another place {WITH_VERSION}",
        rustix::process::geteuid().as_raw()
    )]
    SourceUnreadable {
        /// File or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server's own library lies inside.
    #[error(
        "{path:?} holds the server's library {library:?}: publish another directory {WITH_VERSION}, or move the state elsewhere"
    )]
    SourceHoldsLibrary {
        /// The source.
        path: PathBuf,
        /// The library.
        library: PathBuf,
    },
    /// One entry of a directory or archive is not accepted; nothing of it was written.
    #[error("{uri}: entry \"{path}\" is refused: {refusal}")]
    EntryRefused {
        /// The source; empty until whoever knows it names it.
        uri: String,
        /// Name inside the source, printable.
        path: String,
        /// Which rule.
        refusal: EntryRefusal,
    },
    /// More entries than a manifest may have.
    #[error(
        "the source has {count} entries, a package may have at most {max}: split it, or publish it as one archive with spec.unpack: None {WITH_VERSION}"
    )]
    TooManyEntries {
        /// How many were counted.
        count: u64,
        /// The limit.
        max: u64,
    },
    /// The source was modified while it was read.
    #[error("{path:?} changed while it was read ({what}): publish from a place that nobody writes to")]
    SourceChanged {
        /// File or directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The origin refuses to hand it out (a 4xx status).
    #[error(
        "{uri} was refused by its server with status {status}{}: correct spec.source.uri {WITH_VERSION}, or what that server allows",
        told(*status, *credentials)
    )]
    SourceRefused {
        /// The source.
        uri: String,
        /// The HTTP status.
        status: u16,
        /// Whether it was asked with credentials.
        credentials: CredentialsUse,
    },
    /// No address is known for a name.
    #[error(
        "{uri}: the name {name:?} is not known to DNS ({detail}): correct spec.source.uri {WITH_VERSION}, or see why this server cannot resolve the name"
    )]
    NameUnresolved {
        /// The source.
        uri: String,
        /// The name: of its host, or of one that a redirect or a proxy leads to.
        name: String,
        /// What the resolver said.
        detail: String,
    },
    /// Nobody listens there.
    #[error("{uri}: connection refused, no server listens there: start it, or correct spec.source.uri {WITH_VERSION}")]
    ConnectionRefused {
        /// The source.
        uri: String,
    },
    /// The server's certificate is not accepted.
    #[error(
        "{uri}: the server is not trusted: {detail}; correct its certificate, or add its authority to the trusted ones"
    )]
    ServerUntrusted {
        /// The source.
        uri: String,
        /// What TLS said.
        detail: String,
    },
    /// A redirect that is not followed.
    #[error("{uri}: redirect not followed: {detail}; give the final address in spec.source.uri {WITH_VERSION}")]
    RedirectRefused {
        /// The source.
        uri: String,
        /// Why.
        detail: String,
    },
    /// The origin did not deliver this time; another try may.
    #[error("{uri} did not deliver after {received_bytes} bytes of this try: {detail}; see whether its server works")]
    SourceUnavailable {
        /// The source.
        uri: String,
        /// What happened.
        detail: String,
        /// New bytes that this try brought: above zero means that trying again gets further.
        received_bytes: u64,
    },
    /// Broken or unsupported archive.
    #[error(
        "{uri} cannot be unpacked: {detail}; pack it anew, or set spec.unpack: None to publish it as one file {WITH_VERSION}"
    )]
    ArchiveInvalid {
        /// The source.
        uri: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The library has no room.
    #[error("{}", room_words(*need, *have, *limit, *kept_free))]
    DiskFull {
        /// Bytes that were to be written.
        need: u64,
        /// Bytes that may be written.
        have: u64,
        /// The library's limit, if it has one.
        limit: Option<u64>,
        /// Bytes that are left to others on its disk, as far as they are known.
        kept_free: u64,
    },
    /// The library does not take it.
    #[error("the server's library refuses it: {0}")]
    Library(#[source] StoreError),
    /// No manifest can describe it.
    #[error("no manifest can describe the package: {0}")]
    Manifest(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The library cannot be written.
    #[error("the server's library failed at {path:?}: {source}")]
    LibraryFailed {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The same version, but other content: consumers rely on a version never changing.
    #[error(
        "version {version} was published with other content than {uri} has now: set a new spec.version for the new content"
    )]
    VersionReused {
        /// The source.
        uri: String,
        /// The version that is published already.
        version: String,
    },
    /// The caller asked to stop.
    #[error("stopped before the source was read to its end")]
    Cancelled,
}

impl SourceError {
    /// The stable word for conditions, metrics and `errors[].reason`: the variant's name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UriInvalid { .. } => "UriInvalid",
            Self::DigestOfDirectory { .. } => "DigestOfDirectory",
            Self::DigestMismatch { .. } => "DigestMismatch",
            Self::AddressForbidden { .. } => "AddressForbidden",
            Self::FileSourceNotAllowed { .. } => FILE_SOURCE_NOT_ALLOWED,
            Self::SourceMissing { .. } => "SourceMissing",
            Self::SourceUnreadable { .. } => "SourceUnreadable",
            Self::SourceHoldsLibrary { .. } => "SourceHoldsLibrary",
            Self::EntryRefused { .. } => "EntryRefused",
            Self::TooManyEntries { .. } => "TooManyEntries",
            Self::SourceChanged { .. } => "SourceChanged",
            Self::SourceRefused { .. } => "SourceRefused",
            Self::NameUnresolved { .. } => "NameUnresolved",
            Self::ConnectionRefused { .. } => "ConnectionRefused",
            Self::ServerUntrusted { .. } => "ServerUntrusted",
            Self::RedirectRefused { .. } => "RedirectRefused",
            Self::SourceUnavailable { .. } => "SourceUnavailable",
            Self::ArchiveInvalid { .. } => "ArchiveInvalid",
            Self::DiskFull { .. } => "DiskFull",
            Self::Library(error) => error.reason(),
            Self::Manifest(_) => "ManifestRefused",
            Self::LibraryFailed { .. } => "LibraryFailed",
            Self::VersionReused { .. } => "VersionReused",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The field of the `PackageDistribution` that a person would look at first.
    pub fn field(&self) -> &'static str {
        match self {
            Self::DigestOfDirectory { .. } | Self::DigestMismatch { .. } => "spec.source.digest",
            Self::VersionReused { .. } => "spec.version",
            Self::SourceRefused { status: 401 | 403, credentials: CredentialsUse::Sent, .. } => "spec.source.secretRef",
            _ => "spec.source.uri",
        }
    }

    /// Whether the same try would end the same way, as far as one can know: the object or its source must change.
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Library(_)
                | Self::SourceUnavailable { .. }
                | Self::NameUnresolved { .. }
                | Self::SourceChanged { .. }
                | Self::DiskFull { .. }
                | Self::LibraryFailed { .. }
                | Self::Cancelled
        )
    }

    /// Whether a later try, without any edit of the object, may find the origin repaired.
    pub fn may_heal(&self) -> bool {
        !self.is_final()
            || matches!(
                self,
                Self::AddressForbidden { .. }
                    | Self::FileSourceNotAllowed { .. }
                    | Self::SourceMissing { .. }
                    | Self::SourceUnreadable { .. }
                    | Self::SourceRefused { .. }
                    | Self::ConnectionRefused { .. }
                    | Self::ServerUntrusted { .. }
            )
    }

    pub(crate) fn manifest(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Manifest(Box::new(error))
    }

    pub(crate) fn library(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::LibraryFailed { path, source }
    }

    pub(crate) fn unreadable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::SourceUnreadable { path, source }
    }

    pub(crate) fn entry(path: &[u8], refusal: EntryRefusal) -> Self {
        Self::EntryRefused { uri: String::new(), path: printable(path), refusal }
    }

    /// Names the source of a refused entry: who looks at entries knows only paths inside of it.
    pub(crate) fn of_source(self, source: &SourceUri) -> Self {
        match self {
            Self::EntryRefused { path, refusal, .. } => Self::EntryRefused { uri: uri::shown(source), path, refusal },
            error => error,
        }
    }
}

impl From<StoreError> for SourceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull { need_bytes, have_bytes, limit_bytes } => {
                Self::DiskFull { need: need_bytes, have: have_bytes, limit: limit_bytes, kept_free: 0 }
            }
            StoreError::Io { path, source, .. } => Self::LibraryFailed { path, source },
            error => Self::Library(error),
        }
    }
}

/// What is free is less than the disk says: who only looks there would not believe it.
fn room_words(need: u64, have: u64, limit: Option<u64>, kept_free: u64) -> String {
    let words = format!("the server's library needs {need} bytes more for this package, but {have} bytes are free");
    let beside =
        if kept_free == 0 { String::new() } else { format!(" beside the {kept_free} that it leaves to others") };
    match limit {
        Some(limit) => {
            format!("{words}{beside} (limit {limit} bytes): make room on its disk, or raise server.storage.limit")
        }
        None => format!("{words}{beside}: make room on its disk"),
    }
}

/// Where a server says that somebody must not have something, it matters who asked.
fn told(status: u16, credentials: CredentialsUse) -> String {
    if matches!(status, 401 | 403) { format!(" ({credentials})") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_address_is_named_in_the_form_that_allows_it() {
        for (address, network) in
            [("10.96.0.1", "10.96.0.1/32"), ("fd00::7", "fd00::7/128"), ("::ffff:10.0.0.1", "10.0.0.1/32")]
        {
            let error = SourceError::AddressForbidden { uri: "http://a/".into(), address: address.parse().unwrap() };
            assert!(error.to_string().contains(&format!("server.allowedSources, such as {network})")), "{error}");
        }
    }

    #[test]
    fn who_has_no_room_is_told_need_have_and_limit() {
        let text = |limit| SourceError::DiskFull { need: 9, have: 4, limit, kept_free: 7 }.to_string();
        let begin = "the server's library needs 9 bytes more for this package, but 4 bytes are free";
        assert_eq!(text(None), format!("{begin} beside the 7 that it leaves to others: make room on its disk"));
        let limited = text(Some(50));
        assert!(limited.starts_with(begin) && limited.contains("(limit 50 bytes)"), "{limited}");
        assert!(limited.ends_with("raise server.storage.limit"), "{limited}");
    }

    #[test]
    fn whoever_is_told_to_correct_what_a_version_fixes_is_told_how() {
        let (uri, path) = (|| "file:///app".to_owned(), || PathBuf::from("/app"));
        for error in [
            SourceError::UriInvalid { uri: uri(), expected: "expected a file".into() },
            SourceError::DigestOfDirectory { path: path() },
            SourceError::DigestMismatch { uri: uri(), expected: "sha256:0".into(), actual: "sha256:1".into() },
            SourceError::AddressForbidden { uri: uri(), address: IpAddr::from([10, 0, 0, 1]) },
            SourceError::FileSourceNotAllowed { path: path(), expected: "none".into() },
            SourceError::SourceMissing { uri: uri(), detail: String::new() },
            SourceError::SourceUnreadable { path: path(), source: io::ErrorKind::PermissionDenied.into() },
            SourceError::SourceHoldsLibrary { path: path(), library: path() },
            SourceError::TooManyEntries { count: 2, max: 1 },
            SourceError::SourceRefused { uri: uri(), status: 403, credentials: CredentialsUse::None },
            SourceError::NameUnresolved { uri: uri(), name: "repo".into(), detail: "unknown".into() },
            SourceError::ConnectionRefused { uri: uri() },
            SourceError::RedirectRefused { uri: uri(), detail: "more than 10 redirects".into() },
            SourceError::ArchiveInvalid { uri: uri(), detail: "it is damaged".into() },
        ] {
            assert!(error.to_string().contains(WITH_VERSION), "{error}");
        }
    }
}
