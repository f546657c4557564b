//! By which keys the server is the server. A root lies in a Secret that only the operator reads: its own, made once, or
//! one that somebody else keeps, such as cert-manager. What the server needs lies in another Secret, which its pod mounts:
//! an intermediate of that root and the keys for manifests. A ConfigMap tells clients the digests of the roots. Reads as
//! dereference, decide, build, apply; `rotation` decides, purely. Part of the Central Office's reconcile.
//!
//! None of the three belongs to an Office: who makes the Central Office anew gets the same server.

mod held;
mod root;
mod rotation;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::runtime::events::{Event, EventType};
use peerdist_authority::{CertifiedKey, sha256};
use serde_json::json;

use self::held::{Held, Requests};
use self::rotation::Step;
use crate::apply::{ApplyError, Desired, Outcome};
use crate::context::Context;
use crate::names::{FIELD_MANAGER, SERVER_COMPONENT, SERVER_IDENTITY, TRUST, TRUST_KEY, labels};

/// How often is looked whether something is old enough to be made anew.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// How often while something is wrong that time alone may mend, such as a clock that is seconds behind that of whoever
/// made the root.
pub const LOOK_INTERVAL_FAILED: Duration = Duration::from_secs(30);

/// An identity that cannot be made or kept up before somebody corrects something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFailure {
    /// Somebody else keeps the root, and it is not there.
    #[error(
        "Secret {0} is missing: create it with the certificate and key of a root as tls.crt and tls.key, or have \
         cert-manager write it"
    )]
    RootMissing(String),
    /// A Secret holds something else.
    #[error("Secret {secret}: {key}: expected {expected}: correct it")]
    Damaged {
        /// Its name.
        secret: String,
        /// The key in it.
        key: &'static str,
        /// What should be there.
        expected: &'static str,
    },
    /// The root does not sign.
    #[error("the root in Secret {secret} cannot sign: {problem}")]
    NotSigned {
        /// Its name.
        secret: String,
        /// Why.
        problem: String,
    },
}

