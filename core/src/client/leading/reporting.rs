//! What the server hears of the office.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::client::{Client, OFFICE_REPORT_INTERVAL};
use crate::message::{Message, OfficePackage, OfficeReport};
use crate::peer::{MessageClass, Peer};

impl Client {
    pub(super) fn report_office(&mut self, now: Instant) {
        let Some(leading) = &mut self.leading else { return };
        let planned_complete = self.packages.values().any(|package| package.completion_due);
        if leading.office_report_at > now && !planned_complete {
            return;
        }
        leading.office_report_at = now + OFFICE_REPORT_INTERVAL;
        let packages = self
            .packages
            .values()
            .filter(|package| !package.superseded)
            .map(|package| {
                let digest = package.planned.digest;
                let nodes = leading
                    .view
                    .members()
                    .filter_map(|member| Some((member.node.name.clone(), member.packages.get(&digest)?.state.clone())))
                    .chain((!package.is_prepared()).then(|| (self.config.me.name.clone(), package.state.clone())))
                    .collect();
                let available = leading.view.spread(now, digest, package.capacity(), &BTreeSet::new()).0;
                let available = available.to_bytes().into();
                OfficePackage { digest, available, nodes }
            })
            .collect();
        let report = OfficeReport { term: self.election.term(), plan_revision: self.revision(), packages };
        let class = if self.config.central { MessageClass::Foreground } else { MessageClass::Background };
        self.send(Peer::Server, class, Message::OfficeReport(report));
    }
}
