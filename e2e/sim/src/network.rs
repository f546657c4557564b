//! How long things take on the way: delays, a share of messages that is lost, and links that carry one byte after the
//! other. Who shares a link shares its rate, chunk by chunk.

use std::collections::BTreeMap;
use std::time::Duration;

use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::peer::ContentClass;
use rand::Rng;
use rand::rngs::StdRng;

/// The behaviour of every network of a run.
#[derive(Debug, Clone)]
pub struct NetworkSettings {
    /// One way inside an office, and between the server and the Central Office.
    pub lan_delay: Duration,
    /// One way over a link between offices.
    pub wan_delay: Duration,
    /// What a node sends inside its office; none is no limit.
    pub lan_bytes_per_second: Option<u64>,
    /// What an office receives from its parent; none is no limit.
    pub wan_bytes_per_second: Option<u64>,
    /// Share of messages and broadcasts that do not arrive.
    pub loss: f64,
}

/// One direction of somebody's connection to others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    /// From the parent into an office.
    Wan(OfficeName),
    /// Out of a node into its office; none is the server.
    Lan(Option<NodeName>),
}

/// The networks.
#[derive(Debug)]
pub struct Network {
    settings: NetworkSettings,
    busy_until: BTreeMap<Link, Duration>,
}

impl Network {
    /// Idle networks.
    pub fn new(settings: NetworkSettings) -> Self {
        Self { settings, busy_until: BTreeMap::new() }
    }

    /// One way of a small packet.
    pub fn delay(&self, crosses_offices: bool) -> Duration {
        if crosses_offices { self.settings.wan_delay } else { self.settings.lan_delay }
    }

    /// One way of a message with some jitter, so that messages overtake each other.
    pub fn message_delay(&self, crosses_offices: bool, rng: &mut StdRng) -> Duration {
        let delay = self.delay(crosses_offices);
        delay + delay.mul_f64(rng.random::<f64>())
    }

    /// Whether this one is lost.
    pub fn loses(&self, rng: &mut StdRng) -> bool {
        self.settings.loss > 0.0 && rng.random_bool(self.settings.loss)
    }

    /// Puts a chunk on its link. Returns when its last byte has left.
    pub fn put(
        &mut self,
        now: Duration,
        class: ContentClass,
        sender: Option<&NodeName>,
        receiving_office: &OfficeName,
        bytes: u64,
    ) -> Duration {
        let (link, rate) = match class {
            ContentClass::Background => (Link::Wan(receiving_office.clone()), self.settings.wan_bytes_per_second),
            ContentClass::Foreground => (Link::Lan(sender.cloned()), self.settings.lan_bytes_per_second),
        };
        let Some(rate) = rate else { return now };
        let free = self.busy_until.get(&link).copied().unwrap_or_default().max(now);
        let done = free + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.busy_until.insert(link, done);
        done
    }
}
