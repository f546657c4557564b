//! How many tokens are reviewed at a time: whoever has no right to anything may send them without end, and the API server
//! must not be asked as often.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Most reviews at a time for one address, so that nobody takes all places.
const PER_ADDRESS_MAX: usize = 2;

/// The reviews under way; clones count together.
#[derive(Debug, Clone, Default)]
pub struct ReviewPlaces(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// Nothing more is reviewed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// Of this address.
    Address,
    /// Of anybody.
    All,
}

/// A review under way; counted until it is dropped.
#[derive(Debug)]
pub struct ReviewPlace {
    places: ReviewPlaces,
    address: IpAddr,
}

impl ReviewPlaces {
    /// Most reviews at a time.
    pub const MAX: usize = 16;

    /// Begins a review for an address.
    ///
    /// # Errors
    /// [`NoPlace`] when too many are under way.
    pub fn enter(&self, address: IpAddr) -> Result<ReviewPlace, NoPlace> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&address).is_some_and(|count| *count >= PER_ADDRESS_MAX) {
            return Err(NoPlace::Address);
        }
        if running.values().sum::<usize>() >= Self::MAX {
            return Err(NoPlace::All);
        }
        *running.entry(address).or_default() += 1;
        Ok(ReviewPlace { places: self.clone(), address })
    }
}

impl Drop for ReviewPlace {
    fn drop(&mut self) {
        let mut running = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_address_never_takes_all_places() {
        let places = ReviewPlaces::default();
        let mut of_one: Vec<ReviewPlace> =
            (0..ReviewPlaces::MAX).filter_map(|_| places.enter(address(1)).ok()).collect();
        assert_eq!(of_one.len(), PER_ADDRESS_MAX);
        assert_eq!(places.enter(address(1)).unwrap_err(), NoPlace::Address);
        assert!(places.enter(address(2)).is_ok());
        of_one.pop();
        assert!(places.enter(address(1)).is_ok());
        drop(of_one);
        assert!(places.0.lock().unwrap().is_empty(), "nothing is remembered of who is gone");
    }

    #[test]
    fn many_addresses_take_so_many_places() {
        let places = ReviewPlaces::default();
        let taken: Vec<ReviewPlace> = (0..=u8::MAX).filter_map(|last| places.enter(address(last)).ok()).collect();
        assert_eq!(taken.len(), ReviewPlaces::MAX);
        assert_eq!(places.enter(address(255)).unwrap_err(), NoPlace::All);
    }
}
