//! Plain lines where there is no terminal: a line an office and package when it has moved by a step or there is
//! something new to say of it, not too often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;

use super::remark;
use crate::status::{OfficeStatus, PackageStatus, StatusError, StatusSnapshot};

/// Progress that is worth a line.
const STEP_PERCENT: u8 = 10;
/// Least time between two lines of the same office and package; the last line does not wait.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Remembers what was said last.
#[derive(Default)]
pub(super) struct PlainLines {
    said: BTreeMap<(String, String), Said>,
}

struct Said {
    percent: u8,
    at: Instant,
    error: Option<String>,
    /// Reason words of what nodes waited for, each of which is said once.
    waits: BTreeSet<String>,
}

impl PlainLines {
    /// The lines that are due.
    pub(super) fn lines(&mut self, snapshot: &StatusSnapshot, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for package in &snapshot.packages {
            lines.extend(self.ingest_line(package, now));
            for office in &package.offices {
                lines.extend(self.office_line(package, office, now));
            }
        }
        lines
    }

    fn ingest_line(&mut self, package: &PackageStatus, now: Instant) -> Option<String> {
        let read = package.digest.is_some();
        let percent = crate::status::percent(package.bytes_ingested, package.bytes, read);
        let error = package.remark().map(|remark| remark.message.clone());
        let title = package.title();
        if !self.is_due((title.clone(), String::new()), percent, error.as_deref(), None, now) {
            return None;
        }
        let bytes = BinaryBytes(package.bytes_ingested);
        let what = if read { "in the library".to_owned() } else { format!("read {bytes}") };
        Some(format!("{title}: {what}{}", remarks_text(error)))
    }

    fn office_line(&mut self, package: &PackageStatus, office: &OfficeStatus, now: Instant) -> Option<String> {
        let percent = office.percent(package.bytes);
        let title = package.title();
        let key = (title.clone(), office.name.to_string());
        let said = self.said.get(&key);
        let is_new = |waits: &StatusError| said.is_none_or(|said| !said.waits.contains(&waits.reason));
        let error = remark(office, |node| node.error.as_ref()).map(|(_, text)| text);
        let waits = remark(office, |node| node.waits.as_ref().filter(|waits| is_new(waits)));
        let reason = waits.as_ref().map(|(waits, _)| waits.reason.as_str());
        if !self.is_due(key, percent, error.as_deref(), reason, now) {
            return None;
        }
        let (complete, nodes) = (office.complete_nodes(), office.nodes.len());
        let part = if office.transit { " (transit)" } else { "" };
        let remarks = remarks_text(error.into_iter().chain(waits.map(|(_, text)| text)));
        Some(format!("{title}: {}{part} {percent} %, {complete}/{nodes} nodes{remarks}", office.name))
    }

    /// Whether a line is due, which is then taken as said. `waits` is the reason word of a wait that was not said yet.
    fn is_due(
        &mut self,
        key: (String, String),
        percent: u8,
        error: Option<&str>,
        waits: Option<&str>,
        now: Instant,
    ) -> bool {
        let said = self.said.get(&key);
        let due = said.is_none_or(|said| {
            let finished = percent == 100 && said.percent < 100;
            let step = percent / STEP_PERCENT != said.percent / STEP_PERCENT;
            let new_error = error.is_some() && said.error.as_deref() != error;
            let news = step || new_error || waits.is_some();
            finished || (news && now.duration_since(said.at) >= LINE_INTERVAL)
        });
        if due {
            let before = said.map(|said| said.waits.clone()).unwrap_or_default();
            let waits = before.into_iter().chain(waits.map(str::to_owned)).collect();
            self.said.insert(key, Said { percent, at: now, error: error.map(str::to_owned), waits });
        }
        due
    }
}

fn remarks_text(remarks: impl IntoIterator<Item = String>) -> String {
    remarks.into_iter().map(|remark| format!(": {remark}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::snapshot_under_way;

    #[test]
    fn line_comes_with_a_step_but_not_too_often() {
        let mut plain = PlainLines::default();
        let start = Instant::now();
        let mut snapshot = snapshot_under_way();
        assert_eq!(
            plain.lines(&snapshot, start),
            [
                "retail/pos-app 7.4.1: in the library",
                "retail/pos-app 7.4.1: central (transit) 100 %, 1/1 nodes",
                "retail/pos-app 7.4.1: store-1 30 %, 0/2 nodes: store-1-2: need 100 MiB, have 3 MiB on /data",
            ]
        );
        let later = start + LINE_INTERVAL;
        assert!(plain.lines(&snapshot, later).is_empty(), "nothing moved");
        snapshot.packages[0].offices[1].nodes[0].bytes = 80 << 20;
        assert!(plain.lines(&snapshot, start + LINE_INTERVAL / 2).is_empty(), "too early");
        assert_eq!(plain.lines(&snapshot, later).len(), 1);
        for node in &mut snapshot.packages[0].offices[1].nodes {
            (node.complete, node.error) = (true, None);
        }
        assert_eq!(plain.lines(&snapshot, later), ["retail/pos-app 7.4.1: store-1 100 %, 2/2 nodes"]);
    }

    #[test]
    fn why_a_node_waits_is_said_once() {
        let mut plain = PlainLines::default();
        let start = Instant::now();
        let mut snapshot = snapshot_under_way();
        snapshot.packages[0].offices[1].nodes[1].error = None;
        plain.lines(&snapshot, start);
        let silent = StatusError { reason: "ParentSilent".into(), message: "central-1 has sent nothing".into() };
        snapshot.packages[0].offices[1].nodes[0].waits = Some(silent);
        let line = "retail/pos-app 7.4.1: store-1 30 %, 0/2 nodes: store-1-1: central-1 has sent nothing";
        assert_eq!(plain.lines(&snapshot, start + LINE_INTERVAL), [line]);
        assert!(plain.lines(&snapshot, start + LINE_INTERVAL * 2).is_empty(), "it waits still");
        snapshot.packages[0].offices[1].nodes[1].bytes = 60 << 20;
        let moved = "retail/pos-app 7.4.1: store-1 50 %, 0/2 nodes";
        assert_eq!(plain.lines(&snapshot, start + LINE_INTERVAL * 3), [moved]);
    }
}
