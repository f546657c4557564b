//! What of the identity is made anew, and when. Pure but for the randomness of keys.
//!
//! Nodes learn keys and roots when they enrol and when they renew. So the next manifest key is always given out beside the
//! one that signs, and a root that comes is trusted for a while before it signs, one that goes for a while after. The root
//! that comes is whatever the root's Secret holds: the key of the one that goes is not needed any more.

use std::fmt;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use peerdist_authority::certificates::{self, EXPIRED_TOLERANCE, NODE_LIFETIME};
use peerdist_authority::server_identity::{ROOTS_MAX, new_secret};
use peerdist_authority::{CertifiedKey, ServerIdentity, days};

use super::held::{Held, Requests};

/// A root that comes begins to sign after so long: every node that has a valid certificate has renewed it then, since
/// files that kubelet mounts follow within minutes.
const COMING: Duration = NODE_LIFETIME.saturating_add(days(1));
/// It does so after so long when somebody asks for an intermediate, which nothing else can sign: the key of the former
/// root is gone. Nodes that reach the server know it then, and the others enrol anew by their tokens.
const COMING_ASKED_FOR: Duration = Duration::from_secs(3600);
/// A root that another one follows is trusted for so long still: while the server is away, the nodes of an office take
/// certificates of it from each other, and must not lose that trust before.
const GOING: Duration = NODE_LIFETIME.saturating_add(EXPIRED_TOLERANCE).saturating_add(days(1));
/// A root that comes begins to sign at the latest when the old intermediate has this left: nodes renew within it.
const INTERMEDIATE_REST_MIN: SignedDuration = SignedDuration::from_hours(3 * 24);
/// A manifest key that signed for so long gives way to the next.
const MANIFEST_KEY_AGE_MAX: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Something that was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    RootComes,
    RootSigns,
    RootsGo,
    Intermediate,
    ManifestKey,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::RootComes => "another root is trusted besides, and signs when all nodes had time to learn of it",
            Self::RootSigns => "the new root signs, and the old one is trusted until all nodes have other certificates",
            Self::RootsGo => "former roots are not trusted any more",
            Self::Intermediate => "a new intermediate signs the certificates of nodes",
            Self::ManifestKey => "the next manifest key signs, and another one comes after it",
        })
    }
}

/// A new identity under this root.
pub(super) fn begin(root: &CertifiedKey, now: Timestamp) -> Result<Held, rcgen::Error> {
    let key = || SigningKey::from_bytes(&new_secret());
    let identity = ServerIdentity {
        roots: vec![root.certificate.clone()],
        intermediate: root.new_intermediate(now.into())?,
        manifest_key: key(),
        next_manifest_key: Some(key()),
        office_secret: new_secret(),
    };
    Ok(Held { identity, roots_since: now, manifest_key_since: now, done: Requests::default() })
}

/// The identity as it should be now, and what was done for that.
pub(super) fn go_on(
    mut held: Held,
    root: &CertifiedKey,
    requests: &Requests,
    now: Timestamp,
) -> Result<(Held, Vec<Step>), rcgen::Error> {
    let roots = follow_root(&mut held, root, requests, now)?;
    let intermediate = renew_intermediate(&mut held, root, requests, now)?;
    let manifest_key = turn_manifest_key(&mut held, requests, now);
    Ok((held, roots.into_iter().chain(intermediate).chain(manifest_key).collect()))
}

fn follow_root(
    held: &mut Held,
    root: &CertifiedKey,
    requests: &Requests,
    now: Timestamp,
) -> Result<Option<Step>, rcgen::Error> {
    let age = Duration::try_from(now.duration_since(held.roots_since)).unwrap_or_default();
    let coming = if asks_for_intermediate(held, requests) { COMING_ASKED_FOR } else { COMING };
    let roots = &mut held.identity.roots;
    let comes = !roots.contains(&root.certificate);
    if roots.first() == Some(&root.certificate) {
        let goes = age >= GOING && roots.len() > 1;
        if goes {
            roots.truncate(1);
        }
        return Ok(goes.then_some(Step::RootsGo));
    }
    if comes {
        roots.insert(1, root.certificate.clone());
        roots.truncate(ROOTS_MAX);
        held.roots_since = now;
    }
    if (comes || age < coming) && lasts(&held.identity.intermediate, now) {
        return Ok(comes.then_some(Step::RootComes));
    }
    let roots = &mut held.identity.roots;
    roots.retain(|one| *one != root.certificate);
    roots.insert(0, root.certificate.clone());
    held.roots_since = now;
    make_intermediate(held, root, requests, now)?;
    Ok(Some(Step::RootSigns))
}

fn lasts(intermediate: &CertifiedKey, now: Timestamp) -> bool {
    let end = certificates::validity(&intermediate.certificate).and_then(|(_, end)| Timestamp::try_from(end).ok());
    end.is_some_and(|end| end.duration_since(now) > INTERMEDIATE_REST_MIN)
}

/// Only the root in force signs one; another root brings its own when it begins to sign.
fn renew_intermediate(
    held: &mut Held,
    root: &CertifiedKey,
    requests: &Requests,
    now: Timestamp,
) -> Result<Option<Step>, rcgen::Error> {
    if held.identity.roots.first() != Some(&root.certificate) {
        return Ok(None);
    }
    let is_fresh = held.identity.intermediate.is_fresh(&root.certificate, now.into());
    if is_fresh && !asks_for_intermediate(held, requests) {
        return Ok(None);
    }
    make_intermediate(held, root, requests, now)?;
    Ok(Some(Step::Intermediate))
}

fn asks_for_intermediate(held: &Held, requests: &Requests) -> bool {
    requests.intermediate.is_some() && requests.intermediate != held.done.intermediate
}

/// Whoever asked for one has it then.
fn make_intermediate(
    held: &mut Held,
    root: &CertifiedKey,
    requests: &Requests,
    now: Timestamp,
) -> Result<(), rcgen::Error> {
    held.identity.intermediate = root.new_intermediate(now.into())?;
    held.done.intermediate = requests.intermediate.clone().or(held.done.intermediate.take());
    Ok(())
}

fn turn_manifest_key(held: &mut Held, requests: &Requests, now: Timestamp) -> Option<Step> {
    let is_asked_for = requests.manifest_key.is_some() && requests.manifest_key != held.done.manifest_key;
    if !is_asked_for && now.duration_since(held.manifest_key_since) < MANIFEST_KEY_AGE_MAX {
        return None;
    }
    let another = || SigningKey::from_bytes(&new_secret());
    held.identity.manifest_key = held.identity.next_manifest_key.take().unwrap_or_else(another);
    held.identity.next_manifest_key = Some(another());
    held.manifest_key_since = now;
    held.done.manifest_key = requests.manifest_key.clone().or(held.done.manifest_key.take());
    Some(Step::ManifestKey)
}

#[cfg(test)]
mod tests;
