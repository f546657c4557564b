//! Places that strangers take at one port, counted in all, for each network and for each address, so that none of them
//! keeps the others out. What a place is for, and what becomes of who finds none, is the business of `acceptor`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

/// The part of an IPv6 address that names its network: a host takes as many addresses in it as it likes.
const NETWORK_MASK_IPV6: u128 = u128::MAX << 64;

/// Most places that are taken at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) in_all: usize,
    /// Only IPv6 has networks of many addresses here: in IPv4 each address counts by itself.
    pub(super) of_network: usize,
    pub(super) of_address: usize,
}

/// The places of one kind at one port.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

impl Places {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Mutex::default() }
    }

    /// A place for `address` until it is dropped; `None` when it would be one too many.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.lock();
        if !taken.has_room(address, self.bounds) {
            return None;
        }
        taken.add(address);
        Some(Place { places: self.clone(), address })
    }

    /// Whether one more place for `address` would stay within these bounds, which may be narrower than the own ones.
    pub(super) fn has_room_within(&self, address: IpAddr, bounds: Bounds) -> bool {
        self.lock().has_room(address.to_canonical(), bounds)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A place that is taken. Dropping it gives it back, however the work that it was taken for ended.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.address);
    }
}

/// Counts above zero only, so neither map is longer than the bound on all places.
#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_network: BTreeMap<IpAddr, usize>,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Taken {
    fn has_room(&self, address: IpAddr, bounds: Bounds) -> bool {
        let count = |counts: &BTreeMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or(0);
        self.in_all < bounds.in_all
            && count(&self.by_network, network_of(address)) < bounds.of_network
            && count(&self.by_address, address) < bounds.of_address
    }

    fn add(&mut self, address: IpAddr) {
        self.in_all += 1;
        *self.by_network.entry(network_of(address)).or_default() += 1;
        *self.by_address.entry(address).or_default() += 1;
    }

    fn remove(&mut self, address: IpAddr) {
        self.in_all = self.in_all.saturating_sub(1);
        remove_one(&mut self.by_network, network_of(address));
        remove_one(&mut self.by_address, address);
    }
}

fn remove_one(counts: &mut BTreeMap<IpAddr, usize>, key: IpAddr) {
    let Some(count) = counts.get_mut(&key) else { return };
    *count = count.saturating_sub(1);
    if *count == 0 {
        counts.remove(&key);
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK_MASK_IPV6).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { in_all: 6, of_network: 4, of_address: 2 };

    fn places() -> Arc<Places> {
        Arc::new(Places::new(BOUNDS))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// As many places as there are for these addresses.
    fn take_all<'a>(places: &Arc<Places>, addresses: impl IntoIterator<Item = &'a str>) -> Vec<Place> {
        addresses.into_iter().filter_map(|text| places.take(address(text))).collect()
    }

    #[test]
    fn address_that_holds_all_its_places_keeps_no_other_out() {
        let places = places();
        let held = take_all(&places, ["10.0.0.1", "10.0.0.1", "10.0.0.1"]);
        assert_eq!(held.len(), BOUNDS.of_address);
        assert!(places.take(address("10.0.0.2")).is_some());
        drop(held);
        assert!(places.take(address("10.0.0.1")).is_some());
    }

    #[test]
    fn host_with_many_addresses_of_one_network_keeps_no_other_network_out() {
        let places = places();
        let held = take_all(&places, ["fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5"]);
        assert_eq!(held.len(), BOUNDS.of_network);
        assert!(places.take(address("fd00:0:0:1::1")).is_some());
        assert!(places.take(address("10.0.0.1")).is_some());
    }

    #[test]
    fn addresses_of_version_4_count_each_by_itself_also_when_they_are_written_as_version_6() {
        let places = places();
        let written_anew = ["::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"];
        let held = take_all(&places, written_anew.into_iter().chain(["::ffff:10.0.0.2", "::ffff:10.0.0.3"]));
        let addresses: Vec<IpAddr> = held.iter().map(|place| place.address).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(address));
    }

    #[test]
    fn no_more_places_are_remembered_than_are_taken() {
        let places = places();
        let many: Vec<String> = (1..=100).map(|last| format!("10.0.0.{last}")).collect();
        let held = take_all(&places, many.iter().map(String::as_str));
        assert_eq!(held.len(), BOUNDS.in_all);
        assert_eq!(places.lock().by_address.len(), BOUNDS.in_all);
        drop(held);
        let taken = places.lock();
        assert_eq!((taken.in_all, taken.by_network.len(), taken.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn place_of_work_that_was_never_begun_or_that_panicked_is_given_back() {
        let places = places();
        let (never_begun, panicking) = (places.take(address("10.0.0.1")), places.take(address("10.0.0.1")));
        drop(async move { drop(never_begun) });
        let thread = std::thread::spawn(move || {
            let _held_by_the_thread = panicking;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(places.lock().in_all, 0);
    }
}
