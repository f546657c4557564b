//! What stops a holder whose time is over: every request that writes passes the fence before it is sent. A process
//! that slept through the end of its Lease finds it closed, whatever it was about to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Moment;

/// The gate of all writes; clones share it. Closed at first.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    /// Milliseconds since the machine started, until which it is open.
    open_until_ms: Arc<AtomicU64>,
}

/// A write without the right to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not hold the lease (any more): the write was not sent")]
pub struct NoLease;

impl Fence {
    /// Opens until that moment, or closes.
    pub fn set(&self, open_until: Option<Moment>) {
        self.open_until_ms.store(open_until.map_or(0, Moment::as_milliseconds), Ordering::Release);
    }

    /// Whether a write may be sent now.
    ///
    /// # Errors
    /// [`NoLease`] while it is closed.
    pub fn check(&self, now: Moment) -> Result<(), NoLease> {
        let is_open = now.as_milliseconds() < self.open_until_ms.load(Ordering::Acquire);
        if is_open { Ok(()) } else { Err(NoLease) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_open_only_until_the_given_moment() {
        let (fence, now) = (Fence::default(), Moment::now());
        assert_eq!(fence.check(now), Err(NoLease));
        fence.set(Some(now + Duration::from_secs(10)));
        assert_eq!(fence.check(now + Duration::from_millis(9_999)), Ok(()));
        assert_eq!(fence.check(now + Duration::from_secs(10)), Err(NoLease));
        fence.set(None);
        assert_eq!(fence.check(now), Err(NoLease));
    }
}
