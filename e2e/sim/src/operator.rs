//! What is done to the fleet from outside: kills, restarts, edits of the objects. And when it is complete.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use peerdist_core::digest::Digest;
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::peer::NodeRef;

use crate::client_site::ClientSite;
use crate::scenario::{Operation, SimulatedOffice};
use crate::world::{Action, World};

impl World {
    pub(crate) fn add_office(&mut self, office: SimulatedOffice) {
        let name = office.office.name.clone();
        for _ in 0..office.nodes {
            self.add_node(&name);
        }
        self.offices.insert(name, office);
    }

    fn add_node(&mut self, office: &OfficeName) {
        let number = self.clients.values().filter(|site| site.me.office == *office).count() + 1;
        let count = self.clients.len() as u32;
        let me = NodeRef {
            name: NodeName::new(&format!("{office}-{number}")).expect("node names made here are valid"),
            office: office.clone(),
            address: IpAddr::V4(Ipv4Addr::from(0x7f00_0001 + count)),
        };
        self.at(self.now, Action::Start(me.name.clone(), 0));
        self.clients.insert(me.name.clone(), ClientSite::new(me));
    }

    pub(crate) fn carry_out(&mut self, operation: Operation) {
        match operation {
            Operation::KillRendezvousPoint(office, pause) => {
                if let Some(node) = self.rendezvous_point(&office) {
                    self.count_death(&node);
                    self.count_loss(&node);
                    self.kill_and_restart(&node, pause);
                }
            }
            Operation::KillNode(number, pause) => {
                if let Some(node) = self.clients.keys().nth(number).cloned() {
                    self.count_death(&node);
                    self.count_loss(&node);
                    self.kill_and_restart(&node, pause);
                }
            }
            Operation::KillServer(pause) => {
                self.deaths.server();
                self.kill_server();
                self.after(pause, Action::StartServer);
            }
            Operation::KillAll(pause) => {
                self.deaths.everything();
                let nodes: Vec<NodeName> = self.clients.keys().cloned().collect();
                for node in nodes {
                    self.kill_and_restart(&node, pause);
                }
                self.kill_server();
                self.after(pause, Action::StartServer);
            }
            Operation::FillRendezvousPoint(office, pause) => {
                if let Some(node) = self.rendezvous_point(&office) {
                    self.fill_disk(node, pause);
                }
            }
            Operation::FillNode(number, pause) => {
                if let Some(node) = self.clients.keys().nth(number).cloned() {
                    self.fill_disk(node, pause);
                }
            }
            Operation::MemberLies(office, lie) => {
                let leads = self.rendezvous_point(&office);
                let mut members = self.clients.values_mut().rev().filter(|site| site.me.office == office);
                if let Some(site) = members.find(|site| Some(&site.me.name) != leads.as_ref()) {
                    site.lie = Some(lie);
                    self.deaths.node(&site.me);
                }
            }
            Operation::RendezvousPointLies(office, lie) => {
                let leads = self.rendezvous_point(&office);
                if let Some(site) = leads.and_then(|node| self.clients.get_mut(&node)) {
                    site.lie = Some(lie);
                    self.deaths.node(&site.me);
                }
            }
            Operation::FreeDisk(node) => {
                if let Some(site) = self.clients.get_mut(&node) {
                    site.store.set_full(false);
                }
            }
            Operation::Edit(distribution) => {
                self.distributions.insert(distribution.key.clone(), distribution);
                self.show_objects();
            }
            Operation::Remove(key) => {
                self.distributions.remove(&key);
                self.show_objects();
            }
            Operation::AddOffice(office) => {
                self.add_office(office);
                self.show_objects();
            }
            Operation::AddNode(office) => self.add_node(&office),
        }
    }

    /// The node of an office that takes itself for its rendezvous point.
    pub fn rendezvous_point(&self, office: &OfficeName) -> Option<NodeName> {
        let of_office = self.clients.values().filter(|site| site.me.office == *office);
        of_office
            .filter(|site| site.machine().is_some_and(|machine| machine.is_rendezvous_point()))
            .map(|site| site.me.name.clone())
            .next()
    }

    /// Why nothing comes to an office, as its rendezvous point says.
    pub fn waits(&self, office: &OfficeName) -> Vec<String> {
        let leads = self.rendezvous_point(office).and_then(|node| self.clients.get(&node)?.machine());
        let packages = leads.into_iter().flat_map(|machine| machine.progress());
        packages.filter_map(|package| Some(package.state.waits.as_ref()?.0.clone())).collect()
    }

