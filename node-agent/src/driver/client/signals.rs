//! What the holder of one transfer is still to be told. Of each kind only the newest counts, and wants add up, so that
//! nothing is lost however slow the holder listens and however often the machine changes its mind.

use std::sync::{Mutex, MutexGuard, PoisonError};

use peerdist_core::chunk_set::ChunkRun;
use peerdist_core::client::ControlSignal;
use peerdist_core::message::RUNS_MAX;
use peerdist_core::peer::ContentClass;
use tokio::sync::Notify;

/// Signals on their way from the machine to a holder.
#[derive(Debug, Default)]
pub(super) struct Signals {
    unsaid: Mutex<Unsaid>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Unsaid {
    paused: Option<bool>,
    bits_per_second: Option<u64>,
    class: Option<ContentClass>,
    /// No more than the transfer's chunks: the machine wants none twice.
    more: Vec<ChunkRun>,
    /// The last word: nothing else counts any more.
    cancelled: bool,
}

impl Signals {
    /// Takes in what the holder is to be told.
    pub(super) fn say(&self, signal: ControlSignal) {
        let mut unsaid = self.lock();
        match signal {
            ControlSignal::Pause => unsaid.paused = Some(true),
            ControlSignal::Resume => unsaid.paused = Some(false),
            ControlSignal::Rate(bits_per_second) => unsaid.bits_per_second = Some(bits_per_second),
            ControlSignal::Class(class) => unsaid.class = Some(class),
            ControlSignal::Want(runs) => unsaid.more.extend(runs),
            ControlSignal::Cancel => unsaid.cancelled = true,
        }
        self.news.notify_one();
    }

    /// Waits until there is something to say, and gives it: paces first, so that they hold for what is wanted.
    pub(super) async fn next(&self) -> Vec<ControlSignal> {
        loop {
            let signals = self.take();
            if !signals.is_empty() {
                return signals;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Vec<ControlSignal> {
        let Unsaid { paused, bits_per_second, class, more, cancelled } = std::mem::take(&mut *self.lock());
        if cancelled {
            return vec![ControlSignal::Cancel];
        }
        let paused = paused.map(|paused| if paused { ControlSignal::Pause } else { ControlSignal::Resume });
        let paces = [paused, bits_per_second.map(ControlSignal::Rate), class.map(ControlSignal::Class)];
        let wants = more.chunks(RUNS_MAX).map(|runs| ControlSignal::Want(runs.to_vec()));
        paces.into_iter().flatten().chain(wants).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Unsaid> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn newest_of_each_kind_is_said_and_no_want_is_lost() {
        let signals = Signals::default();
        for index in 0..10 * RUNS_MAX as u32 {
            signals.say(ControlSignal::Pause);
            signals.say(ControlSignal::Rate(u64::from(index)));
            signals.say(ControlSignal::Want(vec![ChunkRun { first: 2 * index, count: 1 }]));
        }
        signals.say(ControlSignal::Resume);
        signals.say(ControlSignal::Class(ContentClass::Background));
        let said = signals.next().await;
        let rate = ControlSignal::Rate(10 * RUNS_MAX as u64 - 1);
        assert_eq!(said[..3], [ControlSignal::Resume, rate, ControlSignal::Class(ContentClass::Background)]);
        let wanted = said[3..].iter().map(|signal| match signal {
            ControlSignal::Want(runs) => runs.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(wanted.clone().sum::<usize>(), 10 * RUNS_MAX);
        assert!(wanted.max() <= Some(RUNS_MAX));
        assert!(signals.take().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_said_beside_a_cancellation() {
        let signals = Signals::default();
        signals.say(ControlSignal::Want(vec![ChunkRun { first: 0, count: 1 }]));
        signals.say(ControlSignal::Cancel);
        signals.say(ControlSignal::Resume);
        assert_eq!(signals.next().await, [ControlSignal::Cancel]);
    }
}
