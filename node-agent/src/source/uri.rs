//! What fetching makes of a validated address: a URL to request, a name for the one file of a package, and a text
//! that may reach a log.

use std::os::unix::ffi::OsStrExt;

use peerdist_core::distribution::{SourceUri, percent_decoded};
use peerdist_core::manifest::RelativePath;
use reqwest::Url;

use super::error::SourceError;

/// Name of the one file of a package whose address ends without a usable name.
const CONTENT_NAME: &[u8] = b"content";

/// The URL to request, without fragment.
///
/// # Errors
/// [`SourceError::UriInvalid`]
pub fn parse_url(text: &str) -> Result<Url, SourceError> {
    let invalid = |expected: String| SourceError::UriInvalid { uri: without_query(text).to_owned(), expected };
    let mut url = Url::parse(text).map_err(|error| invalid(format!("expected http(s)://HOST/PATH ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("expected http:// or https://".to_owned()));
    }
    url.set_fragment(None);
    Ok(url)
}

/// The address as text without a query, which may carry a signature.
pub fn shown(uri: &SourceUri) -> String {
    match uri {
        SourceUri::File(_) => uri.to_string(),
        SourceUri::Http(url) => without_query(url).to_owned(),
    }
}

/// The name of the one file of a package: the last segment of the address, or `content`.
pub fn file_name(uri: &SourceUri) -> RelativePath {
    let name = match uri {
        SourceUri::File(path) => path.file_name().map(|name| name.as_bytes().to_vec()),
        SourceUri::Http(url) => Url::parse(url).ok().and_then(|url| percent_decoded(url.path().rsplit('/').next()?)),
    };
    name.and_then(plain_name).unwrap_or_else(content_name)
}

fn plain_name(name: Vec<u8>) -> Option<RelativePath> {
    RelativePath::new(name).ok().filter(|path| path.parent().is_none())
}

fn content_name() -> RelativePath {
    RelativePath::new(CONTENT_NAME).expect("a plain word is a path")
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_file_is_named_by_the_last_segment() {
        let name = |text: &str| file_name(&text.parse().unwrap()).to_string();
        assert_eq!(name("https://host/a/b.tar.gz?token=1#x"), "b.tar.gz");
        assert_eq!(name("https://host/a/b%20c"), "b c");
        assert_eq!(name("https://host/"), "content");
        assert_eq!(name("https://host"), "content");
        assert_eq!(name("https://host/a/..%2Fetc"), "content");
        assert_eq!(name("https://host/a%2"), "content");
        assert_eq!(name("file:///srv/app.bin"), "app.bin");
        assert_eq!(name("file:///"), "content");
    }

    #[test]
    fn queries_are_not_shown() {
        let uri: SourceUri = "https://host/a?signature=secret".parse().unwrap();
        assert_eq!(shown(&uri), "https://host/a");
        assert_eq!(shown(&"file:///a?b".parse().unwrap()), "file:///a?b");
    }

    #[test]
    fn urls_that_cannot_be_requested_are_refused() {
        for text in ["http://[::1", "http://host:99999/", "http://"] {
            assert_eq!(parse_url(text).unwrap_err().reason(), "UriInvalid", "{text}");
        }
        assert_eq!(parse_url("https://host/a?b#c").unwrap().as_str(), "https://host/a?b");
    }
}