impl IdentityFailure {
    /// The kind of failure in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::RootMissing(_) => "RootSecretMissing",
            Self::Damaged { .. } => "IdentityDamaged",
            Self::NotSigned { .. } => "IdentityNotSigned",
        }
    }
}

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error(transparent)]
    Failure(#[from] IdentityFailure),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// What the cluster has of the identity.
struct Live {
    root: Option<Arc<Secret>>,
    identity: Option<Arc<Secret>>,
    trust: Option<Arc<ConfigMap>>,
}

/// Makes the cluster have the identity. The inner error is for people to correct.
///
/// # Errors
/// [`ApplyError`] when something could not be written.
pub async fn reconcile(context: &Context, now: Timestamp) -> Result<Result<(), IdentityFailure>, ApplyError> {
    match bring_about(context, now).await {
        Ok(()) => Ok(Ok(())),
        Err(IdentityError::Failure(failure)) => Ok(Err(failure)),
        Err(IdentityError::Apply(error)) => Err(error),
    }
}

async fn bring_about(context: &Context, now: Timestamp) -> Result<(), IdentityError> {
    let live = dereference(context);
    let not_signed = |error| not_signed(context, &error);
    let root = match &live.root {
        Some(secret) => root::read(secret, now)?,
        None => make_root(context, now).await?,
    };
    let requests = live.identity.as_deref().map(Requests::of).unwrap_or_default();
    let held = live.identity.as_deref().map(|secret| held::read(secret, now)).transpose()?;
    let is_new = held.is_none();
    let (held, steps) = match held {
        Some(held) => rotation::go_on(held, &root, &requests, now).map_err(not_signed)?,
        None => (rotation::begin(&root, now).map_err(not_signed)?, Vec::new()),
    };
    context.apply(&trust(&held, &context.namespace), live.trust.as_deref()).await?;
    let desired = held::build(&held, &context.namespace);
    if is_new {
        return Ok(create(context, &desired).await?);
    }
    if context.applier.apply(&desired, live.identity.as_deref()).await? == Outcome::Written {
        tell(context, live.identity.as_deref(), &steps).await;
    }
    Ok(())
}

fn not_signed(context: &Context, error: &rcgen::Error) -> IdentityFailure {
    let secret = context.settings.identity.root_secret_name().to_owned();
    IdentityFailure::NotSigned { secret, problem: error.to_string() }
}

fn dereference(context: &Context) -> Live {
    let caches = &context.caches;
    Live {
        root: context.owned(&caches.root_secret, context.settings.identity.root_secret_name()),
        identity: context.owned(&caches.identity_secret, SERVER_IDENTITY),
        trust: context.owned(&caches.config_maps, TRUST),
    }
}

/// Only where nobody else keeps it.
async fn make_root(context: &Context, now: Timestamp) -> Result<CertifiedKey, IdentityError> {
    let name = context.settings.identity.root_secret_name();
    if context.settings.identity.root_secret.is_some() {
        return Err(IdentityFailure::RootMissing(name.to_owned()).into());
    }
    let root = CertifiedKey::new_root(SystemTime::from(now)).map_err(|error| not_signed(context, &error))?;
    create(context, &root::build(&root, &context.namespace, name)).await?;
    Ok(root)
}

/// Makes a Secret, and never writes over one that the cache does not show yet.
async fn create(context: &Context, desired: &Desired) -> Result<(), ApplyError> {
    let object = format!("Secret {}", desired.name);
    let secret: Secret = serde_json::from_value(desired.body.clone())
        .map_err(|source| ApplyError::Cached { object: object.clone(), source })?;
    let api: Api<Secret> = Api::namespaced(context.applier.client(), &context.namespace);
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let created = api.create(&parameters, &secret).await;
    created.map_err(|source| ApplyError::Api { object: object.clone(), source: Box::new(source) })?;
    tracing::info!(%object, "made");
    Ok(())
}

/// By which roots clients recognise the server: their digests, one a line.
fn trust(held: &Held, namespace: &str) -> Desired {
    let digests: Vec<String> = held.identity.roots.iter().map(|root| hex::encode(sha256(root))).collect();
    let body = json!({"metadata": {"labels": labels(SERVER_COMPONENT)}, "data": {TRUST_KEY: digests.join("\n")}});
    Desired::new::<ConfigMap>(namespace, TRUST, body)
}

async fn tell(context: &Context, secret: Option<&Secret>, steps: &[Step]) {
    let note: Vec<String> = steps.iter().map(ToString::to_string).collect();
    let Some(secret) = secret.filter(|_| !note.is_empty()) else { return };
    let note = note.join("; ");
    tracing::info!(secret = SERVER_IDENTITY, "{note}");
    let event = Event {
        type_: EventType::Normal,
        reason: "Rotated".to_owned(),
        note: Some(note),
        action: "Rotate".to_owned(),
        secondary: None,
    };
    context.statuses.tell(secret, event).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_every_root_and_the_key_of_none() {
        let now = Timestamp::now();
        let [first, second] = [0, 1].map(|_| CertifiedKey::new_root(now.into()).unwrap());
        let held = rotation::begin(&first, now).unwrap();
        let (held, _) = rotation::go_on(held, &second, &Requests::default(), now).unwrap();
        let digests = [&first, &second].map(|root| hex::encode(sha256(&root.certificate)));
        assert_eq!(trust(&held, "peerdist").body["data"][TRUST_KEY], digests.join("\n"));
        let everything = held::build(&held, "peerdist").body.to_string();
        for root in [first, second] {
            let pem = root.key.serialize_pem();
            let secret: k8s_openapi::ByteString = k8s_openapi::ByteString(pem.into_bytes());
            let encoded = serde_json::to_string(&secret).unwrap();
            assert!(!everything.contains(encoded.trim_matches('"')));
        }
    }

    #[test]
    fn failures_name_secret_and_key() {
        let failure =
            IdentityFailure::Damaged { secret: "a".to_owned(), key: "tls.key", expected: "the key of tls.crt" };
        assert_eq!(failure.to_string(), "Secret a: tls.key: expected the key of tls.crt: correct it");
        assert!(IdentityFailure::RootMissing("b".to_owned()).to_string().starts_with("Secret b is missing"));
    }
}
