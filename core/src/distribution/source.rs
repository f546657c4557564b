//! Where a package comes from, as validated text. Fetching is the driver's business, and so is whatever needs the
//! machine: relative paths, environment variables, addresses.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::names::SecretName;

/// Longest URI of a source in bytes.
const SOURCE_URI_BYTES_MAX: usize = 2048;

/// Where a package comes from, and what the result must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageSource {
    /// The place.
    pub uri: SourceUri,
    /// Digest of the fetched file; `None` when the user gave none.
    pub digest: Option<SourceDigest>,
    /// Secret with the credentials that the place asks for, in the namespace of the package. Credentials change without
    /// changing what they give access to.
    pub secret: Option<SecretName>,
}

/// A place that packages come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceUri {
    /// `file://`: an absolute path on the server's machine, a file or a directory.
    File(PathBuf),
    /// `http://` or `https://`: the whole URL, without user name and password.
    Http(String),
}

/// Why a text is no source or no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing there, or too much.
    #[error("the URI has {bytes} bytes: expected 1 to {SOURCE_URI_BYTES_MAX}; shorten it")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// Spaces and control characters have no place in a URI.
    #[error("the URI has a space or a control character: expected printable characters; write it as %20 and the like")]
    Character,
    /// No scheme that the server can fetch.
    #[error("the scheme {scheme:?} is not supported: expected file://, http:// or https://; change the URI")]
    UnsupportedScheme {
        /// What stands before the colon, empty if there is no colon.
        scheme: String,
    },
    /// A URL without a host.
    #[error("the URL names no host: expected http(s)://host/path; add the host")]
    NoHost,
    /// Objects are read by many: a password has no place in them.
    #[error("the URL carries a user name or password: expected none, objects are no place for secrets; remove them")]
    Credentials,
    /// A file on another machine.
    #[error("the URI names a file on the host {host:?}: expected file:///absolute/path; remove the host")]
    ForeignHost {
        /// The host.
        host: String,
    },
    /// A relative path where nothing says what it is relative to.
    #[error("the path is relative: expected file:///absolute/path; write it out")]
    RelativePath,
    /// A percent sign that encodes nothing.
    #[error("the path has a percent sign that encodes no byte: expected %XX with two hex digits; write it as %25")]
    PercentEncoding,
    /// A path that no file can have.
    #[error("the path has a zero byte: expected a path that a file can have; remove it")]
    ZeroByte,
    /// Not a digest.
    #[error("the digest {value:?} is not valid: expected sha256:<64 hex digits>; copy it from the publisher")]
    Digest {
        /// The refused text, cut to a printable length.
        value: String,
    },
}

impl SourceError {
    /// The reason in one word, for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnsupportedScheme { .. } => "UnsupportedScheme",
            Self::Digest { .. } => "MalformedDigest",
            Self::Credentials => "CredentialsInUri",
            _ => "MalformedUri",
        }
    }
}

impl SourceUri {
    /// Parses a URI. A relative `file:` path is taken from `base`, an absolute path, if there is one.
    ///
    /// # Errors
    /// [`SourceError`] with what is wrong and what was expected.
    pub fn parse(text: &str, base: Option<&Path>) -> Result<Self, SourceError> {
        if text.is_empty() || text.len() > SOURCE_URI_BYTES_MAX {
            return Err(SourceError::Length { bytes: text.len() });
        }
        if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(SourceError::Character);
        }
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        match scheme.to_ascii_lowercase().as_str() {
            "file" => parse_file(rest, base),
            "http" | "https" => parse_http(text, rest),
            _ => Err(SourceError::UnsupportedScheme { scheme: scheme.chars().take(32).collect() }),
        }
    }

    /// Whether nobody on the way can read what the source is asked with: it goes through TLS, or does not leave the
    /// machine.
    pub fn is_confidential(&self) -> bool {
        let Self::Http(url) = self else { return false };
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        scheme.eq_ignore_ascii_case("https") || is_loopback(authority(rest))
    }
}

impl FromStr for SourceUri {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, SourceError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for SourceUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file://{}", path.display()),
            Self::Http(url) => formatter.write_str(url),
        }
    }
}

fn parse_file(rest: &str, base: Option<&Path>) -> Result<SourceUri, SourceError> {
    let path = match rest.strip_prefix("//") {
        Some(authority_and_path) => {
            let start = authority_and_path.find('/').ok_or(SourceError::RelativePath)?;
            let (host, path) = authority_and_path.split_at(start);
            if !host.is_empty() && host != "localhost" {
                return Err(SourceError::ForeignHost { host: host.to_owned() });
            }
            path
        }
        None => rest,
    };
    let path = path_from_bytes(percent_decoded(path).ok_or(SourceError::PercentEncoding)?)?;
    match base {
        _ if path.as_os_str().is_empty() => Err(SourceError::RelativePath),
        _ if path.is_absolute() => Ok(SourceUri::File(without_dot_segments(&path))),
        Some(base) => Ok(SourceUri::File(without_dot_segments(&base.join(path)))),
        None => Err(SourceError::RelativePath),
    }
}

/// Host and port in what follows the colon of a scheme.
fn authority(rest: &str) -> &str {
    rest.strip_prefix("//").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or("")
}

/// Only addresses as they are usually written: a name means what somebody else says.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next(),
        None => authority.split(':').next(),
    };
    host.unwrap_or_default().parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn parse_http(text: &str, rest: &str) -> Result<SourceUri, SourceError> {
    let authority = authority(rest);
    if authority.contains('@') {
        return Err(SourceError::Credentials);
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(SourceError::NoHost);
    }
    Ok(SourceUri::Http(text.to_owned()))
}

