//! What the server hears of the office.

use std::time::Instant;

use super::FAILURES_TO_BRING_IN;
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
                // What only nodes claim that do not deliver, the office has to be given.
                let doubted = leading.doubted(now, &self.config.me.name, &package.planned, FAILURES_TO_BRING_IN);
                let available = leading.view.spread(now, digest, package.capacity(), &doubted).0;
                let available = available.to_bytes().into();
                OfficePackage { digest, available, nodes }
            })
            .collect();
        let report = OfficeReport { term: self.election.term(), plan_revision: self.revision(), packages };
        let class = if self.config.central { MessageClass::Foreground } else { MessageClass::Background };
        self.send(Peer::Server, class, Message::OfficeReport(report));
    }
}

#[cfg(test)]
mod tests {
    use crate::client::fixture::{client, drain, lead, node, pass, plan, planned, prepare, start, take_plan};
    use crate::client::{Client, Event, OFFICE_REPORT_INTERVAL, Output};
    use crate::distribution::Priority;
    use crate::message::Message;
    use crate::office::OfficeType;
    use crate::peer::ContentClass;

    /// What the node itself received over the WAN, in each report to the server.
    fn told(client: &mut Client) -> Vec<u64> {
        let reports = drain(client).into_iter().filter_map(|output| match output {
            Output::Send { message: Message::OfficeReport(report), .. } => Some(report),
            _ => None,
        });
        let nodes = reports.flat_map(|report| report.packages).flat_map(|package| package.nodes);
        nodes.filter(|(node, _)| node.as_str() == "store-1").map(|(_, state)| state.wan_bytes_received).collect()
    }

    #[test]
    fn what_came_since_the_last_report_is_told_when_the_node_ends() {
        let (mut client, now) = client(OfficeType::Wired);
        let package = planned("package", Priority::Normal);
        let mut plan = plan(OfficeType::Wired, vec![package.clone()]);
        take_plan(&mut client, now, &mut plan);
        let now = lead(&mut client, now);
        prepare(&mut client, now, package.digest, 0);
        let now = pass(&mut client, now, OFFICE_REPORT_INTERVAL * 2);
        assert_eq!(told(&mut client).last(), Some(&0));
        let transfer = start(&mut client, now, node("central", "central-1"), ContentClass::Background, package.digest);
        client.handle(now, Event::ChunkStored { transfer, index: 0 });
        assert!(told(&mut client).is_empty(), "it is not time yet");
        client.report_at_last(now);
        assert_eq!(told(&mut client), [1_000]);
    }
}
