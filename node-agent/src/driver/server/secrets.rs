//! Where the server finds the credentials of sources: in a cluster it asks for each Secret when a source is fetched, and
//! keeps none; from a manifest directory they come with the objects.

use std::sync::Arc;

use peerdist_core::distribution::Distribution;
use tokio::sync::watch;

use crate::cluster::SecretReader;
use crate::source::{Credentials, KnownSecrets, SecretError, SecretKey};

/// Where Secrets are.
#[derive(Clone)]
pub(super) enum Secrets {
    /// With the API server.
    Cluster(SecretReader),
    /// Among the objects, as they are now.
    Objects(watch::Receiver<Arc<KnownSecrets>>),
}

impl Secrets {
    /// What the source of the distribution asks for, as it is now. Only Secrets of its own namespace count.
    pub(super) async fn credentials(
        &mut self,
        distribution: &Distribution,
    ) -> Result<Option<Credentials>, SecretError> {
        let Some(name) = distribution.source.secret.clone() else { return Ok(None) };
        let secret = SecretKey { namespace: distribution.key.namespace.clone(), name };
        match self {
            Self::Cluster(reader) => reader.read(secret).await.map(Some),
            Self::Objects(known) => match known.borrow_and_update().get(&secret).cloned() {
                None => Err(SecretError::NotFound { secret }),
                Some(Err(fault)) => Err(SecretError::Invalid { secret, fault }),
                Some(Ok(credentials)) => Ok(Some(credentials)),
            },
        }
    }

    /// Waits until Secrets were edited, as far as anybody tells.
    pub(super) async fn changed(&mut self) {
        let told = match self {
            Self::Objects(known) => known.changed().await.is_ok(),
            Self::Cluster(_) => false,
        };
        if !told {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use peerdist_core::distribution::{OfficeSelector, PackageSource, Priority, Unpack};
    use peerdist_core::names::{DistributionKey, Namespace, PackageName, SecretName, Version};

    use super::*;
    use crate::source::CredentialsError;

    fn distribution(secret: Option<&str>) -> Distribution {
        let secret = secret.map(|name| SecretName::new(name).unwrap());
        Distribution {
            key: DistributionKey {
                namespace: Namespace::new("retail").unwrap(),
                name: PackageName::new("app").unwrap(),
            },
            version: Version::new("1").unwrap(),
            source: PackageSource { uri: "https://host/app".parse().unwrap(), digest: None, secret },
            unpack: Unpack::None,
            offices: OfficeSelector::default(),
            priority: Priority::Normal,
            not_before: None,
            paused: false,
            retention_versions: 1,
            generation: 1,
        }
    }

    fn known(namespace: &str, token: Option<&'static [u8]>) -> Arc<KnownSecrets> {
        let key = SecretKey { namespace: Namespace::new(namespace).unwrap(), name: SecretName::new("repo").unwrap() };
        let credentials = Credentials::from_keys(|key| token.filter(|_| key == "token"));
        Arc::new(KnownSecrets::from([(key, credentials)]))
    }

    #[tokio::test]
    async fn secrets_among_the_objects_count_for_their_own_namespace_as_they_are_now() {
        let (told, received) = watch::channel(known("other", Some(b"x")));
        let mut secrets = Secrets::Objects(received);
        assert_eq!(secrets.credentials(&distribution(None)).await, Ok(None));
        let missing = secrets.credentials(&distribution(Some("repo"))).await.unwrap_err();
        assert_eq!(missing.reason(), "SecretNotFound");
        assert!(missing.to_string().contains("Secret retail/repo does not exist"), "{missing}");
        told.send_replace(known("retail", None));
        secrets.changed().await;
        let invalid = secrets.credentials(&distribution(Some("repo"))).await.unwrap_err();
        assert!(matches!(invalid, SecretError::Invalid { fault: CredentialsError::Keys, .. }));
        told.send_replace(known("retail", Some(b"x")));
        secrets.changed().await;
        assert!(matches!(secrets.credentials(&distribution(Some("repo"))).await, Ok(Some(_))));
    }
}
