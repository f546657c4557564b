//! Nodes, rendezvous points and reports of the offices.

use std::time::Instant;

use super::event::ServerOutput;
use super::{CLAIM_PATIENCE, RendezvousPoint, Server};
use crate::client::Refusal;
use crate::message::{Hello, Message, OfficeReport, PlanChanged, Revision, Term};
use crate::names::OfficeName;
use crate::office::OfficeType;
use crate::peer::{MessageClass, NodeRef};
use crate::rendezvous::{is_later, next_term};

impl Server {
    pub(super) fn take_hello(&mut self, now: Instant, from: &NodeRef, hello: &Hello) -> Result<(), Refusal> {
        let (office_type, central) = self.office_of(from)?;
        if office_type == OfficeType::WiFi && !self.rendezvous_points.contains_key(&from.office) {
            // After the server's own restart the office may know its rendezvous point, which claims within a hello.
            let nobody_leads = hello.term == 0 || self.started + CLAIM_PATIENCE <= now;
            if nobody_leads {
                self.appoint(from, next_term(hello.term));
            }
        }
        let leads = self.rendezvous_points.get(&from.office).is_some_and(|point| point.node == *from);
        if central || office_type == OfficeType::Vpn || leads {
            self.send_newer_plan(from, hello.plan_revision);
        }
        self.answer(from);
        Ok(())
    }

    pub(super) fn take_claim(&mut self, from: &NodeRef, term: Term, plan_revision: Revision) -> Result<(), Refusal> {
        let (office_type, _) = self.office_of(from)?;
        if office_type == OfficeType::Vpn {
            self.send_newer_plan(from, plan_revision);
            return Ok(());
        }
        let known = self.rendezvous_points.get(&from.office);
        // The same rule as among the nodes of a wired office: of equal terms the smaller name wins.
        let loses_tie = |point: &RendezvousPoint| {
            let known_wins = office_type == OfficeType::WiFi || point.node.name < from.name;
            point.term == term && point.node != *from && known_wins
        };
        if known.is_some_and(|point| is_later(point.term, term) || loses_tie(point)) {
            self.answer(from);
            return Ok(());
        }
        let is_new = known.is_none_or(|point| point.node != *from);
        let point = RendezvousPoint { node: from.clone(), term };
        self.rendezvous_points.insert(from.office.clone(), point);
        if is_new {
            self.rendezvous_point_changed(&from.office);
        }
        self.send_newer_plan(from, plan_revision);
        Ok(())
    }

    pub(super) fn take_lost(&mut self, from: &NodeRef, term: Term) -> Result<(), Refusal> {
        let (office_type, _) = self.office_of(from)?;
        let known = self.rendezvous_points.get(&from.office).map_or(0, |point| point.term);
        if office_type == OfficeType::WiFi && !is_later(known, term) {
            self.appoint(from, next_term(term));
        }
        self.answer(from);
        Ok(())
    }

    pub(super) fn take_office_report(&mut self, from: &NodeRef, report: OfficeReport) -> Result<(), Refusal> {
        let (office_type, central) = self.office_of(from)?;
        let known = self.rendezvous_points.get(&from.office);
        if office_type != OfficeType::Vpn && known.is_some_and(|point| is_later(point.term, report.term)) {
            return Err(Refusal::new("old-term", "another node is the rendezvous point of this office"));
        }
        let leads = known.is_some_and(|point| point.node == *from);
        report.packages.iter().for_each(|package| self.note_that_it_speaks_of(&from.office, package.digest));
        let report = self.as_it_counts(&from.office, report, leads);
        for package in &report.packages {
            let progress = self.progress.entry((from.office.clone(), package.digest)).or_default();
            progress.available_chunks = Some(package.available.iter().map(|byte| byte.count_ones()).sum());
            package.nodes.iter().for_each(|(node, state)| progress.report(node, state));
            self.settling.hear(package.digest, &from.office);
        }
        if central || office_type == OfficeType::Vpn || leads {
            self.send_newer_plan(from, report.plan_revision);
        }
        self.outputs.push_back(ServerOutput::OfficeReported { office: from.office.clone(), report });
        Ok(())
    }

    pub(super) fn office_of(&self, node: &NodeRef) -> Result<(OfficeType, bool), Refusal> {
        self.office(&node.office)
            .ok_or_else(|| Refusal::new("unknown-office", format!("there is no office {}", node.office)))
    }

    fn appoint(&mut self, node: &NodeRef, term: Term) {
        self.rendezvous_points.insert(node.office.clone(), RendezvousPoint { node: node.clone(), term });
        self.rendezvous_point_changed(&node.office);
    }

