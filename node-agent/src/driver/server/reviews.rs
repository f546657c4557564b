//! Enrolments that wait for the API server's word on their token. A renewal needs none, nor does the join token.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};

use super::enrolment::{Asked, Entitlement};
use crate::cluster::TokenReviewer;
use crate::transport::{PeerIdentity, ReplyHandle};

/// Most reviews at a time: whoever has no certificate may send tokens without end.
const REVIEWS_MAX: usize = 16;

/// Most reviews at a time for one address, so that nobody takes all places.
const REVIEWS_PER_ADDRESS_MAX: usize = 2;

/// A request whose token was reviewed.
type Reviewed = (Asked, Entitlement, ReplyHandle);

/// The reviews under way.
pub(super) struct Reviews {
    reviewer: Option<TokenReviewer>,
    places: Arc<Semaphore>,
    by_address: Addresses,
    done: mpsc::Sender<Reviewed>,
    reviewed: mpsc::Receiver<Reviewed>,
}

impl Reviews {
    pub(super) fn new(reviewer: Option<TokenReviewer>) -> Self {
        let (done, reviewed) = mpsc::channel(REVIEWS_MAX);
        let places = Arc::new(Semaphore::new(REVIEWS_MAX));
        Self { reviewer, places, by_address: Addresses::default(), done, reviewed }
    }

    /// Begins to review the token of a pod. Gives back what needs no review.
    pub(super) fn begin(&self, asked: Asked, reply: ReplyHandle) -> Option<(Asked, ReplyHandle)> {
        let is_pod = matches!(asked.from, PeerIdentity::Enrolling) && is_json_web_token(&asked.enrol.token);
        let Some(reviewer) = self.reviewer.clone().filter(|_| is_pod) else { return Some((asked, reply)) };
        let Some(seat) = self.by_address.enter(asked.address) else {
            reply.refuse("busy", "other tokens from this address are looked at: try again");
            return None;
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            reply.refuse("busy", "many nodes enrol at the same time: try again");
            return None;
        };
        let done = self.done.clone();
        tokio::spawn(async move {
            let entitlement =
                reviewer.review(&asked.enrol.token).await.map_or_else(Entitlement::None, Entitlement::Pod);
            drop(done.send((asked, entitlement, reply)).await);
            drop((place, seat));
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

/// How many reviews run for each address.
#[derive(Debug, Clone, Default)]
struct Addresses(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A review under way; counted until it is dropped.
#[derive(Debug)]
struct Seat {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    fn enter(&self, address: IpAddr) -> Option<Seat> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(address).or_default();
        if *count >= REVIEWS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Seat { addresses: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut running = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_never_takes_all_places() {
        let addresses = Addresses::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut seats: Vec<Seat> = (0..REVIEWS_MAX).filter_map(|_| addresses.enter(one)).collect();
        assert_eq!(seats.len(), REVIEWS_PER_ADDRESS_MAX);
        assert!(addresses.enter(other).is_some());
        seats.pop();
        assert!(addresses.enter(one).is_some());
        drop(seats);
        assert!(addresses.0.lock().unwrap().is_empty(), "nothing is remembered of who is gone");
    }
}
