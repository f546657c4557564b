//! What crossed each link, added up from what nodes say of themselves.

use std::collections::BTreeMap;

use peerdist_core::message::NodeState;
use peerdist_core::names::OfficeName;
use peerdist_core::office::OfficeTree;

use super::LinkStatus;
use crate::metrics::ContentLink;

/// Totals by link.
#[derive(Debug)]
pub struct LinkTotals<'a> {
    offices: &'a OfficeTree,
    totals: BTreeMap<(String, String), (Option<ContentLink>, u64)>,
}

impl<'a> LinkTotals<'a> {
    /// Begins with what the server read from sources.
    pub fn new(offices: &'a OfficeTree, origin_bytes: u64) -> Self {
        let origin = (("origin".to_owned(), "server".to_owned()), (None, origin_bytes));
        Self { offices, totals: BTreeMap::from([origin]) }
    }

    /// Adds what one node received of one package.
    pub fn add(&mut self, office: &OfficeName, state: &NodeState) {
        let parent = self.offices.parent_of(office).map_or_else(|| "server".to_owned(), ToString::to_string);
        let from_server = if self.offices.is_central(office) { state.bytes_from_origin } else { 0 };
        self.add_bytes(parent, office, ContentLink::Wan, state.wan_bytes_received);
        self.add_bytes("server".to_owned(), office, ContentLink::Lan, from_server);
        let from_members = state.lan_bytes_received.saturating_sub(from_server);
        self.add_bytes(office.to_string(), office, ContentLink::Lan, from_members);
    }

    fn add_bytes(&mut self, from: String, to: &OfficeName, link: ContentLink, bytes: u64) {
        if bytes > 0 {
            self.totals.entry((from, to.to_string())).or_insert((Some(link), 0)).1 += bytes;
        }
    }

    /// The links that carried something, and the one to the sources.
    pub fn into_links(self) -> Vec<LinkStatus> {
        self.totals.into_iter().map(|((from, to), (link, bytes))| LinkStatus { from, to, link, bytes }).collect()
    }
}
