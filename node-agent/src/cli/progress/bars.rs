//! Bars on a terminal: one while the server reads a package, then one an office and package, and a line a link.

use std::collections::BTreeMap;

use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressStyle};

use super::remark;
use crate::report::link_title;
use crate::status::{OfficeStatus, PackageStatus, StatusSnapshot};

/// Most bars on the screen; whatever comes later is counted in the last line.
const BARS_MAX: usize = 40;

pub(super) struct Bars {
    screen: MultiProgress,
    bars: BTreeMap<(String, String), ProgressBar>,
    links: ProgressBar,
}

impl Bars {
    pub(super) fn new(screen: MultiProgress) -> Self {
        let links = screen.add(ProgressBar::new_spinner());
        links.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { screen, bars: BTreeMap::new(), links }
    }

    pub(super) fn update(&mut self, snapshot: &StatusSnapshot) {
        for package in &snapshot.packages {
            self.update_ingest(package);
            for office in &package.offices {
                self.update_office(package, office);
            }
        }
        self.links.set_message(links_line(snapshot));
    }

    pub(super) fn clear(self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
        self.links.finish_and_clear();
    }

    fn update_ingest(&mut self, package: &PackageStatus) {
        let key = (package.title(), String::new());
        if package.digest.is_some() {
            if let Some(bar) = self.bars.remove(&key) {
                bar.finish_and_clear();
            }
            return;
        }
        if let Some(bar) = self.bar(key, "reading") {
            bar.set_length(package.bytes.max(package.bytes_ingested));
            bar.set_position(package.bytes_ingested);
            bar.set_message(error_text(package.remark().map(|remark| remark.message.as_str())));
        }
    }

    fn update_office(&mut self, package: &PackageStatus, office: &OfficeStatus) {
        let label = if office.transit { format!("{} (transit)", office.name) } else { office.name.to_string() };
        let Some(bar) = self.bar((package.title(), office.name.to_string()), &label) else { return };
        bar.set_length(package.bytes.saturating_mul(office.nodes.len() as u64));
        bar.set_position(office.bytes());
        let error = remark(office, |node| node.error.as_ref());
        let said = error.or_else(|| remark(office, |node| node.waits.as_ref())).map(|(_, text)| text);
        let nodes = format!("{}/{} nodes", office.complete_nodes(), office.nodes.len());
        bar.set_message(format!("{nodes}{}", error_text(said.as_deref())));
        if office.is_complete() && !bar.is_finished() {
            bar.abandon();
        }
    }

    fn bar(&mut self, key: (String, String), label: &str) -> Option<&ProgressBar> {
        if !self.bars.contains_key(&key) {
            if self.bars.len() >= BARS_MAX {
                return None;
            }
            let bar = self.screen.insert_before(&self.links, ProgressBar::new(0));
            bar.set_style(bar_style());
            bar.set_prefix(format!("{} {label}", key.0));
            self.bars.insert(key.clone(), bar);
        }
        self.bars.get(&key)
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:40!} {bar:30.green/dim} {percent:>3} %  {binary_bytes:>11}  {binary_bytes_per_sec:>13}  {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("━╸─")
}

fn error_text(error: Option<&str>) -> String {
    error.map(|error| format!("  {error}")).unwrap_or_default()
}

fn links_line(snapshot: &StatusSnapshot) -> String {
    let links = snapshot.links.iter().take(BARS_MAX);
    let texts: Vec<String> = links.map(|link| format!("  {}  {}", link_title(link), BinaryBytes(link.bytes))).collect();
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::status::tests::snapshot_under_way;

    #[test]
    fn bars_follow_offices_and_ingest() {
        let mut bars = Bars::new(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
        let mut snapshot = snapshot_under_way();
        let digest = snapshot.packages[0].digest.take();
        bars.update(&snapshot);
        assert_eq!(bars.bars.len(), 3);
        snapshot.packages[0].digest = digest;
        bars.update(&snapshot);
        assert_eq!(bars.bars.len(), 2);
        let store = &bars.bars[&("retail/pos-app 7.4.1".to_owned(), "store-1".to_owned())];
        assert_eq!((store.position(), store.length()), (60 << 20, Some(200 << 20)));
        assert!(store.message().contains("need 100 MiB"), "{}", store.message());
        assert!(links_line(&snapshot).contains("central → store-1  42.00 MiB"), "{}", links_line(&snapshot));
    }
}
