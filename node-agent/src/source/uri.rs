//! `spec.source` as types: the address of a source, parsed once at the edge.
//!
//! A relative `file:` address is taken from the folder of the YAML file that names it; the caller passes that folder.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use peerdist_core::manifest::RelativePath;
use reqwest::Url;

use super::digest::ExpectedDigest;
use super::error::SourceError;

/// Longest address in bytes.
pub const URI_BYTES_MAX: usize = 4096;
/// Name of the one file of a package whose address ends without a usable name.
pub const CONTENT_NAME: &str = "content";

/// Where the content of a package comes from, and what is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub uri: SourceUri,
    /// What the bytes must hash to, if the user said so.
    pub digest: Option<ExpectedDigest>,
    /// Whether archives are published as their contents.
    pub unpack: Unpack,
}

impl Source {
    /// Parses the three fields of an object. `base` is the folder that relative `file:` addresses start from.
    ///
    /// # Errors
    /// [`SourceError`] naming the field that is not valid.
    pub fn parse(uri: &str, digest: Option<&str>, unpack: Unpack, base: Option<&Path>) -> Result<Self, SourceError> {
        let digest = digest.map(str::parse).transpose()?;
        Ok(Self { uri: SourceUri::parse(uri, base)?, digest, unpack })
    }
}

/// `spec.unpack`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpack {
    /// An archive is published as its contents, recognised by its first bytes.
    #[default]
    Auto,
    /// A file is published as it is.
    None,
}

/// The address of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUri {
    /// A file or directory that the server can open.
    File(PathBuf),
    /// Something to download.
    Http(Url),
}

impl SourceUri {
    /// Parses an address: `file:///absolute`, `file://relative` or `file:relative` (with `base`), `http://`, `https://`.
    ///
    /// # Errors
    /// [`SourceError::UriInvalid`] or [`SourceError::SchemeUnsupported`].
    pub fn parse(text: &str, base: Option<&Path>) -> Result<Self, SourceError> {
        let invalid = |expected: &str| invalid(text, expected);
        if text.len() > URI_BYTES_MAX {
            return Err(invalid("expected at most 4096 bytes"));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(invalid("expected file://PATH, http://HOST/PATH or https://HOST/PATH"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => parse_file(text, rest, base).map(Self::File),
            "http" | "https" => parse_http(text).map(Self::Http),
            _ => Err(SourceError::SchemeUnsupported { uri: shortened(text), scheme: shortened(scheme) }),
        }
    }

    /// The name of the one file of the package: the last segment of the address, or `content`.
    pub fn file_name(&self) -> Vec<u8> {
        let name = match self {
            Self::File(path) => path.file_name().map(|name| name.as_bytes().to_vec()),
            Self::Http(url) => {
                url.path_segments().and_then(|mut segments| segments.next_back()).and_then(|last| decoded(last).ok())
            }
        };
        name.filter(|name| is_plain_name(name)).unwrap_or_else(|| CONTENT_NAME.into())
    }
}

/// Without a query, which may carry a signature that should not reach a log.
impl fmt::Display for SourceUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file://{}", path.display()),
            Self::Http(url) => {
                let mut url = url.clone();
                url.set_query(None);
                write!(formatter, "{url}")
            }
        }
    }
}

fn parse_file(text: &str, rest: &str, base: Option<&Path>) -> Result<PathBuf, SourceError> {
    let path = match rest.strip_prefix("//") {
        Some(path) => path.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(path),
        None => rest,
    };
    let bytes = decoded(path).map_err(|expected| invalid(text, expected))?;
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(invalid(text, "expected a path after file://"));
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    if path.is_absolute() {
        return Ok(path);
    }
    let Some(base) = base else {
        return Err(invalid(text, "expected an absolute path: file:///folder/name"));
    };
    // Only '.' components are taken out: '..' may stand behind a link and is the operating system's to resolve.
    Ok(base.join(path).components().filter(|component| *component != Component::CurDir).collect())
}

