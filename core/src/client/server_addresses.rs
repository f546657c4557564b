//! Where a client looks for the server: at the address that it was given, and, when nobody answers there as the server,
//! where the plan in force says that it is. Which of the two is newer cannot be told: a file comes late to a node, and so
//! does a plan, which may be one of an earlier run. So none outranks the other. An address stays as long as the server
//! answers there, which its certificate proves, and none is given up for good: a wrong one costs a request.

use std::net::IpAddr;

/// See the module.
#[derive(Debug, Clone)]
pub struct ServerAddresses {
    given: IpAddr,
    planned: Vec<IpAddr>,
    /// Which of them counts now: 0 is the given one, and after it come those of the plan.
    place: usize,
}

impl ServerAddresses {
    /// Begins with the address that the client was given.
    pub fn new(given: IpAddr) -> Self {
        Self { given, planned: Vec::new(), place: 0 }
    }

    /// The address now.
    pub fn current(&self) -> IpAddr {
        let planned = self.place.checked_sub(1).and_then(|place| self.planned.get(place));
        planned.copied().unwrap_or(self.given)
    }

    /// The client is given this address. Another one than before is tried at once.
    pub fn give(&mut self, address: IpAddr) {
        if address != self.given {
            (self.given, self.place) = (address, 0);
        }
    }

    /// A plan with these addresses is in force. Whoever follows the plan before goes on to its successor.
    pub fn take_plan(&mut self, addresses: &[IpAddr]) {
        let current = self.current();
        self.planned = addresses.to_vec();
        if self.place > 0 {
            self.place = 1 + addresses.iter().position(|address| *address == current).unwrap_or(0);
        }
    }

    /// Nobody answered as the server at this address: the next one counts, and after the last one the first. Word of an
    /// address that was left in the meantime says nothing of the one that counts.
    pub fn silent(&mut self, address: IpAddr) {
        if address == self.current() {
            self.place = (self.place + 1) % (1 + self.planned.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const PLANNED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

    #[test]
    fn addresses_of_the_plan_and_the_given_one_are_tried_in_turn_until_the_server_answers() {
        let mut addresses = ServerAddresses::new(GIVEN);
        addresses.silent(GIVEN);
        assert_eq!(addresses.current(), GIVEN, "nothing else is known");
        addresses.take_plan(&[PLANNED, OTHER]);
        assert_eq!(addresses.current(), GIVEN, "the server may well be there");
        for next in [PLANNED, OTHER, GIVEN, PLANNED] {
            addresses.silent(addresses.current());
            assert_eq!(addresses.current(), next);
        }
    }

    #[test]
    fn several_requests_that_fail_at_one_address_count_once() {
        let mut addresses = ServerAddresses::new(GIVEN);
        addresses.take_plan(&[PLANNED, OTHER]);
        addresses.silent(GIVEN);
        addresses.silent(GIVEN);
        assert_eq!(addresses.current(), PLANNED);
    }

    #[test]
    fn another_given_address_is_tried_at_once_and_the_same_one_is_no_news() {
        let mut addresses = ServerAddresses::new(GIVEN);
        addresses.take_plan(&[PLANNED]);
        addresses.silent(GIVEN);
        addresses.give(GIVEN);
        assert_eq!(addresses.current(), PLANNED);
        addresses.give(OTHER);
        assert_eq!(addresses.current(), OTHER);
    }

    #[test]
    fn whoever_follows_the_plan_follows_its_successor() {
        let mut addresses = ServerAddresses::new(GIVEN);
        addresses.take_plan(&[PLANNED]);
        addresses.silent(GIVEN);
        addresses.take_plan(&[OTHER, PLANNED]);
        assert_eq!(addresses.current(), PLANNED, "it answers");
        addresses.take_plan(&[OTHER]);
        assert_eq!(addresses.current(), OTHER);
        addresses.take_plan(&[]);
        assert_eq!(addresses.current(), GIVEN, "the plan says nothing");
        addresses.silent(GIVEN);
        assert_eq!(addresses.current(), GIVEN);
    }
}
