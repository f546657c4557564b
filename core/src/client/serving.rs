//! What this node sends to others: members of its office in the foreground, child offices in the background.

use super::Client;
use super::event::{BUSY, MISSING, NOT_GRANTED, NOT_READY, Output, Refusal};
use crate::chunk_set::ChunkSet;
use crate::message::Want;
use crate::peer::{ContentClass, NodeRef};

/// Most transfers that a node sends at once.
const SERVING_MAX: usize = 256;

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
        if self.serving.len() >= SERVING_MAX {
            return Err(Refusal::new(BUSY, format!("{SERVING_MAX} transfers run already")));
        }
        self.serving.insert((from.name.clone(), want.transfer));
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
