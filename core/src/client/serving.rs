//! What this node sends to others: members of its office in the foreground, child offices in the background.

use std::collections::BTreeSet;

use super::Client;
use super::event::{BUSY, MISSING, NOT_GRANTED, NOT_READY, Output, Refusal};
use crate::chunk_set::ChunkSet;
use crate::message::{TransferId, Want};
use crate::names::NodeName;
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
    pub(super) fn take_want(&mut self, from: &NodeRef, want: Want) -> Result<(), Refusal> {
        let same_office = from.office == self.config.me.office;
        let Some(package) = self.packages.get(&want.digest) else {
            return Err(Refusal::new(NOT_READY, "this node does not plan the package"));
        };
        let class = if same_office && self.config.office_type.shares() {
            ContentClass::Foreground
        } else if !same_office && package.planned.granted_children.contains(&from.office) {
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
