//! Who belongs to the fleet: nodes that enrol or renew their certificates, that are replaced, and that leave.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use peerdist_core::client::{BUSY, Refusal};
use peerdist_core::message::Message;
use peerdist_core::names::NodeName;
use peerdist_core::peer::NodeRef;
use peerdist_core::server::ServerEvent;

use super::Node;
use crate::cluster::RefusedEnrolment;
use crate::driver::server::enrolment::{self, Asked, Entitlement, NODE_GONE};
use crate::driver::server::leaving;
use crate::transport::{PeerIdentity, ReplyHandle};

/// How often it is said at most that a node has a plan that this server cannot follow.
const PLAN_AHEAD_INTERVAL: Duration = Duration::from_secs(600);

impl Node {
    /// These nodes are gone, or others have their addresses.
    pub(super) fn forget(&mut self, nodes: &BTreeSet<NodeName>) {
        if !nodes.is_empty() {
            nodes.iter().for_each(|node| self.snapshot.forget_node(node));
            self.recorder.forgotten(nodes);
        }
    }

    /// In a cluster, forgets who has left it.
    pub(super) fn forget_who_left(&mut self) {
        let Some(cluster) = &self.parts.nodes else { return };
        let left = leaving::who_left(self.machine.nodes(), self.started, Instant::now(), |node| cluster.lacks(node));
        if left.is_empty() {
            return;
        }
        for node in &left {
            tracing::info!(%node, "forgotten: the cluster has no Node of this name any more");
        }
        self.forget(&left);
        self.handle(ServerEvent::Left(left));
    }

    /// A Node that was made anew belongs to a node that may still have its certificate, and does not enrol.
    pub(super) fn record_again(&mut self, node: &NodeRef) {
        if self.parts.nodes.is_some() && !self.machine.knows(&node.name) {
            self.recorder.renewed(node);
        }
    }

    /// Whether the cluster, if this server has one, has no such Node any more.
    fn has_left(&self, node: &NodeName) -> bool {
        self.parts.nodes.as_ref().is_some_and(|cluster| cluster.lacks(node))
    }

    pub(super) fn enrol(&mut self, asked: Asked, entitlement: &Entitlement, reply: ReplyHandle) {
        if self.desired.is_none() {
            return reply.refuse(BUSY, "the server has not read its objects yet");
        }
        let office = |name: &_| self.machine.office(name);
        let claimed = asked.enrol.node.as_ref().map(|node| node.office.clone()).unwrap_or_default();
        let (address, is_new) = (asked.address, asked.from == PeerIdentity::Enrolling);
        let has_left = |name: &_| self.has_left(name);
        match enrolment::answer(&self.parts.authority, entitlement, asked, office, has_left) {
            Ok(enrolled) => {
                say_enrolled(&enrolled.node, is_new);
                if is_new {
                    self.recorder.enrolled(&enrolled.node);
                } else {
                    self.recorder.renewed(&enrolled.node);
                }
                let replaced = self.machine.replaced_by(&enrolled.node);
                for node in &replaced {
                    tracing::info!(%node, by = %enrolled.node.name, %address, "forgotten: another node has its address");
                }
                self.forget(&replaced);
                if is_new {
                    // Its disk may be another one.
                    self.snapshot.forget_node(&enrolled.node.name);
                }
                let node = enrolled.node;
                self.handle(if is_new { ServerEvent::Enrolled { node } } else { ServerEvent::Renewed { node } });
                reply.send(enrolled.reply);
            }
            Err(refusal) => {
                tracing::warn!(reason = %refusal.reason, %address, "enrolment refused: {}", refusal.message);
                self.tell_refusal(entitlement, &claimed, address, &refusal);
                reply.refuse(refusal.reason, &refusal.message);
            }
        }
    }

    /// Where whoever looks for the missing node will look: at its pod, which goes with its Node, or else at the Office
    /// that it claims.
    fn tell_refusal(&self, entitlement: &Entitlement, claimed: &str, address: IpAddr, refusal: &Refusal) {
        let Some((cluster, teller)) = self.parts.refusals.as_ref().filter(|_| refusal.reason != BUSY) else { return };
        let note = format!("{}: seen at {address}: {}", refusal.reason, refusal.message);
        let refused = match entitlement {
            Entitlement::Pod(pod) if refusal.reason != NODE_GONE => {
                let (name, uid) = pod.name_and_uid();
                Some(RefusedEnrolment::of_pod(cluster, name, uid, note))
            }
            _ => {
                let offices = self.desired.iter().flat_map(|desired| &desired.objects.offices);
                let mut office = offices.filter(|(name, _)| name.as_str() == claimed);
                office.next().map(|(name, uid)| RefusedEnrolment::of_office(name.as_str(), uid, note))
            }
        };
        refused.into_iter().for_each(|refused| teller.tell(refused));
    }

    /// Such a node takes no plan of this server, and nothing else shows it.
    pub(super) fn look_for_plan_beyond_belief(&mut self, node: &NodeRef, message: &Message) {
        let Message::Hello(hello) = message else { return };
        let is_quiet = self.plan_ahead_told.is_some_and(|at| at.elapsed() < PLAN_AHEAD_INTERVAL);
        if !is_quiet && self.machine.is_beyond_belief(hello.plan_revision) {
            self.plan_ahead_told = Some(Instant::now());
            tracing::error!(
                %node, revision = hello.plan_revision,
                "the node has a plan with a number that only a clock more than a year ahead can have given, and takes none \
                 of this server: empty its storage, so that it enrols anew"
            );
        }
    }
}

/// A certificate that is renewed is no news: of a large fleet some are renewed every minute.
fn say_enrolled(enrolled: &NodeRef, is_new: bool) {
    let NodeRef { name, office, address } = enrolled;
    if is_new {
        tracing::info!(node = %name, %office, %address, "node enrolled");
    } else {
        tracing::debug!(node = %name, %office, %address, "certificate renewed");
    }
}
