//! Fits the core's background controller into QUIC connections.
//! What the controller decides is in `peerdist_core::background`; which connections use it is in `settings`.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use noq_proto::RttEstimator;
use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use peerdist_core::background::Background;

/// The queue that background connections of one node saw last, until it is taken; 0 when there is nothing new.
#[derive(Debug, Default)]
pub struct QueueDelay(AtomicU64);

impl QueueDelay {
    /// Seconds, for the metric `peerdist_background_queue_delay_seconds`; `None` when nothing was seen since it was
    /// taken last.
    pub fn take_seconds(&self) -> Option<f64> {
        match self.0.swap(0, Relaxed) {
            0 => None,
            seen => Some(f64::from_bits(seen)),
        }
    }

    fn observe(&self, delay: Duration) {
        let seen = delay.max(Duration::from_nanos(1));
        self.0.store(seen.as_secs_f64().to_bits(), Relaxed);
    }
}

/// Makes a controller for each background connection of a node.
#[derive(Debug)]
pub(super) struct BackgroundFactory {
    queue_delay: Arc<QueueDelay>,
}

impl BackgroundFactory {
    pub(super) fn new(queue_delay: Arc<QueueDelay>) -> Self {
        Self { queue_delay }
    }
}

impl ControllerFactory for BackgroundFactory {
    fn build(self: Arc<Self>, _now: Instant, datagram_bytes: u16) -> Box<dyn Controller> {
        let machine = Background::new(datagram_bytes);
        let initial_window = machine.window();
        Box::new(BackgroundController { machine, initial_window, batch: None, queue_delay: self.queue_delay.clone() })
    }
}

#[derive(Debug, Clone)]
struct BackgroundController {
    machine: Background,
    initial_window: u64,
    batch: Option<AckBatch>,
    queue_delay: Arc<QueueDelay>,
}

/// What one acknowledgement newly covers.
#[derive(Debug, Clone, Copy)]
struct AckBatch {
    last_sent: Instant,
    bytes: u64,
}

impl Controller for BackgroundController {
    fn on_ack(
        &mut self,
        _now: Instant,
        sent: Instant,
        bytes: u64,
        _packet: u64,
        _application_limited: bool,
        _rtt: &RttEstimator,
    ) {
        let batch = self.batch.get_or_insert(AckBatch { last_sent: sent, bytes: 0 });
        batch.last_sent = batch.last_sent.max(sent);
        batch.bytes += bytes;
    }

    fn on_end_acks(&mut self, _now: Instant, _in_flight: u64, application_limited: bool, _largest: Option<u64>) {
        let Some(batch) = self.batch.take() else { return };
        // The time that QUIC passes in was taken before the receive call: after a preemption it is too early, and the
        // minimum would remember that.
        let now = Instant::now();
        let delay = now.saturating_duration_since(batch.last_sent);
        self.machine.on_sample(now, delay, batch.bytes, application_limited);
        self.queue_delay.observe(self.machine.queue_delay());
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        _is_ecn: bool,
        lost_bytes: u64,
        _largest_lost: u64,
    ) {
        self.machine.on_loss(now, lost_bytes);
        if is_persistent_congestion {
            self.machine.on_persistent_loss(now);
        }
    }

    fn on_mtu_update(&mut self, datagram_bytes: u16) {
        self.machine.set_datagram_bytes(datagram_bytes);
    }

    fn window(&self) -> u64 {
        self.machine.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.machine.window();
        metrics.pacing_rate = Some(self.machine.send_rate());
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