/// The bytes behind percent-encoded text (RFC 3986 section 2.1); `None` when a percent sign has no two digits.
pub fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.push(byte[0]);
        rest = after;
    }
    Some(bytes)
}

fn path_from_bytes(bytes: Vec<u8>) -> Result<PathBuf, SourceError> {
    if bytes.contains(&0) {
        return Err(SourceError::ZeroByte);
    }
    #[cfg(unix)]
    let path = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes);
    #[cfg(not(unix))]
    let path = String::from_utf8(bytes).map_err(|_| SourceError::PercentEncoding)?;
    Ok(PathBuf::from(path))
}

/// Removes `.` and `..` by the text alone, as RFC 3986 section 5.2.4 has it.
fn without_dot_segments(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Digest of a fetched file as its publisher gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceDigest {
    /// `sha256:<64 hex digits>`.
    Sha256([u8; 32]),
}

impl FromStr for SourceDigest {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let refused = || SourceError::Digest { value: text.chars().take(80).collect() };
        let digits = text.strip_prefix("sha256:").ok_or_else(refused)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| refused())?;
        Ok(Self::Sha256(bytes))
    }
}

impl fmt::Display for SourceDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => write!(formatter, "sha256:{}", hex::encode(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(path: &str) -> Result<SourceUri, SourceError> {
        Ok(SourceUri::File(PathBuf::from(path)))
    }

    #[test]
    fn files_are_absolute_or_relative_to_the_base() {
        let base = Some(Path::new("/objects"));
        assert_eq!(SourceUri::parse("file:///a/b%20c", None), file("/a/b c"));
        assert_eq!(SourceUri::parse("FILE:/a/./b/../c/", None), file("/a/c"));
        assert_eq!(SourceUri::parse("file://localhost/a", None), file("/a"));
        assert_eq!(SourceUri::parse("file:site/x", base), file("/objects/site/x"));
        assert_eq!(SourceUri::parse("file:../x", base), file("/x"));
        assert_eq!(SourceUri::parse("file:site", None), Err(SourceError::RelativePath));
        assert_eq!(SourceUri::parse("file://", base), Err(SourceError::RelativePath));
        assert_eq!(SourceUri::parse("file:", base), Err(SourceError::RelativePath));
        assert_eq!(SourceUri::parse("file:/a%2", None), Err(SourceError::PercentEncoding));
        assert_eq!(SourceUri::parse("file:/a%00", None), Err(SourceError::ZeroByte));
        assert_eq!(SourceUri::parse("file://nas/a", None), Err(SourceError::ForeignHost { host: "nas".into() }));
    }

    #[test]
    fn urls_need_a_host_and_carry_no_credentials() {
        let url = "https://repo.example.com/pos-app-7.4.1.tar.zst?x=1";
        assert_eq!(url.parse(), Ok(SourceUri::Http(url.into())));
        assert_eq!("http:///x".parse::<SourceUri>(), Err(SourceError::NoHost));
        assert_eq!("http:x".parse::<SourceUri>(), Err(SourceError::NoHost));
        assert_eq!("http://u:p@host/x".parse::<SourceUri>(), Err(SourceError::Credentials));
        assert_eq!("http://host/a b".parse::<SourceUri>(), Err(SourceError::Character));
    }

    #[test]
    fn only_tls_and_loopback_addresses_are_confidential() {
        let confidential = |text: &str| text.parse::<SourceUri>().unwrap().is_confidential();
        for text in
            ["https://host/x", "HTTPS://host", "http://127.0.0.1:80/x", "http://127.81.9.9", "http://[::1]:80/x"]
        {
            assert!(confidential(text), "{text}");
        }
        for text in [
            "http://host/x",
            "http://localhost/x",
            "http://10.0.0.1",
            "http://127.0.0.1.example.com/",
            "http://[::ffff:10.0.0.1]/",
            "http://host/https://127.0.0.1",
            "file:///x",
        ] {
            assert!(!confidential(text), "{text}");
        }
    }

    #[test]
    fn other_schemes_are_named_in_the_refusal() {
        for text in ["s3://bucket/key", "/just/a/path", "ftp://host/x", "C:\\x"] {
            assert_eq!(text.parse::<SourceUri>().unwrap_err().reason(), "UnsupportedScheme", "{text}");
        }
        let message = "s3://bucket/key".parse::<SourceUri>().unwrap_err().to_string();
        assert!(message.contains("\"s3\"") && message.contains("file://"), "{message}");
    }

    #[test]
    fn digests_are_sha256() {
        let text = format!("sha256:{}", "9f".repeat(32));
        assert_eq!(text.parse::<SourceDigest>().unwrap().to_string(), text);
        for bad in ["", "sha256:", "sha256:9f2c", "md5:00", &"9f".repeat(32), &format!("{text}0")] {
            assert_eq!(bad.parse::<SourceDigest>().unwrap_err().reason(), "MalformedDigest", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_source_or_refused(text in "\\PC{0,40}|(file|http):[/%.a-c0@ -]{0,20}") {
            if let Ok(SourceUri::File(path)) = SourceUri::parse(&text, Some(Path::new("/base"))) {
                prop_assert!(path.is_absolute());
                prop_assert!(path.components().all(|part| part != std::path::Component::ParentDir));
            }
        }
    }
}
