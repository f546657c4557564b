//! What this node sends to others: members of its office in the foreground, child offices in the background.

use std::collections::BTreeSet;

use super::Client;
use super::event::{BUSY, MISSING, NOT_GRANTED, NOT_READY, Output, Refusal};
use crate::chunk_set::ChunkSet;
use crate::digest::Digest;
use crate::message::{TransferId, Want};
use crate::names::{NodeName, OfficeName};
use crate::peer::{ContentClass, NodeRef};

/// Most transfers that a node sends at once.
const SERVING_MAX: usize = 256;
/// So many receivers find a place at least: none has more than its share of them.
const RECEIVERS_MIN: usize = 4;

/// Notes a transfer that begins.
///
/// # Errors
/// [`BUSY`] when it runs already, or too many do.
pub(crate) fn begin_serving(
    serving: &mut BTreeSet<(NodeName, TransferId)>,
    most: usize,
    to: &NodeName,
    transfer: TransferId,
) -> Result<(), Refusal> {
    let of_receiver = (to.clone(), TransferId::MIN)..=(to.clone(), TransferId::MAX);
    if serving.len() >= most || serving.range(of_receiver).count() >= most / RECEIVERS_MIN {
        return Err(Refusal::new(BUSY, format!("{} transfers run already", serving.len())));
    }
    if !serving.insert((to.clone(), transfer)) {
        return Err(Refusal::new(BUSY, format!("transfer {transfer} runs already")));
    }
    Ok(())
}

impl Client {
    /// Whether the plan in force lets a child office have the package from here.
    pub(super) fn is_granted(&self, office: &OfficeName, digest: Digest) -> bool {
        let place = self.plan.as_ref().and_then(|plan| plan.place_of_child(office));
        let Some((place, package)) = place.zip(self.packages.get(&digest)) else { return false };
        !package.superseded && package.planned.granted_children.contains(place)
    }

    pub(super) fn take_want(&mut self, from: &NodeRef, want: Want) -> Result<(), Refusal> {
        let same_office = from.office == self.config.me.office;
        let granted = self.is_granted(&from.office, want.digest);
        let Some(package) = self.packages.get(&want.digest) else {
            return Err(Refusal::new(NOT_READY, "this node does not plan the package"));
        };
        let class = if same_office && self.config.office_type.shares() {
            ContentClass::Foreground
        } else if !same_office && granted {
            ContentClass::Background
        } else {
            return Err(Refusal::new(
                NOT_GRANTED,
                format!("office {} may not have this package from here", from.office),
            ));
        };
        let mut here = ChunkSet::new(package.capacity());
        here.insert_runs(&want.runs);
        here.intersect_with(&package.available);
        let runs = here.runs();
        if runs.is_empty() {
            return Err(Refusal::new(MISSING, "none of these chunks is here"));
        }
        begin_serving(&mut self.serving, SERVING_MAX, &from.name, want.transfer)?;
        self.outputs.push_back(Output::Serve {
            to: from.clone(),
            class,
            transfer: want.transfer,
            digest: want.digest,
            runs,
            pace: want.pace,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fixture::{client, plan, planned, take_plan};
    use crate::distribution::Priority;
    use crate::names::Version;
    use crate::office::OfficeType;
    use crate::plan::ChildOffice;

    #[test]
    fn grant_belongs_to_a_child_and_not_to_its_place_in_the_plan() {
        let children = |names: &[&str]| -> Vec<ChildOffice> {
            let name = |name: &&str| OfficeName::new(name).unwrap();
            let of = |name| ChildOffice { name, office_type: OfficeType::Wired, nodes: Vec::new() };
            names.iter().map(name).map(of).collect()
        };
        let (mut client, now) = client(OfficeType::Wired);
        let mut package = planned("package", Priority::Normal);
        package.granted_children = [1].into_iter().collect();
        let mut plan = plan(OfficeType::Wired, vec![package.clone()]);
        plan.children = children(&["depot", "kiosk"]);
        take_plan(&mut client, now, &mut plan);
        let granted = |client: &Client| {
            ["annex", "depot", "kiosk", "stranger"]
                .map(|name| client.is_granted(&OfficeName::new(name).unwrap(), package.digest))
        };
        assert_eq!(granted(&client), [false, false, true, false]);
        plan.children = children(&["annex", "depot", "kiosk"]);
        plan.packages[0].granted_children = [2].into_iter().collect();
        take_plan(&mut client, now, &mut plan);
        assert_eq!(granted(&client), [false, false, true, false]);
        // Of a version that another one replaces no grant is left, whatever its bits would mean in this plan.
        let newer = &mut plan.packages[0];
        (newer.key.version, newer.digest) = (Version::new("2").unwrap(), Digest::of(b"2"));
        take_plan(&mut client, now, &mut plan);
        assert_eq!(granted(&client), [false; 4]);
    }

    #[test]
    fn one_receiver_cannot_take_all_places_nor_ask_for_a_transfer_twice() {
        let [greedy, other] = ["greedy", "other"].map(|name| NodeName::new(name).unwrap());
        let mut serving = BTreeSet::new();
        begin_serving(&mut serving, SERVING_MAX, &greedy, 0).unwrap();
        assert_eq!(begin_serving(&mut serving, SERVING_MAX, &greedy, 0).unwrap_err().reason, BUSY);
        let begun = (1..SERVING_MAX as u64).filter(|&id| begin_serving(&mut serving, SERVING_MAX, &greedy, id).is_ok());
        assert_eq!(begun.count() + 1, SERVING_MAX / RECEIVERS_MIN);
        begin_serving(&mut serving, SERVING_MAX, &other, 0).unwrap();
        let most = serving.len();
        assert!(begin_serving(&mut serving, most, &other, 1).is_err());
    }
}