fn parse_http(text: &str) -> Result<Url, SourceError> {
    let mut url =
        Url::parse(text).map_err(|error| invalid(text, &format!("expected http(s)://HOST/PATH ({error})")))?;
    if !url.has_host() {
        return Err(invalid(text, "expected a host name"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SourceError::UriInvalid {
            uri: format!("{}://...@{}", url.scheme(), url.host_str().unwrap_or_default()),
            expected: "a user name or password does not belong into an address".into(),
        });
    }
    url.set_fragment(None);
    Ok(url)
}

fn is_plain_name(name: &[u8]) -> bool {
    !name.contains(&b'/') && RelativePath::new(name.to_vec()).is_ok()
}

/// Takes `%41` as `A`; other bytes stay.
fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or("expected two hex digits after '%' (write %25 for '%')")?;
        let mut value = [0];
        hex::decode_to_slice(digits, &mut value)
            .map_err(|_| "expected two hex digits after '%' (write %25 for '%')")?;
        bytes.push(value[0]);
        rest = tail;
    }
    Ok(bytes)
}

fn invalid(text: &str, expected: &str) -> SourceError {
    SourceError::UriInvalid { uri: shortened(text), expected: expected.to_owned() }
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, base: Option<&str>) -> PathBuf {
        match SourceUri::parse(text, base.map(Path::new)).unwrap() {
            SourceUri::File(path) => path,
            SourceUri::Http(url) => panic!("{url}"),
        }
    }

    #[test]
    fn file_addresses_are_absolute_or_start_from_the_base() {
        assert_eq!(file("file:///srv/app", None), Path::new("/srv/app"));
        assert_eq!(file("file://localhost/srv/app", None), Path::new("/srv/app"));
        assert_eq!(file("FILE:///srv/a%20b%25", None), Path::new("/srv/a b%"));
        assert_eq!(file("file://./content", Some("/x")), Path::new("/x/content"));
        assert_eq!(file("file:../content", Some("/x/y")), Path::new("/x/y/../content"));
        assert_eq!(SourceUri::parse("file://content", None).unwrap_err().reason(), "UriInvalid");
    }

    #[test]
    fn addresses_that_cannot_work_are_refused_with_what_is_supported() {
        let check = |text: &str, reason| {
            let error = SourceUri::parse(text, None).unwrap_err();
            assert_eq!((error.reason(), error.field()), (reason, "spec.source.uri"), "{text}");
            error.to_string()
        };
        assert!(check("s3://bucket/key", "SchemeUnsupported").contains("http://"));
        check("ftp://host/x", "SchemeUnsupported");
        check("/srv/app", "UriInvalid");
        check("file://", "UriInvalid");
        check("file:///a%0", "UriInvalid");
        check("file:///a%zz", "UriInvalid");
        check("file:///a%00b", "UriInvalid");
        check("http://", "UriInvalid");
        check(&format!("http://host/{}", "a".repeat(URI_BYTES_MAX)), "UriInvalid");
        assert!(!check("https://user:secret@host/x", "UriInvalid").contains("secret"));
    }

    #[test]
    fn a_single_file_is_named_by_the_last_segment() {
        let name = |text: &str| String::from_utf8(SourceUri::parse(text, None).unwrap().file_name()).unwrap();
        assert_eq!(name("https://host/a/b.tar.gz?token=1#x"), "b.tar.gz");
        assert_eq!(name("https://host/a/b%20c"), "b c");
        assert_eq!(name("https://host/"), "content");
        assert_eq!(name("https://host/a/..%2Fetc"), "content");
        assert_eq!(name("file:///srv/app.bin"), "app.bin");
        assert_eq!(name("file:///srv/.."), "content");
    }

    #[test]
    fn queries_are_not_shown() {
        let uri = SourceUri::parse("https://host/a?signature=secret", None).unwrap();
        assert_eq!(uri.to_string(), "https://host/a");
    }
}
