//! Places for packages that are brought in: few at a time, and not all for one namespace, whose slow sources would
//! otherwise keep the packages of all others waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use peerdist_core::names::Namespace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most packages that are brought in at the same time; each takes a processor, memory for its chunks and a connection.
const INGESTS_MAX: usize = 4;
/// Most of them of one namespace.
const INGESTS_PER_NAMESPACE_MAX: usize = 2;

/// All places of a server.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    by_namespace: Mutex<BTreeMap<Namespace, Arc<Semaphore>>>,
}

/// Held while a package is brought in.
#[derive(Debug)]
pub(super) struct Place {
    _of_namespace: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(INGESTS_MAX)), by_namespace: Mutex::default() }
    }
}

impl Places {
    /// Waits for a place.
    pub(super) async fn take(&self, namespace: &Namespace) -> Place {
        // Nobody closes them: without a permit nothing would go wrong but the bound.
        let _of_namespace = self.of(namespace).acquire_owned().await.ok();
        let _of_all = self.all.clone().acquire_owned().await.ok();
        Place { _of_namespace, _of_all }
    }

    fn of(&self, namespace: &Namespace) -> Arc<Semaphore> {
        let mut by_namespace = self.by_namespace.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Whoever waits or holds a permit has a reference of its own.
        by_namespace.retain(|_, places| Arc::strong_count(places) > 1);
        let places = by_namespace.entry(namespace.clone());
        places.or_insert_with(|| Arc::new(Semaphore::new(INGESTS_PER_NAMESPACE_MAX))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// A place at once, if there is one.
    fn try_take(places: &Places, namespace: &str) -> Option<Place> {
        let namespace = Namespace::new(namespace).unwrap();
        let mut taking = Box::pin(places.take(&namespace));
        match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_namespace_leaves_places_to_others() {
        let places = Places::default();
        let held = [try_take(&places, "one"), try_take(&places, "one")];
        assert!(held.iter().all(Option::is_some));
        assert!(try_take(&places, "one").is_none());
        let others = [try_take(&places, "two"), try_take(&places, "three")];
        assert!(others.iter().all(Option::is_some));
        assert!(try_take(&places, "four").is_none(), "there are no more in all");
        drop((held, others));
        assert!(try_take(&places, "one").is_some());
        assert_eq!(places.by_namespace.lock().unwrap().len(), 1, "namespaces that bring nothing in are forgotten");
    }
}
