//! What an office through which a package only passes loses with one of its nodes: chunks that this node alone had and
//! that offices below are still going to ask for. Nobody can bring them but the parent once more. An office that
//! publishes the package is not meant: there a second node has all but what the window bounds.

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::digest::Digest;
use peerdist_core::distribution::Distribution;
use peerdist_core::names::OfficeName;
use peerdist_core::office::OfficeType;
use peerdist_core::peer::NodeRef;

use crate::client_site::ClientSite;
use crate::content::Content;
use crate::scenario::SimulatedOffice;
use crate::world::World;

impl World {
    /// Bytes of each package that the office of the node has to ask its parent for again when the node dies now.
    pub(crate) fn passing_only_through(&self, node: &NodeRef) -> Vec<(Digest, u64)> {
        let passing = self.distributions.values().filter(|distribution| {
            self.offices.get(&node.office).is_some_and(|simulated| !distribution.offices.matches(&simulated.office))
        });
        let lost = passing.filter_map(|distribution| {
            let content = self.catalog.find(&distribution.package())?;
            let mut lost = written(self.clients.get(&node.name)?, content);
            lost.subtract(&self.present(&node.office, content, |other| other.me.name != node.name));
            lost.intersect_with(&self.asked_by_children(&node.office, distribution, content));
            let bytes = lost.iter().map(|index| u64::from(content.lengths[index as usize])).sum();
            Some((content.digest, bytes))
        });
        lost.collect()
    }

    /// What some office below is still going to ask this one for.
    fn asked_by_children(&self, office: &OfficeName, distribution: &Distribution, content: &Content) -> ChunkSet {
        let mut asked = ChunkSet::new(content.chunk_count());
        let children = self.offices.values().filter(|simulated| simulated.office.parent.as_ref() == Some(office));
        children.for_each(|child| asked.union_with(&self.asked_by(child, distribution, content)));
        asked
    }

    /// What an office is still going to ask its parent for.
    fn asked_by(&self, simulated: &SimulatedOffice, distribution: &Distribution, content: &Content) -> ChunkSet {
        let office = &simulated.office;
        if !distribution.offices.matches(office) {
            let mut asked = self.asked_by_children(&office.name, distribution, content);
            asked.subtract(&self.present(&office.name, content, |_| true));
            return asked;
        }
        if office.office_type != OfficeType::Vpn {
            return self.present(&office.name, content, |_| true).complement();
        }
        let mut asked = ChunkSet::new(content.chunk_count());
        let nodes = self.clients.values().filter(|site| site.me.office == office.name);
        nodes.for_each(|site| asked.union_with(&written(site, content).complement()));
        asked
    }

    /// What some of the honest nodes of an office have that run now.
    fn present(&self, office: &OfficeName, content: &Content, which: impl Fn(&ClientSite) -> bool) -> ChunkSet {
        let mut present = ChunkSet::new(content.chunk_count());
        let running = self.clients.values().filter(|site| site.me.office == *office && site.process.is_some());
        let nodes = running.filter(|site| site.lie.is_none() && which(site));
        nodes.for_each(|site| present.union_with(&written(site, content)));
        present
    }
}

fn written(site: &ClientSite, content: &Content) -> ChunkSet {
    let on_disk = site.store.package(content.digest);
    on_disk.map_or_else(|| ChunkSet::new(content.chunk_count()), |package| package.written.clone())
}
