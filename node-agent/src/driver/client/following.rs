//! Whom a node follows, or that it leads: a line in the log when that changes, and only then.

use peerdist_core::client::Client;
use peerdist_core::message::Term;
use peerdist_core::names::NodeName;
use peerdist_core::peer::NodeRef;

/// What was said last. A rendezvous point that is lost for a moment and comes back in its term is no news.
#[derive(Debug, Default)]
pub(super) struct Following(Option<(NodeName, Term)>);

impl Following {
    /// Says whom the node follows now, if that is news.
    pub(super) fn look(&mut self, node: &NodeName, machine: &Client) {
        let (term, is_leading) = (machine.term(), machine.is_rendezvous_point());
        let Some(leader) = machine.rendezvous_point().filter(|leader| self.is_news(leader, term)) else { return };
        if is_leading {
            tracing::info!(%node, term, "leading the office");
        } else {
            tracing::info!(%node, rendezvous_point = %leader.name, address = %leader.address, term, "following");
        }
        self.0 = Some((leader.name.clone(), term));
    }

    fn is_news(&self, leader: &NodeRef, term: Term) -> bool {
        self.0.as_ref().is_none_or(|(name, known)| *name != leader.name || *known != term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeRef {
        NodeRef {
            name: name.parse().unwrap(),
            office: "store".parse().unwrap(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }

    #[test]
    fn only_another_rendezvous_point_and_another_term_are_news() {
        let mut following = Following::default();
        assert!(following.is_news(&node("one"), 1));
        following.0 = Some((node("one").name, 1));
        assert!(!following.is_news(&node("one"), 1));
        assert!(following.is_news(&node("two"), 1));
        assert!(following.is_news(&node("one"), 2));
    }
}
