//! The summary at the end of a run: packages by office, what crossed each link, bytes by class, where the time went,
//! what was kept back and what failed.

use std::fmt::Write;

use indicatif::BinaryBytes;

use super::{ErrorReport, PackageReport, RunReport, TimeSpent};
use crate::cli::text_table::TextTable;
use crate::metrics::ContentLink;
use crate::status::LinkStatus;

pub(super) fn render(report: &RunReport) -> String {
    let mut text = packages(&report.packages);
    if !report.links.is_empty() {
        let _ = write!(text, "\n{}", links(&report.links));
    }
    let _ = write!(text, "\n{}", classes(report));
    let _ = write!(text, "\n{}", time(&report.time));
    let kept_back = kept_back(&report.packages);
    if !kept_back.is_empty() {
        let _ = write!(text, "\n{kept_back}");
    }
    if !report.errors.is_empty() {
        let _ = write!(text, "\n{}", errors(&report.errors));
    }
    text
}

fn packages(packages: &[PackageReport]) -> String {
    let mut table = TextTable::new(["PACKAGE", "VERSION", "SIZE", "OFFICE", "NODES", "WAN", "LAN", "SECONDS"])
        .right_aligned([2, 4, 5, 6, 7]);
    for package in packages {
        let mut lead =
            [format!("{}/{}", package.namespace, package.name), package.version.to_string(), size(package.bytes)];
        if package.offices.is_empty() {
            let [name, version, size] = lead;
            table.row([
                name,
                version,
                size,
                "nowhere".to_owned(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ]);
            continue;
        }
        for office in &package.offices {
            let [name, version, size_text] = std::mem::take(&mut lead);
            let nodes = format!("{}/{}", office.complete, office.nodes);
            let (wan, lan) = (size(office.wan_bytes_received), size(office.lan_bytes_received));
            let seconds = format!("{:.1}", office.seconds);
            table.row([name, version, size_text, office.name.to_string(), nodes, wan, lan, seconds]);
        }
    }
    table.render()
}

fn links(links: &[LinkStatus]) -> String {
    let mut table = TextTable::new(["LINK", "KIND", "CONTENT"]).right_aligned([2]);
    for link in links {
        table.row([link_title(link), link_kind(link).to_owned(), size(link.bytes)]);
    }
    table.render()
}

fn classes(report: &RunReport) -> String {
    let mut table = TextTable::new(["TRANSFER CLASS", "SENT", "RECEIVED"]).right_aligned([1, 2]);
    for (class, totals) in &report.classes {
        table.row([class.to_string(), size(totals.bytes_sent), size(totals.bytes_received)]);
    }
    table.render()
}

fn time(time: &TimeSpent) -> String {
    format!(
        "Busy, all roles together: source {:.1} s, hash {:.1} s, network {:.1} s, disk {:.1} s. The run took {:.1} s.\n",
        time.source.as_secs_f64(),
        time.hash.as_secs_f64(),
        time.network.as_secs_f64(),
        time.disk.as_secs_f64(),
        time.run.as_secs_f64()
    )
}

/// A line for each package that nothing failed for and whose object keeps it back.
fn kept_back(packages: &[PackageReport]) -> String {
    let line = |package: &PackageReport| {
        let waits = package.waits.as_ref()?;
        let PackageReport { namespace, name, version, .. } = package;
        Some(format!("not distributed: {namespace}/{name} {version}: {}\n", waits.message))
    };
    packages.iter().filter_map(line).collect()
}

fn errors(errors: &[ErrorReport]) -> String {
    let line = |error: &ErrorReport| {
        let field = if error.field.is_empty() { String::new() } else { format!(", {}", error.field) };
        format!("error: {}{field}: {} ({})\n", error.object, error.message, error.reason)
    };
    errors.iter().map(line).collect()
}

/// `central → store-1`, or `inside store-1`.
pub(crate) fn link_title(link: &LinkStatus) -> String {
    if link.from == link.to { format!("inside {}", link.to) } else { format!("{} → {}", link.from, link.to) }
}

fn link_kind(link: &LinkStatus) -> &'static str {
    match link.link {
        None => "source",
        Some(ContentLink::Wan) => "WAN",
        Some(ContentLink::Lan) => "LAN",
    }
}

fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}
