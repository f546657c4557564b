//! Enrolments and renewals in a cluster that wait for the API server's word on the token of a pod. Outside of a cluster
//! nothing waits.

use tokio::sync::mpsc;

use super::enrolment::{Asked, Entitlement};
use crate::cluster::{NoPlace, ReviewPlaces, TokenReviewer};
use crate::transport::{PeerIdentity, ReplyHandle};

/// A request whose token was reviewed.
type Reviewed = (Asked, Entitlement, ReplyHandle);

/// The reviews under way.
pub(super) struct Reviews {
    reviewer: Option<TokenReviewer>,
    newcomers: ReviewPlaces,
    /// Apart, so that nobody without a certificate keeps nodes from renewing theirs.
    renewals: ReviewPlaces,
    done: mpsc::Sender<Reviewed>,
    reviewed: mpsc::Receiver<Reviewed>,
}

impl Reviews {
    pub(super) fn new(reviewer: Option<TokenReviewer>) -> Self {
        let (done, reviewed) = mpsc::channel(ReviewPlaces::MAX);
        Self { reviewer, newcomers: ReviewPlaces::default(), renewals: ReviewPlaces::default(), done, reviewed }
    }

    /// Begins to review the token of a pod. Gives back what needs no review.
    pub(super) fn begin(&self, asked: Asked, reply: ReplyHandle) -> Option<(Asked, ReplyHandle)> {
        let is_pod = is_json_web_token(&asked.enrol.token);
        let Some(reviewer) = self.reviewer.clone().filter(|_| is_pod) else { return Some((asked, reply)) };
        let places = match asked.from {
            PeerIdentity::Enrolling => &self.newcomers,
            PeerIdentity::Client { .. } => &self.renewals,
            PeerIdentity::Server | PeerIdentity::Vesc { .. } => return Some((asked, reply)),
        };
        let place = match places.enter(asked.address) {
            Ok(place) => place,
            Err(NoPlace::Address) => {
                reply.refuse("busy", "other tokens from this address are looked at: try again");
                return None;
            }
            Err(NoPlace::All) => {
                reply.refuse("busy", "many nodes enrol at the same time: try again");
                return None;
            }
        };
        let done = self.done.clone();
        tokio::spawn(async move {
            let entitlement = review(&reviewer, &asked).await;
            drop(done.send((asked, entitlement, reply)).await);
            drop(place);
        });
        None
    }

    /// The next request that can be decided.
    pub(super) async fn next(&mut self) -> Option<Reviewed> {
        self.reviewed.recv().await
    }
}

/// What the token is worth. While there is nobody to say so, a certificate has to do.
async fn review(reviewer: &TokenReviewer, asked: &Asked) -> Entitlement {
    let token = &asked.enrol.token;
    let pod = match asked.from {
        PeerIdentity::Enrolling => reviewer.review(token).await.map(Some),
        _ => reviewer.review_of_renewal(token).await,
    };
    match pod {
        Ok(Some(pod)) => Entitlement::Pod(pod),
        Ok(None) => Entitlement::Certificate,
        Err(refusal) => Entitlement::None(refusal),
    }
}

/// Three parts with dots between them: a join token's secret has none.
fn is_json_web_token(token: &str) -> bool {
    token.split('.').count() == 3
}
