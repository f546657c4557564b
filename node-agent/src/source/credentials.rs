//! What a source is asked with: the value of one request header, made from the keys of a Secret, and what can be wrong
//! with a Secret. Values appear in no error, log or debug output. Where Secrets are read is the caller's business.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peerdist_core::names::{Namespace, SecretName};
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

/// Keys of a Secret, as Kubernetes has them for the type `kubernetes.io/basic-auth`.
const USERNAME: &str = "username";
const PASSWORD: &str = "password";
/// Key of a bearer token.
const TOKEN: &str = "token";
/// Longest value of a key: servers accept headers of about 8 KiB, and base64 adds a third.
const VALUE_BYTES_MAX: usize = 6 << 10;

/// The value of the header `Authorization`. It is wiped when it is dropped; copies that HTTP and TLS make are not.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Zeroizing<String>);

/// A Secret that holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Nothing there, half of it, or two kinds at once.
    #[error("expected either the keys username and password, or the key token; correct the Secret")]
    Keys,
    /// It was made for something else.
    #[error(
        "its type is neither kubernetes.io/basic-auth nor Opaque: others, such as tokens of service accounts, are sent nowhere; make one for this source"
    )]
    Type,
    /// A text that no header can have.
    #[error(
        "the key {key} is empty or has characters that do not belong there: expected {expected}, without a line break at the end; correct it, for example by kubectl create secret generic --from-literal"
    )]
    Value {
        /// Which key.
        key: &'static str,
        /// What it may hold.
        expected: &'static str,
    },
    /// More than a server reads.
    #[error("the key {key} has more than {VALUE_BYTES_MAX} bytes: expected at most that many; shorten it")]
    Length {
        /// Which key.
        key: &'static str,
    },
}

impl Credentials {
    /// Credentials from the keys of a Secret.
    ///
    /// # Errors
    /// [`CredentialsError`], without any value.
    pub fn from_keys<'a>(value: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, CredentialsError> {
        match (value(USERNAME), value(PASSWORD), value(TOKEN)) {
            (Some(username), Some(password), None) => Self::basic(username, password),
            (None, None, Some(token)) => Self::bearer(token),
            _ => Err(CredentialsError::Keys),
        }
    }

    /// RFC 7617: the colon ends the user name, control characters are in neither.
    fn basic(username: &[u8], password: &[u8]) -> Result<Self, CredentialsError> {
        let is_printable = |byte: &u8| !byte.is_ascii_control();
        let is_username = |text: &[u8]| !text.is_empty() && text.iter().all(|byte| is_printable(byte) && *byte != b':');
        check(USERNAME, username, "printable characters but no colon", is_username)?;
        check(PASSWORD, password, "printable characters", |text| text.iter().all(is_printable))?;
        let pair = Zeroizing::new([username, b":", password].concat());
        let encoded = Zeroizing::new(STANDARD.encode(&*pair));
        Ok(Self(Zeroizing::new(format!("Basic {}", *encoded))))
    }

    /// RFC 6750, but any visible character: some origins make their own tokens.
    fn bearer(token: &[u8]) -> Result<Self, CredentialsError> {
        let is_token = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        check(TOKEN, token, "visible ASCII characters", is_token)?;
        let token: String = token.iter().copied().map(char::from).collect();
        Ok(Self(Zeroizing::new(format!("Bearer {}", *Zeroizing::new(token)))))
    }

    /// The header's value, which hides itself from debug output and from header compression.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&self.0).expect("nothing but visible characters and a space was let in");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(..)")
    }
}

fn check(
    key: &'static str,
    value: &[u8],
    expected: &'static str,
    is_valid: impl Fn(&[u8]) -> bool,
) -> Result<(), CredentialsError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(CredentialsError::Length { key });
    }
    if is_valid(value) { Ok(()) } else { Err(CredentialsError::Value { key, expected }) }
}

/// Namespace and name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// That of the package: Secrets of others are nobody's business.
    pub namespace: Namespace,
    /// Its name.
    pub name: SecretName,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Secrets of a manifest directory, as far as each can be used.
pub type KnownSecrets = BTreeMap<SecretKey, Result<Credentials, CredentialsError>>;

