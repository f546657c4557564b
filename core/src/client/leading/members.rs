//! What members say of themselves, and the plan that they get in return.

use std::time::{Duration, Instant};

use crate::chunk_set::{CHUNKS_MAX, ChunkRun, ChunkSet, indices_of};
use crate::client::event::{BUSY, INVENTORY_NEEDED, NOT_RENDEZVOUS_POINT, Refusal};
use crate::client::{Client, Package};
use crate::digest::Digest;
use crate::message::{HoldersFound, Inventory, MemberReport, Message, PackageDelta, PackageInventory, RUNS_MAX};
use crate::peer::{MessageClass, NodeRef, Peer};

/// The plan goes to the same member at most this often.
const PLAN_INTERVAL: Duration = Duration::from_secs(2);
/// Completions of members reach the server with an office report this soon.
const REPORT_COMPLETION: Duration = Duration::from_millis(500);

impl Client {
    pub(in crate::client) fn take_member_report(
        &mut self,
        now: Instant,
        from: &NodeRef,
        report: MemberReport,
    ) -> Result<(), Refusal> {
        let revision = self.revision();
        let Some(leading) = &mut self.leading else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        let unknown = leading.view.heard(now, from, report.boot_id, report.plan_revision);
        if unknown == Some(false) {
            for delta in report.packages {
                let gained_only = delta.lost.is_empty() && delta.state.error.is_none() && !delta.state.complete;
                let bytes = self.bytes_of_runs(delta.digest, &delta.available);
                self.learn(now, from, delta);
                if gained_only {
                    self.gained(now, bytes);
                } else {
                    self.hurry(now);
                }
            }
        }
        if report.plan_revision < revision {
            self.send_plan(now, from);
        }
        match unknown {
            Some(false) => Ok(()),
            Some(true) => Err(Refusal::new(INVENTORY_NEEDED, "the rendezvous point does not know this member yet")),
            None => Err(Refusal::new(BUSY, "the office has more members than a rendezvous point keeps")),
        }
    }

    pub(in crate::client) fn take_member_inventory(
        &mut self,
        now: Instant,
        from: &NodeRef,
        inventory: Inventory,
    ) -> Result<(), Refusal> {
        let Some(leading) = &mut self.leading else {
            return Err(Refusal::new(NOT_RENDEZVOUS_POINT, "this node is not the rendezvous point of its office"));
        };
        let plan_revision = leading.view.member(&from.name).map_or(0, |member| member.plan_revision);
        leading.view.heard(now, from, inventory.boot_id, plan_revision);
        leading.view.inventory_came(&from.name);
        for PackageInventory { digest, available, coming, state } in inventory.packages {
            // Reports may overtake an inventory, so it only adds; what is lost is reported as lost.
            let capacity = self.capacity_of(digest);
            // Before the manifest is here no more is kept than a message takes; one run more tells that there are more.
            let runs_max = if capacity.is_some() { CHUNKS_MAX as usize } else { RUNS_MAX + 1 };
            let available = ChunkSet::from_bytes(capacity.unwrap_or((available.len() * 8) as u32), &available);
            let available = available.iter_runs().take(runs_max).collect();
            self.learn(now, from, PackageDelta { digest, available, lost: Vec::new(), coming, state });
        }
        self.hurry(now);
        Ok(())
    }

    pub(in crate::client) fn take_holders_found(&mut self, now: Instant, from: &NodeRef, found: HoldersFound) {
        for delta in found.packages {
            let known = self.leading.as_ref().is_some_and(|leading| leading.view.member(&from.name).is_some());
            if known {
                self.learn(now, from, delta);
            }
        }
        self.hurry(now);
    }

    fn learn(&mut self, now: Instant, from: &NodeRef, delta: PackageDelta) {
        let capacity = self.capacity_of(delta.digest);
        let Some(leading) = &mut self.leading else { return };
        let was_complete =
            leading.view.known_package(&from.name, delta.digest).is_some_and(|package| package.state.complete);
        if delta.state.complete && !was_complete {
            leading.office_report_at = leading.office_report_at.min(now + REPORT_COMPLETION);
        }
        leading.view.learn(now, &from.name, delta, capacity);
    }