    /// Plans of children and parent name it, and the members are told.
    fn rendezvous_point_changed(&mut self, office: &OfficeName) {
        self.plan_neighbours_soon(office);
        let of_office = self.progress.iter_mut().filter(|((name, _), _)| name == office);
        of_office.for_each(|(_, progress)| progress.forget_order());
        let members: Vec<NodeRef> =
            self.nodes.values().filter(|known| known.node.office == *office).map(|known| known.node.clone()).collect();
        for member in members {
            self.answer(&member);
        }
    }

    /// Tells a node which plan is in force and who its rendezvous point is.
    pub(super) fn answer(&mut self, node: &NodeRef) {
        let point = self.rendezvous_points.get(&node.office);
        let changed = PlanChanged {
            plan_revision: self.plans.get(&node.office).map_or(0, |plan| plan.revision),
            term: point.map_or(0, |point| point.term),
            rendezvous_point: point.map(|point| point.node.clone()),
        };
        self.send_small(node, Message::PlanChanged(changed));
    }

    fn send_newer_plan(&mut self, node: &NodeRef, revision: Revision) {
        let Some(plan) = self.plans.get(&node.office).filter(|plan| plan.revision > revision) else { return };
        let class = if plan.central { MessageClass::Foreground } else { MessageClass::Background };
        self.outputs.push_back(ServerOutput::SendPlan { to: node.clone(), class, plan: plan.clone() });
    }

    /// Sends a changed plan to whoever gets it from the server, and word of it to the whole office.
    pub(super) fn push_plan(&mut self, office: &OfficeName) {
        let Some(plan) = self.plans.get(office) else { return };
        let everyone = plan.central || plan.office_type == OfficeType::Vpn;
        let members: Vec<NodeRef> = self
            .nodes
            .values()
            .filter(|known| known.node.office == *office && known.last_seen.is_some())
            .map(|known| known.node.clone())
            .collect();
        for member in members {
            let leads = self.rendezvous_points.get(office).is_some_and(|point| point.node == member);
            if everyone || leads {
                self.send_newer_plan(&member, 0);
            }
            self.answer(&member);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests need some instant to start from")]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::message::{NodeState, OfficePackage};
    use crate::names::NodeName;
    use crate::server::tests::{desired, distribution, ingested};
    use crate::server::{ServerConfig, ServerEvent};
    use jiff::Timestamp;

    fn tell(server: &mut Server, event: ServerEvent) {
        server.handle(Instant::now(), Timestamp::UNIX_EPOCH, event);
    }

    #[test]
    fn report_is_passed_on_without_unknown_packages_repetitions_and_foreign_nodes() {
        let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
        let mut server = Server::new(Instant::now(), config);
        let app = distribution("app", "/app");
        tell(&mut server, desired(&[&app]));
        tell(&mut server, ingested(&app));
        let reporter = NodeRef {
            name: NodeName::new("a").unwrap(),
            office: OfficeName::new("central").unwrap(),
            address: "127.0.0.1".parse().unwrap(),
        };
        let of = |digest, names: &[&str]| OfficePackage {
            digest,
            available: bytes::Bytes::new(),
            nodes: names.iter().map(|name| (NodeName::new(name).unwrap(), NodeState::default())).collect(),
        };
        let (known, unknown) = (Digest::of(b"root"), Digest::of(b"invented"));
        let packages = vec![of(known, &["a", "invented"]), of(known, &["a"]), of(unknown, &["a"])];
        let report = OfficeReport { term: 1, plan_revision: 2, packages };
        server.message(Instant::now(), &reporter, Message::OfficeReport(report)).unwrap();
        let passed_on = std::iter::from_fn(|| server.poll()).find_map(|output| match output {
            ServerOutput::OfficeReported { report, .. } => Some(report.packages),
            _ => None,
        });
        assert_eq!(passed_on, Some(vec![of(known, &["a"])]));
    }

    #[test]
    fn claim_of_the_last_term_is_overruled_by_the_next() {
        let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
        let mut server = Server::new(Instant::now(), config);
        tell(&mut server, desired(&[]));
        let office = OfficeName::new("central").unwrap();
        let claim = |name: &str, term| {
            let address = "127.0.0.1".parse().unwrap();
            let from = NodeRef { name: NodeName::new(name).unwrap(), office: office.clone(), address };
            (from, Message::RendezvousClaim { term, plan_revision: 0 })
        };
        for (name, term, leads) in [("a", Term::MAX, "a"), ("b", 5, "b"), ("a", Term::MAX, "b"), ("a", 6, "a")] {
            let (from, message) = claim(name, term);
            server.message(Instant::now(), &from, message).unwrap();
            assert_eq!(server.rendezvous_point(&office).unwrap().0.name.as_str(), leads);
        }
    }
}
