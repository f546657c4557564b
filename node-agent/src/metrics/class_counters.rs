//! Counters by transfer class, bumped on the packet path: plain atomics, no labels, no locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use peerdist_core::ports::TransferClass;

use super::TransferErrorReason;

/// Direction of traffic as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From this node.
    Sent,
    /// To this node.
    Received,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Sent, Self::Received];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// Bytes (UDP payload) and messages by class and direction, and errors by class and reason.
#[derive(Debug, Default)]
pub struct ClassCounters {
    bytes: [[AtomicU64; 2]; TransferClass::ALL.len()],
    messages: [[AtomicU64; 2]; TransferClass::ALL.len()],
    errors: [[AtomicU64; TransferErrorReason::ALL.len()]; TransferClass::ALL.len()],
}

impl ClassCounters {
    /// Counts UDP payload bytes.
    pub fn add_bytes(&self, class: TransferClass, direction: Direction, bytes: u64) {
        self.bytes[class.index()][direction as usize].fetch_add(bytes, Relaxed);
    }

    /// Counts one message: an envelope or a reply, a broadcast, a chunk, or a control signal.
    pub fn add_message(&self, class: TransferClass, direction: Direction) {
        self.messages[class.index()][direction as usize].fetch_add(1, Relaxed);
    }

    /// Counts a message or transfer that failed.
    pub fn add_error(&self, class: TransferClass, reason: TransferErrorReason) {
        self.errors[class.index()][reason as usize].fetch_add(1, Relaxed);
    }

    /// Bytes so far.
    pub fn bytes(&self, class: TransferClass, direction: Direction) -> u64 {
        self.bytes[class.index()][direction as usize].load(Relaxed)
    }

    /// Messages so far.
    pub fn messages(&self, class: TransferClass, direction: Direction) -> u64 {
        self.messages[class.index()][direction as usize].load(Relaxed)
    }

    /// Errors so far.
    pub fn errors(&self, class: TransferClass, reason: TransferErrorReason) -> u64 {
        self.errors[class.index()][reason as usize].load(Relaxed)
    }
}
