//! How the controller finds its rate and gives way.

use super::*;

const DATAGRAM: u16 = 1452;
const STEP: Duration = Duration::from_millis(1);

/// A link with one queue, in steps of one millisecond: acknowledgements return after the base delay and the queue.
struct Link {
    now: Instant,
    bytes_per_second: f64,
    base: Duration,
    queue_bytes: f64,
    queue_bytes_max: f64,
    in_flight: VecDeque<(Instant, Instant, f64)>,
    delivered: f64,
    queue_sum: f64,
    steps: u32,
}

impl Link {
    fn new(megabits: f64, base_ms: u64) -> Self {
        let bytes_per_second = megabits * 125_000.0;
        Self {
            now: Instant::now_for_tests(),
            bytes_per_second,
            base: Duration::from_millis(base_ms),
            queue_bytes: 0.0,
            queue_bytes_max: bytes_per_second * 0.2,
            in_flight: VecDeque::new(),
            delivered: 0.0,
            queue_sum: 0.0,
            steps: 0,
        }
    }

    fn run(&mut self, controller: &mut Background, duration: Duration, foreign_share: f64, noise: Duration) {
        self.delivered = 0.0;
        self.queue_sum = 0.0;
        self.steps = 0;
        let end = self.now + duration;
        while self.now < end {
            self.step(controller, foreign_share, noise);
        }
    }

    fn step(&mut self, controller: &mut Background, foreign_share: f64, noise: Duration) {
        let seconds = STEP.as_secs_f64();
        let sent = controller.send_rate() as f64 * seconds;
        let foreign = foreign_share * self.bytes_per_second * seconds;
        let arriving = self.queue_bytes + sent + foreign;
        self.queue_bytes = (arriving - self.bytes_per_second * seconds).max(0.0);
        let lost = (self.queue_bytes - self.queue_bytes_max).max(0.0);
        self.queue_bytes -= lost;
        let own_lost = lost * sent / (sent + foreign).max(1.0);
        if own_lost > 0.0 {
            controller.on_loss(self.now, own_lost as u64);
        }
        let queue = Duration::from_secs_f64(self.queue_bytes / self.bytes_per_second);
        let jitter = if self.steps % 60 < 20 { Duration::ZERO } else { noise };
        self.in_flight.push_back((self.now + self.base + queue + jitter, self.now, sent - own_lost));
        while self.in_flight.front().is_some_and(|&(arrival, ..)| arrival <= self.now) {
            if let Some((_, sent_at, bytes)) = self.in_flight.pop_front() {
                self.delivered += bytes;
                controller.on_sample(self.now, self.now - sent_at, bytes as u64, false);
            }
        }
        self.queue_sum += queue.as_secs_f64();
        self.steps += 1;
        self.now += STEP;
    }

    fn utilisation(&self) -> f64 {
        self.delivered / (self.bytes_per_second * f64::from(self.steps) * STEP.as_secs_f64())
    }

    fn mean_queue_ms(&self) -> f64 {
        1000.0 * self.queue_sum / f64::from(self.steps)
    }
}

trait TestClock {
    fn now_for_tests() -> Self;
}

impl TestClock for Instant {
    #[allow(clippy::disallowed_methods, reason = "simulated time needs one real instant to start from")]
    fn now_for_tests() -> Self {
        Instant::now()
    }
}

const SECONDS: Duration = Duration::from_secs(1);

#[test]
fn link_is_filled_when_nobody_else_wants_it_and_the_queue_stays_small() {
    for (megabits, base_ms) in [(20.0, 80), (100.0, 40), (100.0, 5), (1000.0, 20)] {
        let mut link = Link::new(megabits, base_ms);
        let mut controller = Background::new(DATAGRAM);
        link.run(&mut controller, 5 * SECONDS, 0.0, Duration::ZERO);
        link.run(&mut controller, 20 * SECONDS, 0.0, Duration::ZERO);
        assert!(link.utilisation() > 0.85, "{megabits} {base_ms}: {} {}", link.utilisation(), link.mean_queue_ms());
        assert!(link.mean_queue_ms() < 6.0, "{megabits} {base_ms}: {}", link.mean_queue_ms());
    }
}

#[test]
fn it_gives_way_to_foreign_traffic_and_returns_afterwards() {
    let mut link = Link::new(100.0, 40);
    let mut controller = Background::new(DATAGRAM);
    link.run(&mut controller, 5 * SECONDS, 0.0, Duration::ZERO);
    link.run(&mut controller, 2 * SECONDS, 1.01, Duration::ZERO);
    link.run(&mut controller, 5 * SECONDS, 1.01, Duration::ZERO);
    assert!(link.utilisation() < 0.03, "{}", link.utilisation());
    link.run(&mut controller, 5 * SECONDS, 0.0, Duration::ZERO);
    link.run(&mut controller, 5 * SECONDS, 0.0, Duration::ZERO);
    assert!(link.utilisation() > 0.8, "{}", link.utilisation());
}

#[test]
fn scheduling_noise_on_a_local_path_does_not_slow_it_down() {
    let mut link = Link::new(4000.0, 0);
    let mut controller = Background::new(DATAGRAM);
    link.run(&mut controller, 2 * SECONDS, 0.0, Duration::from_millis(25));
    link.run(&mut controller, 5 * SECONDS, 0.0, Duration::from_millis(25));
    assert!(link.utilisation() > 0.7, "{}", link.utilisation());
}

#[test]
fn little_loss_without_delay_is_ignored_and_much_loss_is_not() {
    let mut controller = Background::new(DATAGRAM);
    let mut now = Instant::now_for_tests();
    let mut feed = |controller: &mut Background, lost_share: f64, rounds: u32| {
        for _ in 0..rounds * 20 {
            now += STEP;
            let bytes = controller.send_rate() as f64 * STEP.as_secs_f64();
            controller.on_loss(now, (bytes * lost_share) as u64);
            controller.on_sample(now, STEP, (bytes * (1.0 - lost_share)) as u64, false);
        }
    };
    feed(&mut controller, 0.0, 10);
    let before = controller.send_rate();
    feed(&mut controller, 0.02, 10);
    assert!(controller.send_rate() > before);
    let before = controller.send_rate();
    feed(&mut controller, 0.3, 10);
    assert!(controller.send_rate() < before);
}

#[test]
fn rate_does_not_grow_while_the_application_has_nothing_to_send() {
    let mut controller = Background::new(DATAGRAM);
    let before = controller.send_rate();
    let mut now = Instant::now_for_tests();
    for _ in 0..1000 {
        now += STEP;
        controller.on_sample(now, STEP, 100, true);
    }
    assert_eq!(controller.send_rate(), before);
}

#[test]
fn the_window_never_stops_the_sender() {
    let mut controller = Background::new(DATAGRAM);
    let now = Instant::now_for_tests();
    for _ in 0..100 {
        controller.on_persistent_loss(now);
    }
    assert!(controller.window() >= WINDOW_BYTES_MIN);
    assert!(controller.send_rate() > 0);
}