    /// The nodes of an office that have anything of a package on their disks.
    pub fn holders(&self, office: &OfficeName, digest: Digest) -> Vec<NodeName> {
        let of_office = self.clients.values().filter(|site| site.me.office == *office);
        of_office.filter(|site| site.store.package(digest).is_some()).map(|site| site.me.name.clone()).collect()
    }

    /// The highest election term that a node of an office knows.
    pub fn term(&self, office: &OfficeName) -> Option<u64> {
        let of_office = self.clients.values().filter(|site| site.me.office == *office);
        of_office.filter_map(|site| Some(site.machine()?.term())).max()
    }

    fn count_death(&mut self, node: &NodeName) {
        if let Some(site) = self.clients.get(node) {
            self.deaths.node(&site.me);
        }
    }

    /// Call it before the node dies.
    fn count_loss(&mut self, node: &NodeName) {
        let Some(me) = self.clients.get(node).map(|site| site.me.clone()) else { return };
        for (digest, bytes) in self.passing_only_through(&me) {
            self.deaths.lost(&me.office, digest, bytes);
        }
    }

    fn kill_and_restart(&mut self, node: &NodeName, pause: Duration) {
        self.kill_client(node);
        let life = self.clients.get(node).map_or(0, |site| site.life);
        self.after(pause, Action::Start(node.clone(), life));
    }

    fn fill_disk(&mut self, node: NodeName, pause: Option<Duration>) {
        self.count_death(&node);
        if let Some(site) = self.clients.get_mut(&node) {
            site.store.set_full(true);
        }
        if let Some(pause) = pause {
            self.operations_left += 1;
            self.after(pause, Action::Operate(Box::new(Operation::FreeDisk(node))));
        }
    }

    /// Whether every node has what its office is to publish, and nothing is going to be done to the fleet.
    pub fn is_complete(&self) -> bool {
        let everyone = self.clients.values().all(|site| site.process.is_some());
        everyone && self.server.machine.is_some() && self.operations_left == 0 && self.incomplete().is_empty()
    }

    /// Honest nodes that lack something although they have the space, as words.
    pub fn incomplete(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for distribution in self.distributions.values().filter(|distribution| !distribution.paused) {
            let Some(content) = self.catalog.find(&distribution.package()) else { continue };
            for site in self.clients.values().filter(|site| site.lie.is_none()) {
                let targeted = self
                    .offices
                    .get(&site.me.office)
                    .is_some_and(|simulated| distribution.offices.matches(&simulated.office));
                let published = site
                    .store
                    .package(content.digest)
                    .is_some_and(|package| package.published && package.current && package.held.is_full());
                if targeted && !published && !site.store.is_full() {
                    let written = site.store.package(content.digest).map_or(0, |package| package.written.len());
                    let phase = site.machine().map(|machine| {
                        let packages: Vec<_> = machine
                            .progress()
                            .map(|package| (package.planned.key.to_string(), package.phase))
                            .collect();
                        let revision = machine.plan().map(|plan| plan.revision);
                        format!("{packages:?}, plan {revision:?}, follows {:?}", machine.rendezvous_point())
                    });
                    let total = content.chunk_count();
                    missing.push(format!("{} lacks {}: {written} of {total}, {phase:?}", site.me.name, content.key));
                }
            }
        }
        missing
    }

    /// Nodes that hold what is wanted of them, and the server does not count them as complete. Where somebody lies it
    /// cannot know.
    pub fn uncounted(&self) -> Vec<String> {
        let Some(server) = &self.server.machine else { return Vec::new() };
        let lies_in =
            |office: &OfficeName| self.clients.values().any(|site| site.me.office == *office && site.lie.is_some());
        let mut uncounted = Vec::new();
        for distribution in self.distributions.values().filter(|distribution| !distribution.paused) {
            let Some(content) = self.catalog.find(&distribution.package()) else { continue };
            for site in self.clients.values().filter(|site| !lies_in(&site.me.office)) {
                let is_target = |simulated: &SimulatedOffice| distribution.offices.matches(&simulated.office);
                let is_targeted = self.offices.get(&site.me.office).is_some_and(is_target);
                let published = site.store.package(content.digest);
                let published = published.is_some_and(|package| package.published && package.current);
                let counted = server.progress(&site.me.office, content.digest);
                let counted = counted.and_then(|progress| progress.nodes.get(&site.me.name));
                if is_targeted && published && !counted.is_some_and(|state| state.complete) {
                    uncounted.push(format!("{} has {}, and the server counts {counted:?}", site.me.name, content.key));
                }
            }
        }
        uncounted
    }
}
