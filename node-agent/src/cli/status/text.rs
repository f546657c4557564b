//! The status as people read it: a line a package, a bar an office, a line a node.

use std::fmt::Write;

use indicatif::{BinaryBytes, HumanDuration};

use crate::cli::text_table::TextTable;
use crate::status::{NodeStatus, OfficeStatus, PackageStatus, StatusError, StatusSnapshot};

/// Characters of a bar.
const BAR_WIDTH: usize = 20;

pub(super) fn render(snapshot: &StatusSnapshot) -> String {
    if snapshot.packages.is_empty() {
        return "No packages.\n".to_owned();
    }
    let packages: Vec<String> = snapshot.packages.iter().map(package).collect();
    packages.join("\n")
}

fn package(package: &PackageStatus) -> String {
    let mut text = format!("{}  {}  {}", package.title(), package.state, BinaryBytes(package.bytes));
    if let Some(digest) = package.digest {
        let _ = write!(text, "  {digest}");
    }
    text.push('\n');
    if let Some(error) = &package.error {
        let _ = writeln!(text, "  error: {}", describe(error));
    }
    if let Some(waits) = &package.waits {
        let _ = writeln!(text, "  {}", describe(waits));
    }
    for office in &package.offices {
        text += &office_heading(office, package.bytes);
    }
    text + &nodes(package)
}

fn office_heading(office: &OfficeStatus, package_bytes: u64) -> String {
    let percent = office.percent(package_bytes);
    let part = if office.targeted { "" } else { "  (transit)" };
    let (complete, count) = (office.complete_nodes(), office.nodes.len());
    format!("  {} {percent:>3} %  {complete}/{count}  {}{part}\n", bar(percent), office.name)
}

fn nodes(package: &PackageStatus) -> String {
    let mut table =
        TextTable::new(["  NODE", "BYTES", "%", "RATE", "LEFT", "FROM", "LAST ERROR"]).right_aligned([1, 2, 3, 4]);
    let nodes: Vec<&NodeStatus> = package.offices.iter().flat_map(|office| &office.nodes).collect();
    if nodes.is_empty() {
        return String::new();
    }
    for node in nodes {
        table.row([
            format!("  {}", node.name),
            BinaryBytes(node.bytes).to_string(),
            node.percent.to_string(),
            if node.complete { "-".to_owned() } else { format!("{}/s", BinaryBytes(node.rate_bytes_per_second)) },
            time_left(node),
            node.source.map(|source| source.to_string()).unwrap_or_default(),
            node.error.as_ref().or(node.waits.as_ref()).map(describe).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn describe(error: &StatusError) -> String {
    format!("{} ({})", error.message, error.reason)
}

fn time_left(node: &NodeStatus) -> String {
    match node.eta_seconds {
        _ if node.complete => "done".to_owned(),
        Some(seconds) => format!("{:#}", HumanDuration(std::time::Duration::from_secs(seconds))),
        None => "-".to_owned(),
    }
}

fn bar(percent: u8) -> String {
    let filled = usize::from(percent.min(100)) * BAR_WIDTH / 100;
    format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR_WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::check_golden;
    use crate::status::tests::snapshot_under_way;

    #[test]
    fn status_is_for_people() {
        check_golden("status.txt", &render(&snapshot_under_way()));
    }
}
