//! Enrolments that wait for the API server's word on their token. A renewal needs none, nor does the join token.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::enrolment::{Asked, Entitlement};
use crate::cluster::TokenReviewer;
use crate::transport::{PeerIdentity, ReplyHandle};

/// Most reviews at a time: whoever has no certificate may send tokens without end.
const REVIEWS_MAX: usize = 16;

/// A request whose token was reviewed.
type Reviewed = (Asked, Entitlement, ReplyHandle);

/// The reviews under way.
pub(super) struct Reviews {
    reviewer: Option<TokenReviewer>,
    places: Arc<Semaphore>,
    done: mpsc::Sender<Reviewed>,
    reviewed: mpsc::Receiver<Reviewed>,
}

impl Reviews {
    pub(super) fn new(reviewer: Option<TokenReviewer>) -> Self {
        let (done, reviewed) = mpsc::channel(REVIEWS_MAX);
        Self { reviewer, places: Arc::new(Semaphore::new(REVIEWS_MAX)), done, reviewed }
    }

    /// Begins to review the token of a pod. Gives back what needs no review.
    pub(super) fn begin(&self, asked: Asked, reply: ReplyHandle) -> Option<(Asked, ReplyHandle)> {
        let is_pod = matches!(asked.from, PeerIdentity::Enrolling) && is_json_web_token(&asked.enrol.token);
        let Some(reviewer) = self.reviewer.clone().filter(|_| is_pod) else { return Some((asked, reply)) };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            reply.refuse("busy", "many nodes enrol at the same time: try again");
            return None;
        };
        let done = self.done.clone();
        tokio::spawn(async move {
            let entitlement =
                reviewer.review(&asked.enrol.token).await.map_or_else(Entitlement::None, Entitlement::Pod);
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

/// Three parts with dots between them: a join token's secret has none.
fn is_json_web_token(token: &str) -> bool {
    token.split('.').count() == 3
}