/// Why the credentials of a source are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The server has no right to read it.
    #[error(
        "the server may not read Secret {secret}: expected {namespace} in server.secretNamespaces of the chart; add it, or run: kubectl create role peerdist-secrets -n {namespace} --verb=get --resource=secrets && kubectl create rolebinding peerdist-secrets -n {namespace} --role=peerdist-secrets --serviceaccount={account}",
        namespace = secret.namespace
    )]
    Forbidden {
        /// The Secret.
        secret: SecretKey,
        /// Namespace and name of the server's service account, with a colon between them.
        account: String,
    },
    /// It is not there.
    #[error("Secret {secret} does not exist: expected one with the keys username and password, or token; create it")]
    NotFound {
        /// The Secret.
        secret: SecretKey,
    },
    /// It holds no credentials.
    #[error("Secret {secret}: {fault}")]
    Invalid {
        /// The Secret.
        secret: SecretKey,
        /// What is wrong with it.
        fault: CredentialsError,
    },
    /// Whoever keeps it did not answer properly this time.
    #[error("Secret {secret} cannot be read now: {detail}; it is tried again")]
    Unavailable {
        /// The Secret.
        secret: SecretKey,
        /// What happened.
        detail: String,
    },
}

impl SecretError {
    /// The stable word for conditions, metrics and `errors[].reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "SecretForbidden",
            Self::NotFound { .. } => "SecretNotFound",
            Self::Invalid { .. } => "SecretInvalid",
            Self::Unavailable { .. } => "SecretUnavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(keys: &[(&str, &str)]) -> Result<String, CredentialsError> {
        let value = |key: &str| keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes());
        Credentials::from_keys(value).map(|credentials| credentials.header().to_str().unwrap().to_owned())
    }

    #[test]
    fn keys_become_the_header_of_their_kind() {
        // The examples of RFC 7617 and RFC 6750.
        let aladdin = made(&[("username", "Aladdin"), ("password", "open sesame")]);
        assert_eq!(aladdin, Ok("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned()));
        let umlaut = made(&[("username", "test"), ("password", "123\u{a3}"), ("other", "x")]);
        assert_eq!(umlaut, Ok("Basic dGVzdDoxMjPCow==".to_owned()));
        assert_eq!(made(&[("token", "mF_9.B5f-4.1JqM")]), Ok("Bearer mF_9.B5f-4.1JqM".to_owned()));
        assert_eq!(made(&[("username", "key"), ("password", "")]), Ok("Basic a2V5Og==".to_owned()));
    }

    #[test]
    fn half_of_it_and_two_kinds_at_once_are_refused() {
        for keys in [
            &[][..],
            &[("username", "a")],
            &[("password", "a")],
            &[("username", "a"), ("token", "b")],
            &[("username", "a"), ("password", "b"), ("token", "c")],
        ] {
            assert_eq!(made(keys), Err(CredentialsError::Keys), "{keys:?}");
        }
    }

    #[test]
    fn values_that_no_header_can_have_are_refused_by_key_and_never_shown() {
        let long = "a".repeat(VALUE_BYTES_MAX + 1);
        for (keys, key) in [
            (&[("token", "secret\n")][..], "token"),
            (&[("token", "secret value")], "token"),
            (&[("token", "secret\u{e4}")], "token"),
            (&[("token", "")], "token"),
            (&[("token", &long)], "token"),
            (&[("username", "secret:x"), ("password", "y")], "username"),
            (&[("username", ""), ("password", "secret")], "username"),
            (&[("username", "x"), ("password", "secret\r\nX-Other: y")], "password"),
            (&[("username", "x"), ("password", &long)], "password"),
        ] {
            let error = made(keys).unwrap_err().to_string();
            assert!(error.contains(&format!("the key {key} ")), "{error}");
            assert!(!error.contains("secret\n") && !error.contains("secret:") && error.len() < 300, "{error}");
        }
    }

    #[test]
    fn values_are_in_no_debug_output() {
        let credentials = Credentials::from_keys(|key| (key == "token").then_some(b"tell-tale")).unwrap();
        let shown = format!("{credentials:?} {:?}", credentials.header());
        assert!(!shown.contains("tell-tale"), "{shown}");
    }
}