    /// Length of chunks as the manifest has it; chunks that it does not have count nothing.
    fn bytes_of_runs(&self, digest: Digest, runs: &[ChunkRun]) -> u64 {
        let Some(package) = self.packages.get(&digest) else { return 0 };
        indices_of(runs, package.capacity()).map(|index| package.bytes_of(index)).sum()
    }

    /// Number of chunks, once the manifest is here.
    fn capacity_of(&self, digest: Digest) -> Option<u32> {
        self.packages.get(&digest).filter(|package| package.is_prepared()).map(Package::capacity)
    }

    /// A new plan goes to every member at once.
    pub(in crate::client) fn hand_on_plan(&mut self, now: Instant) {
        let Some(leading) = &self.leading else { return };
        let me = &self.config.me.name;
        let members: Vec<NodeRef> =
            leading.view.live(now).map(|member| member.node.clone()).filter(|member| member.name != *me).collect();
        for member in members {
            self.send_plan(now, &member);
        }
    }

    fn send_plan(&mut self, now: Instant, member: &NodeRef) {
        let revision = self.revision();
        let (Some(leading), Some(signed)) = (&mut self.leading, &self.signed_plan) else { return };
        let sent = leading.plan_sent.get(&member.name);
        if sent.is_some_and(|&(sent, at)| sent == revision && at + PLAN_INTERVAL > now) {
            return;
        }
        leading.plan_sent.insert(member.name.clone(), (revision, now));
        let plan = Message::Plan(signed.clone());
        self.send(Peer::Node(member.clone()), MessageClass::Foreground, plan);
    }
}

#[cfg(test)]
mod tests {
    use crate::client::fixture::{client, lead, node, plan, planned, prepare, report, take_plan};
    use crate::client::{Client, event::INVENTORY_NEEDED};
    use crate::distribution::Priority;
    use crate::message::{MemberReport, Message, NodeState, Revision};
    use crate::office::OfficeType;
    use crate::peer::Peer;
    use std::time::Instant;

    /// A member with this plan says that nothing has changed. Returns why that was refused.
    fn refused(client: &mut Client, now: Instant, plan_revision: Revision) -> Option<String> {
        let report = MemberReport { boot_id: 2, plan_revision, term: client.term(), packages: Vec::new() };
        let answer = client.message(now, Peer::Node(node("store", "store-2")), Message::MemberReport(report));
        answer.err().map(|refusal| refusal.reason.to_string())
    }

    #[test]
    fn members_say_everything_again_when_a_package_comes_back_whether_they_saw_that_it_went_or_not() {
        let (mut client, now) = client(OfficeType::Wired);
        let (kept, gone) = (planned("kept", Priority::Normal), planned("gone", Priority::Normal));
        let mut plan = plan(OfficeType::Wired, vec![kept.clone(), gone.clone()]);
        take_plan(&mut client, now, &mut plan);
        let now = lead(&mut client, now);
        for package in [&kept, &gone] {
            prepare(&mut client, now, package.digest, 0);
        }
        let state = NodeState { complete: true, ..NodeState::default() };
        let everything = [(kept.digest, state.clone()), (gone.digest, state)];
        report(&mut client, now, "store-2", &everything);
        let first = plan.revision;
        assert_eq!(refused(&mut client, now, first), None);
        for seen in [true, false] {
            plan.packages = vec![kept.clone()];
            take_plan(&mut client, now, &mut plan);
            let known = if seen { plan.revision } else { first };
            assert_eq!(refused(&mut client, now, known), None);
            plan.packages = vec![kept.clone(), gone.clone()];
            take_plan(&mut client, now, &mut plan);
            assert_eq!(refused(&mut client, now, plan.revision).as_deref(), Some(INVENTORY_NEEDED));
            prepare(&mut client, now, gone.digest, 0);
            report(&mut client, now, "store-2", &everything);
            assert_eq!(refused(&mut client, now, plan.revision), None);
            let view = &client.leading.as_ref().unwrap().view;
            assert!(view.state_on(&node("store", "store-2").name, gone.digest).unwrap().complete);
        }
    }
}
