//! When a watch that failed is tried again. There is one server to a fleet: the API server has nothing to fear from it, and
//! everybody waits for what it sees after the API server was away.

use std::fmt::Display;
use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{DefaultBackoff, Event};

/// Longest pause. That of all clients of Kubernetes together, half a minute and more, is meant for thousands of them.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Pauses that grow to [`PAUSE_MAX`].
#[derive(Default)]
pub struct WatchPauses(DefaultBackoff);

impl Iterator for WatchPauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next()?.min(PAUSE_MAX))
    }
}

impl Backoff for WatchPauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Says that a watch fails, and that it works again: each once, since the API server may be away for hours.
pub struct WatchLog {
    kind: String,
    is_failing: bool,
}

impl WatchLog {
    /// About objects of this kind.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), is_failing: false }
    }

    /// The watch brought something, or an error. A list that begins says nothing: it was not asked for yet.
    pub fn note<K, E: Display>(&mut self, event: &Result<Event<K>, E>) {
        if matches!(event, Ok(Event::Init)) {
            return;
        }
        let kind = &self.kind;
        match event {
            Ok(_) if self.is_failing => tracing::info!(kind, "the watch works again"),
            Err(error) if !self.is_failing => tracing::warn!(%error, kind, "a watch failed and is tried again"),
            _ => {}
        }
        self.is_failing = event.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_that_begins_again_and_again_does_not_count_as_a_watch_that_works() {
        let mut log = WatchLog::new("Node");
        let events: [(Result<Event<()>, &str>, bool); 5] = [
            (Ok(Event::Init), false),
            (Err("away"), true),
            (Ok(Event::Init), true),
            (Err("away"), true),
            (Ok(Event::InitDone), false),
        ];
        for (event, is_failing) in events {
            log.note(&event);
            assert_eq!(log.is_failing, is_failing, "{event:?}");
        }
    }

    #[test]
    fn pauses_grow_from_a_second_to_a_few_and_never_end() {
        let pauses: Vec<Duration> = WatchPauses::default().take(50).collect();
        assert_eq!(pauses.len(), 50);
        assert!(pauses[0] < Duration::from_secs(2), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX) && pauses[40..].iter().all(|pause| *pause == PAUSE_MAX));
    }
}
