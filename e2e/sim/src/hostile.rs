//! Nodes that lie: what they say instead of the truth, and what they do with requests. Their machines are the honest
//! ones; the lies are told between the machine and the network.

use peerdist_core::chunk_set::{ChunkRun, ChunkSet};
use peerdist_core::client::{BroadcastRequest, Output};
use peerdist_core::digest::Digest;
use peerdist_core::message::{Assignment, Grant, Holder, Message, NodeState, PackageDelta, TransferPace, Want};
use peerdist_core::names::NodeName;
use peerdist_core::peer::{ContentClass, MessageClass, NodeRef, Peer};

use crate::stream::Manner;
use crate::world::World;

/// The term of a claim that no honest one can beat.
const USURPED_TERM: u64 = 1 << 40;

/// What a node lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Says that it has everything, and that it has not got it when it is asked.
    Boasts,
    /// Says that it has everything, accepts every request and never sends.
    Silent,
    /// Says that it has everything, opens every transfer and sends nothing in it.
    Stalls,
    /// Says that it has everything, opens every transfer and ends it.
    Ends,
    /// Says that it has everything and sends rubbish.
    Rubbish,
    /// As rendezvous point accepts what child offices ask for and never answers.
    SilentParent,
    /// As rendezvous point names itself to child offices for everything and never sends.
    GreedyParent,
    /// Tells child offices that it is the rendezvous point, and never answers them.
    Usurps,
}

impl Lie {
    /// Lies of members about what they have.
    pub const OF_HOLDERS: [Self; 5] = [Self::Boasts, Self::Silent, Self::Stalls, Self::Ends, Self::Rubbish];

    fn is_of_holder(self) -> bool {
        Self::OF_HOLDERS.contains(&self)
    }

    /// How it sends what it was asked for; none: not at all.
    fn manner(self) -> Option<Manner> {
        match self {
            Self::Stalls => Some(Manner::Stalls),
            Self::Rubbish => Some(Manner::Rubbish),
            _ => None,
        }
    }
}

impl World {
    /// Changes what the machine of a liar wants done. `None` when it is not done at all.
    pub(crate) fn tell_lies(&self, node: &NodeName, output: Output) -> Option<Output> {
        let Some(lie) = self.clients.get(node).and_then(|site| site.lie) else { return Some(output) };
        if !lie.is_of_holder() {
            return Some(output);
        }
        match output {
            // It does not lead, whatever its machine believes: that is another kind of lie.
            Output::Broadcast(BroadcastRequest::Beacon { .. }) => None,
            Output::Send { to, class, message } => {
                let message = self.lie_about_chunks(message)?;
                Some(Output::Send { to, class, message })
            }
            output => Some(output),
        }
    }

    fn lie_about_chunks(&self, mut message: Message) -> Option<Message> {
        match &mut message {
            Message::RendezvousClaim { .. }
            | Message::RendezvousLost { .. }
            | Message::Hello(_)
            | Message::Fetch(_)
            | Message::OfficeReport(_) => return None,
            Message::MemberReport(report) => report.packages.iter_mut().for_each(|delta| self.claim_all(delta)),
            Message::HoldersFound(found) => found.packages.iter_mut().for_each(|delta| self.claim_all(delta)),
            Message::Inventory(inventory) => {
                for package in &mut inventory.packages {
                    package.available = ChunkSet::full(self.chunk_count(package.digest)).to_bytes().into();
                    package.state = complete();
                }
            }
            _ => {}
        }
        Some(message)
    }

    fn claim_all(&self, delta: &mut PackageDelta) {
        delta.available = vec![ChunkRun { first: 0, count: self.chunk_count(delta.digest) }];
        (delta.lost, delta.state) = (Vec::new(), complete());
    }

    /// A message to a liar that it answers itself. The answer is as for honest nodes.
    pub(crate) fn liar_hears(&mut self, node: &NodeName, from: &Peer, message: &Message) -> Option<Option<String>> {
        let site = self.clients.get(node)?;
        let (lie, me, life) = (site.lie?, site.me.clone(), site.life);
        let Peer::Node(asker) = from else { return None };
        match message {
            Message::Want(want) if lie == Lie::Boasts => {
                let has_some = |digest| site.store.package(digest).is_some_and(|package| !package.written.is_empty());
                (!has_some(want.digest)).then(|| Some(peerdist_core::client::MISSING.to_owned()))
            }
            Message::Want(want) if lie.is_of_holder() || lie == Lie::GreedyParent => {
                self.pretend_to_serve(lie, me, life, asker, want);
                Some(None)
            }
            Message::Fetch(_) if lie == Lie::SilentParent || lie == Lie::Usurps => Some(None),
            Message::Fetch(fetch) if lie == Lie::GreedyParent => {
                let (holder, runs) = (Holder::Node(me.clone()), fetch.runs.clone());
                let granted = vec![Assignment { holder, runs, lost_holders: Vec::new() }];
                let (given_before, not_yet) = (Vec::new(), Vec::new());
                let grant = Message::Grant(Grant { digest: fetch.digest, granted, given_before, not_yet });
                self.send(Peer::Node(me), life, from.clone(), MessageClass::Small, grant);
                Some(None)
            }
            _ => None,
        }
    }

    fn pretend_to_serve(&mut self, lie: Lie, me: NodeRef, life: u64, asker: &NodeRef, want: &Want) {
        let same_office = me.office == asker.office;
        let class = if same_office { ContentClass::Foreground } else { ContentClass::Background };
        let runs = if lie == Lie::Ends { &[][..] } else { &want.runs };
        if let Some(manner) = lie.manner().or((lie == Lie::Ends).then_some(Manner::Honest)) {
            let (transfer, digest, pace) = (want.transfer, want.digest, TransferPace::default());
            self.open_stream(Some(me), life, asker.clone(), class, transfer, digest, runs, pace);
            if let Some(stream) = self.streams.get_mut(&self.next_stream) {
                stream.manner = manner;
            }
        }
    }

    /// Usurpers tell every child office again that they lead.
    pub(crate) fn usurp(&mut self) {
        let usurpers = self.clients.values().filter(|site| site.lie == Some(Lie::Usurps) && site.process.is_some());
        let usurpers: Vec<(NodeRef, u64)> = usurpers.map(|site| (site.me.clone(), site.life)).collect();
        for (usurper, life) in usurpers {
            let children: Vec<NodeRef> = self
                .clients
                .values()
                .filter(|site| {
                    let office = self.offices.get(&site.me.office);
                    office.is_some_and(|office| office.office.parent.as_ref() == Some(&usurper.office))
                })
                .map(|site| site.me.clone())
                .collect();
            for child in children {
                let claim = Message::RendezvousClaim { term: USURPED_TERM, plan_revision: 1 };
                self.send(Peer::Node(usurper.clone()), life, Peer::Node(child), MessageClass::Small, claim);
            }
        }
    }

    fn chunk_count(&self, digest: Digest) -> u32 {
        self.catalog.get(digest).map_or(1, |content| content.chunk_count())
    }
}

fn complete() -> NodeState {
    NodeState { complete: true, ..NodeState::default() }
}
