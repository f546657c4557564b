//! Reads the named nftables counters of a host and the flows that were dropped.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use anyhow::{Context, Result};
use peerdist_core::ports::ROWS;
use serde_json::Value;

use crate::ruleset::{DROPPED_FLOWS, DROPPED_IN, DROPPED_OUT, Direction, TABLE, row_counter};
use crate::shell;

/// Packets and bytes (with IP and UDP headers) that a rule matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets; a train that the kernel has not cut yet counts once.
    pub packets: u64,
    /// Bytes, IP and UDP headers included.
    pub bytes: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// The counters of one host, or the sum over several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    by_name: BTreeMap<String, Count>,
}

impl Counters {
    /// Reads the counters of the harness in a network namespace.
    ///
    /// # Errors
    /// As [`Self::of_table`].
    pub fn read(namespace: &str) -> Result<Self> {
        Self::of_table(namespace, TABLE)
    }

    /// Reads the counters of a table in a network namespace.
    ///
    /// # Errors
    /// When nft fails or prints something else than its documented JSON.
    pub fn of_table(namespace: &str, table: &str) -> Result<Self> {
        let arguments = ["netns", "exec", namespace, "nft", "-j", "list", "counters", "table", "inet", table];
        Self::parse(&shell::run("ip", &arguments)?)
    }

    fn parse(json: &str) -> Result<Self> {
        let objects = objects(json)?;
        let counters = objects.iter().filter_map(|object| object.get("counter"));
        let named = |counter: &Value| Some((counter["name"].as_str()?.to_owned(), count(counter)?));
        Ok(Self { by_name: counters.filter_map(named).collect() })
    }

    /// Adds the counters of another host.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.by_name {
            *self.by_name.entry(name.clone()).or_default() += *count;
        }
    }

    /// A counter by its name; zero when no rule has it.
    pub fn of(&self, name: &str) -> Count {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    /// What rows with this destination port matched in one direction.
    pub fn of_port(&self, port: u16, direction: Direction) -> Count {
        let mut sum = Count::default();
        for position in (0..ROWS.len()).filter(|position| ROWS[*position].port == port) {
            sum += self.of(&row_counter(position, direction));
        }
        sum
    }

    /// Packets that no row covers.
    pub fn dropped(&self) -> u64 {
        self.of(DROPPED_IN).packets + self.of(DROPPED_OUT).packets
    }

    /// One line a row, for people.
    pub fn report(&self) -> String {
        let mut lines = String::from("table  from    to      port         packets in/out            bytes in/out\n");
        for (position, row) in ROWS.iter().enumerate() {
            let [received, sent] = [Direction::In, Direction::Out].map(|to| self.of(&row_counter(position, to)));
            let (from, to) = (format!("{:?}", row.from), format!("{:?}", row.to));
            lines += &format!(
                "{:>5}  {from:<7} {to:<7} {} {:>11}/{:<11} {:>13}/{:<13}\n",
                row.table, row.port, received.packets, sent.packets, received.bytes, sent.bytes
            );
        }
        lines
    }
}

/// Flows behind the drop counters of a namespace, one sentence each.
///
/// # Errors
/// As [`Counters::read`].
pub fn dropped_flows(namespace: &str) -> Result<Vec<String>> {
    let arguments = ["netns", "exec", namespace, "nft", "-j", "list", "set", "inet", TABLE, DROPPED_FLOWS];
    parse_flows(&shell::run("ip", &arguments)?)
}

fn parse_flows(json: &str) -> Result<Vec<String>> {
    let objects = objects(json)?;
    let sets = objects.iter().filter_map(|object| object.get("set"));
    let elements = sets.filter_map(|set| set["elem"].as_array()).flatten();
    Ok(elements.map(|element| flow(&element["elem"])).collect())
}

fn flow(element: &Value) -> String {
    let part = |index: usize| match &element["val"]["concat"][index] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let packets = &element["counter"]["packets"];
    format!("{} {}:{} -> {}:{}, {packets} packets", part(0), part(1), part(3), part(2), part(4))
}

fn objects(json: &str) -> Result<Vec<Value>> {
    let document: Value = serde_json::from_str(json).context("nft did not print JSON")?;
    document["nftables"].as_array().cloned().context("nft printed JSON without `nftables`")
}

fn count(counter: &Value) -> Option<Count> {
    Some(Count { packets: counter["packets"].as_u64()?, bytes: counter["bytes"].as_u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_added() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "row_22_in", "table": "peerdist", "packets": 3, "bytes": 400}},
            {"counter": {"family": "inet", "name": "dropped_in", "table": "peerdist", "packets": 1, "bytes": 60}}]}"#;
        let mut counters = Counters::parse(json).unwrap();
        assert_eq!(counters.of_port(34750, Direction::In), Count { packets: 3, bytes: 400 });
        counters.add(&Counters::parse(json).unwrap());
        assert_eq!(counters.of_port(34750, Direction::In), Count { packets: 6, bytes: 800 });
        assert_eq!(counters.dropped(), 2);
    }

    #[test]
    fn dropped_flows_are_told_in_words() {
        let json = r#"{"nftables": [{"set": {"name": "dropped_flows", "elem": [{"elem": {
            "val": {"concat": ["udp", "10.77.1.1", "10.77.2.1", 40000, 34750]}, "counter": {"packets": 2, "bytes": 9}}}]}}]}"#;
        assert_eq!(parse_flows(json).unwrap(), ["udp 10.77.1.1:40000 -> 10.77.2.1:34750, 2 packets"]);
    }
}
