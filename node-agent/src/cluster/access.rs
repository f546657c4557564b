//! Who may read the server's API with a token of the cluster: the API server says whose the token is (TokenReview) and
//! whether its owner may (SubjectAccessReview). A yes counts for some seconds; anything else than a yes is a no.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::Api;
use kube::api::PostParams;
use peerdist_crds::names::API_TOKEN_AUDIENCE;
use tokio::time::timeout;

use super::review_places::ReviewPlaces;
use super::tokens::{TokenReviewError, review_token};
use super::{ANSWER_TIMEOUT, Cluster};

/// Goes before a path of the server's API in the right to it. The path alone would be a right that everybody has:
/// Kubernetes lets all who are known to it read below `/api/`, which is where it tells what its own API has.
const RIGHT_PREFIX: &str = "/peerdist";
/// How long a yes counts: a right that is taken away is gone after this.
const YES_LIFETIME: Duration = Duration::from_secs(10);
/// Callers that are remembered; the oldest goes for a new one.
const REMEMBERED_MAX: usize = 64;

/// Why a caller gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Nobody is known by the token.
    #[error("{0}")]
    Unknown(String),
    /// Its owner may not.
    #[error(
        "{user} may not get {right}: bind the ClusterRole peerdist-status-reader to it, or another one with that \
         non-resource URL"
    )]
    Forbidden {
        /// Whose the token is.
        user: String,
        /// What is missing.
        right: String,
    },
    /// The API server cannot be asked, or not now.
    #[error("the API server cannot say now whether the token may do that: try again")]
    Unavailable,
}

/// Asks the API server; clones remember together.
#[derive(Clone)]
pub struct AccessReviewer {
    cluster: Cluster,
    places: ReviewPlaces,
    remembered: Arc<Mutex<Remembered>>,
}

impl AccessReviewer {
    /// By the word of this cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, places: ReviewPlaces::default(), remembered: Arc::default() }
    }

    /// Whether the owner of the token may get a path of the server's API.
    ///
    /// # Errors
    /// [`AccessError`] unless the API server says yes.
    pub async fn may_get(&self, path: &str, token: &str, from: IpAddr) -> Result<(), AccessError> {
        let right = format!("{RIGHT_PREFIX}{path}");
        let asked = question(&right, token);
        if self.remembered.lock().unwrap_or_else(PoisonError::into_inner).has(&asked, Instant::now()) {
            return Ok(());
        }
        let place = self.places.enter(from).map_err(|_| AccessError::Unavailable)?;
        let user = review_token(&self.cluster, token, API_TOKEN_AUDIENCE).await.map_err(|error| match error {
            TokenReviewError::Refused(why) => AccessError::Unknown(why),
            TokenReviewError::Unavailable => AccessError::Unavailable,
        })?;
        self.ask(user, right).await?;
        drop(place);
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).add(asked, Instant::now());
        Ok(())
    }

    async fn ask(&self, user: UserInfo, right: String) -> Result<(), AccessError> {
        let name = user.username.clone().unwrap_or_default();
        let api: Api<SubjectAccessReview> = Api::all(self.cluster.client.clone());
        let review = review_of(user, right.clone());
        match timeout(ANSWER_TIMEOUT, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(reviewed)) if is_yes(reviewed.status.as_ref()) => Ok(()),
            Ok(Ok(_)) => Err(AccessError::Forbidden { user: name, right }),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the API server cannot say who may read the server's API");
                Err(AccessError::Unavailable)
            }
            Err(_) => Err(AccessError::Unavailable),
        }
    }
}

fn review_of(user: UserInfo, right: String) -> SubjectAccessReview {
    let spec = SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: user.extra,
        non_resource_attributes: Some(NonResourceAttributes { path: Some(right), verb: Some("get".to_owned()) }),
        resource_attributes: None,
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

fn is_yes(status: Option<&SubjectAccessReviewStatus>) -> bool {
    status.is_some_and(|status| status.allowed && status.denied != Some(true))
}

/// A token is kept as a digest only.
fn question(right: &str, token: &str) -> [u8; 32] {
    *blake3::Hasher::new().update(right.as_bytes()).update(&[0]).update(token.as_bytes()).finalize().as_bytes()
}

/// Questions that were answered with yes, and when.
#[derive(Debug, Default)]
struct Remembered(BTreeMap<[u8; 32], Instant>);

impl Remembered {
    fn has(&mut self, question: &[u8; 32], now: Instant) -> bool {
        self.0.retain(|_, at| now < *at + YES_LIFETIME);
        self.0.contains_key(question)
    }

    fn add(&mut self, question: [u8; 32], now: Instant) {
        if self.0.len() >= REMEMBERED_MAX {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(question, _)| *question);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(question, now);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn right_is_asked_of_the_user_and_all_its_groups_and_is_not_one_that_everybody_has() {
        let user = json!({"username": "reader", "uid": "1", "groups": ["ops"], "extra": {"scopes": ["few"]}});
        let review = review_of(serde_json::from_value(user.clone()).unwrap(), "/peerdist/api/v1/status".to_owned());
        let expected = json!({
            "user": "reader", "uid": "1", "groups": ["ops"], "extra": {"scopes": ["few"]},
            "nonResourceAttributes": {"path": "/peerdist/api/v1/status", "verb": "get"},
        });
        assert_eq!(serde_json::to_value(&review.spec).unwrap(), expected);
    }

    #[test]
    fn only_a_plain_yes_is_one() {
        let said = |status| is_yes(Some(&serde_json::from_value(status).unwrap()));
        assert!(said(json!({"allowed": true})));
        assert!(!said(json!({"allowed": false})) && !said(json!({"allowed": true, "denied": true})));
        assert!(!is_yes(None));
    }

    #[test]
    fn a_yes_counts_for_seconds_for_its_own_question_and_few_are_kept() {
        let (begin, mut remembered) = (Instant::now(), Remembered::default());
        let asked = question("/peerdist/api/v1/status", "token");
        remembered.add(asked, begin);
        assert!(remembered.has(&asked, begin));
        assert!(!remembered.has(&question("/peerdist/api/v1/status", "other"), begin));
        assert!(!remembered.has(&question("/peerdist/api/v1/other", "token"), begin));
        assert!(!remembered.has(&asked, begin + YES_LIFETIME));
        for number in 0..=REMEMBERED_MAX {
            remembered.add(question("", &number.to_string()), begin + Duration::from_millis(number as u64));
        }
        assert_eq!(remembered.0.len(), REMEMBERED_MAX);
        assert!(!remembered.has(&question("", "0"), begin + Duration::from_secs(1)), "the oldest went");
    }
}
