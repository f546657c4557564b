//! Which plan a node confirms: the newest of which nothing is left on its disk that the plan does not list. Who waits
//! for a deleted package to be gone waits for disks, not for plans that were heard.

use std::time::Instant;

use super::Client;
use super::event::Output;
use crate::digest::Digest;
use crate::message::Revision;

/// Deletions that were ordered and are not done.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    under_way: u64,
    /// The plan that is confirmed.
    pub(super) confirmed: Revision,
}

impl Deletions {
    /// This plan is in force, and all that it does not list was ordered to be deleted. Returns whether it is confirmed
    /// from now on.
    pub(super) fn confirm(&mut self, plan: Revision) -> bool {
        self.under_way == 0 && std::mem::replace(&mut self.confirmed, plan) != plan
    }
}

impl Client {
    pub(super) fn delete(&mut self, digest: Digest) {
        self.deletions.under_way += 1;
        self.outputs.push_back(Output::Delete { digest });
    }

    pub(super) fn deleted(&mut self, now: Instant) {
        self.deletions.under_way = self.deletions.under_way.saturating_sub(1);
        if self.deletions.confirm(self.revision()) {
            // Whoever deleted the object waits for this word.
            self.hello_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fixture::{client, drain, pass, plan, planned, prepare, take_plan};
    use crate::client::{Event, HELLO_INTERVAL, HOUSEKEEPING_INTERVAL};
    use crate::distribution::Priority;
    use crate::message::{Hello, Message};
    use crate::office::OfficeType;

    #[test]
    fn plan_is_confirmed_when_what_it_does_not_list_is_off_the_disk() {
        let (mut client, mut now) = client(OfficeType::Vpn);
        let packages = ["a", "b"].map(|name| planned(name, Priority::Normal));
        let mut plan = plan(OfficeType::Vpn, packages.to_vec());
        take_plan(&mut client, now, &mut plan);
        packages.iter().for_each(|package| prepare(&mut client, now, package.digest, 1));
        let said = |client: &mut Client, now: &mut Instant, deleted: Option<Digest>, after| {
            if let Some(digest) = deleted {
                client.handle(*now, Event::Deleted { digest });
            }
            drain(client);
            *now = pass(client, *now, after);
            let hello = |output| match output {
                Output::Send { message: Message::Hello(Hello { plan_revision, confirmed_revision, .. }), .. } => {
                    Some((plan_revision, confirmed_revision))
                }
                _ => None,
            };
            drain(client).into_iter().find_map(hello).unwrap()
        };
        let regularly = HELLO_INTERVAL * 2;
        let (first, confirmed) = said(&mut client, &mut now, None, regularly);
        assert_eq!(confirmed, first);
        plan.packages.clear();
        take_plan(&mut client, now, &mut plan);
        let second = plan.revision;
        assert_eq!(said(&mut client, &mut now, None, regularly), (second, first));
        assert_eq!(said(&mut client, &mut now, Some(packages[0].digest), regularly), (second, first));
        let at_once = HOUSEKEEPING_INTERVAL;
        assert_eq!(said(&mut client, &mut now, Some(packages[1].digest), at_once), (second, second));
    }
}
