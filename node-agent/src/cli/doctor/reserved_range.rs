//! The catalogue's ports lie inside Linux's ephemeral range: reserved, no outgoing call gets one by chance.

use std::fs;
use std::ops::RangeInclusive;

use peerdist_core::ports::{PORT_RANGE, ROWS};

use super::Finding;

const CHECK: &str = "reserved range";
/// Where Linux keeps the list.
pub(in crate::cli) const RESERVED_FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const EPHEMERAL_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub(in crate::cli) fn check() -> Finding {
    match (fs::read_to_string(RESERVED_FILE), fs::read_to_string(EPHEMERAL_FILE)) {
        (Ok(reserved), Ok(ephemeral)) => judge(reserved.trim(), ephemeral.trim()),
        (Err(error), _) => Finding::warn(CHECK, format!("{RESERVED_FILE}: {error}"), "check it by hand"),
        (_, Err(error)) => Finding::warn(CHECK, format!("{EPHEMERAL_FILE}: {error}"), "check it by hand"),
    }
}

fn judge(reserved: &str, ephemeral: &str) -> Finding {
    let (first, last) = (PORT_RANGE.start(), PORT_RANGE.end());
    let reserved_ranges = parse_ranges(reserved);
    let covers = |ranges: &[RangeInclusive<u16>], port: u16| ranges.iter().any(|range| range.contains(&port));
    let ephemeral_range = parse_ephemeral(ephemeral);
    let exposed =
        ROWS.iter().filter(|row| covers(ephemeral_range.as_slice(), row.port) && !covers(&reserved_ranges, row.port));
    if exposed.count() == 0 {
        return Finding::ok(CHECK, format!("{first}-{last} cannot be taken by outgoing calls"));
    }
    let merged = merged(reserved).unwrap_or_else(|| reserved.to_owned());
    Finding::warn(
        CHECK,
        format!("{first}-{last} lies in the ephemeral range {} and is not reserved", ephemeral.replace('\t', "-")),
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={merged}, and the same in /etc/sysctl.d to keep it"),
    )
}

/// The list with our range in it; `None`: it is there already.
pub(in crate::cli) fn merged(reserved: &str) -> Option<String> {
    let ranges = parse_ranges(reserved);
    if PORT_RANGE.into_iter().all(|port| ranges.iter().any(|range| range.contains(&port))) {
        return None;
    }
    let own = format!("{}-{}", PORT_RANGE.start(), PORT_RANGE.end());
    Some(if reserved.is_empty() { own } else { format!("{reserved},{own}") })
}

/// `8080,9148,34320-34760`; what is no port is skipped.
fn parse_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        })
        .collect()
}

/// Two numbers with a tab between.
fn parse_ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    #[test]
    fn range_must_be_reserved_where_it_is_ephemeral() {
        for (reserved, ephemeral, expected) in [
            ("", "32768\t60999", Severity::Warn),
            ("8080", "32768\t60999", Severity::Warn),
            ("34320-34700", "32768\t60999", Severity::Warn),
            ("80,34000-35000", "32768\t60999", Severity::Ok),
            ("34320-34550,34750,34760", "32768\t60999", Severity::Ok),
            ("", "49152\t65535", Severity::Ok),
        ] {
            assert_eq!(judge(reserved, ephemeral).severity, expected, "{reserved} {ephemeral}");
        }
        assert!(judge("8080", "32768\t60999").advice.contains("=8080,34320-34760"));
    }

    #[test]
    fn range_is_merged_once_and_nothing_of_others_is_lost() {
        assert_eq!(merged("").as_deref(), Some("34320-34760"));
        assert_eq!(merged("8080,34320-34700").as_deref(), Some("8080,34320-34700,34320-34760"));
        assert_eq!(merged("8080,34000-35000"), None);
        assert_eq!(merged(&merged("8080").unwrap()), None);
    }
}
