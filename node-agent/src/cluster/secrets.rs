//! Reads the Secret that a source names, when the source is fetched. It can be read where a Role allows it, which the
//! installation makes for the namespaces that it is told (server.secretNamespaces); nothing is listed, watched or kept.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::GetParams;
use kube::core::Request;
use peerdist_crds::names::SERVER;
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, Cluster};
use crate::source::{Credentials, CredentialsError, SecretError, SecretKey};

/// Types of Secrets that people make for a source. Others exist for something else, and whoever may write a
/// PackageDistribution may not be meant to have them sent away: the token of a service account has the key `token`, too.
const TYPES: [&str; 2] = ["kubernetes.io/basic-auth", "Opaque"];

/// Asks the API server for Secrets.
#[derive(Clone)]
pub struct SecretReader(Cluster);

impl SecretReader {
    /// Asks the server of this cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self(cluster)
    }

    /// The credentials in the Secret as it is now.
    ///
    /// # Errors
    /// [`SecretError`]: who may not read it is told how to allow it.
    pub async fn read(&self, key: SecretKey) -> Result<Credentials, SecretError> {
        let unavailable = |detail: String| SecretError::Unavailable { secret: key.clone(), detail };
        let request = Request::new(Secret::url_path(&(), Some(key.namespace.as_str())));
        let request =
            request.get(key.name.as_str(), &GetParams::default()).map_err(|error| unavailable(error.to_string()))?;
        // As text: the typed call logs an answer that it cannot read, and that would be a Secret.
        let answer = timeout(ANSWER_TIMEOUT, self.0.client.request_text(request)).await;
        let answer = answer.map_err(|_| unavailable("no answer of the Kubernetes API".to_owned()))?;
        let text = answer.map_err(|error| self.refusal(&key, &error))?;
        let secret = serde_json::from_str(&text).map_err(|_| unavailable("the answer is no Secret".to_owned()))?;
        credentials(&secret).map_err(|fault| SecretError::Invalid { secret: key, fault })
    }

    fn refusal(&self, key: &SecretKey, error: &kube::Error) -> SecretError {
        let secret = key.clone();
        match error {
            kube::Error::Api(status) if status.code == 403 => {
                SecretError::Forbidden { secret, account: format!("{}:{SERVER}", self.0.namespace) }
            }
            kube::Error::Api(status) if status.code == 404 => SecretError::NotFound { secret },
            error => SecretError::Unavailable { secret, detail: error.to_string() },
        }
    }
}

fn credentials(secret: &Secret) -> Result<Credentials, CredentialsError> {
    if !secret.type_.as_deref().is_some_and(|kind| TYPES.contains(&kind)) {
        return Err(CredentialsError::Type);
    }
    let data = secret.data.as_ref();
    Credentials::from_keys(|key| data?.get(key).map(|ByteString(value)| value.as_slice()))
}

#[cfg(test)]
mod tests {
    use kube::{Client, Config};
    use peerdist_core::names::{Namespace, SecretName};
    use serde_json::{Value, json};

    use super::*;
    use crate::source::test_server::{Reply, TestServer};

    /// What comes of the API server's answer, and what it was asked.
    async fn read(status: u16, answer: Value) -> (Result<Credentials, SecretError>, Vec<String>) {
        crate::http::install_tls_provider();
        let reply = Reply { status, ..Reply::ok(answer.to_string().as_bytes()) };
        let server = TestServer::start(move |_, _| reply.clone().with("Content-Type", "application/json"));
        let client = Client::try_from(Config::new(server.address.parse().unwrap())).unwrap();
        let reader = SecretReader::new(Cluster { client, namespace: "peerdist".to_owned() });
        let key = SecretKey {
            namespace: Namespace::new("retail").unwrap(),
            name: SecretName::new("repo-credentials").unwrap(),
        };
        let read = reader.read(key).await;
        (read, server.requests().into_iter().map(|request| request.path).collect())
    }

    fn secret(kind: &str, data: Value) -> Value {
        let metadata = json!({"name": "repo-credentials", "namespace": "retail"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data})
    }

    fn failure(code: u16) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "m", "reason": "r"})
    }

    #[tokio::test]
    async fn one_secret_of_the_namespace_is_asked_for_and_nothing_else() {
        let basic = json!({"username": "dXNlcg==", "password": "cGFzcw=="});
        let (found, asked) = read(200, secret("kubernetes.io/basic-auth", basic)).await;
        assert!(found.is_ok());
        assert_eq!(asked, ["/api/v1/namespaces/retail/secrets/repo-credentials"]);
        let (found, _) = read(200, secret("Opaque", json!({"token": "dG9rZW4="}))).await;
        assert!(found.is_ok());
    }

    #[tokio::test]
    async fn who_may_not_read_is_told_the_command_that_allows_it() {
        let (refused, _) = read(403, failure(403)).await;
        let error = refused.unwrap_err();
        assert_eq!(error.reason(), "SecretForbidden");
        let message = error.to_string();
        for part in [
            "retail/repo-credentials",
            "server.secretNamespaces",
            "kubectl create role peerdist-secrets -n retail --verb=get --resource=secrets",
            "--serviceaccount=peerdist:peerdist-server",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_or_unusable_has_a_reason_and_shows_no_value() {
        let token = || json!({"token": "dGVsbC10YWxl"});
        for (status, answer, reason) in [
            (404, failure(404), "SecretNotFound"),
            (500, failure(500), "SecretUnavailable"),
            (200, json!({"kind": "Secret", "data": "tell-tale"}), "SecretUnavailable"),
            (200, secret("Opaque", json!({})), "SecretInvalid"),
            (200, secret("Opaque", json!({"username": "dGVsbC10YWxl"})), "SecretInvalid"),
            (200, secret("kubernetes.io/service-account-token", token()), "SecretInvalid"),
            (200, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": token()}), "SecretInvalid"),
        ] {
            let error = read(status, answer.clone()).await.0.unwrap_err();
            assert_eq!(error.reason(), reason, "{answer}");
            assert!(!error.to_string().contains("tell-tale"), "{error}");
        }
    }
}
