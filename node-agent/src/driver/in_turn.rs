//! Work on one thing, a package mostly, one task after the other in the order in which they were ordered: what is to be
//! deleted must not be made ready at the same time, nor a download be written by two tasks.

use std::collections::BTreeMap;

use tokio::task::JoinHandle;

/// The last task of each thing that has any.
#[derive(Debug)]
pub(super) struct InTurn<K>(BTreeMap<K, JoinHandle<()>>);

impl<K> Default for InTurn<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> InTurn<K> {
    /// Begins the work when what was ordered before for the same thing has ended.
    pub(super) fn spawn(&mut self, of: K, work: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|_, task| !task.is_finished());
        let before = self.0.remove(&of);
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // One that panicked has ended, too.
                drop(before.await);
            }
            work.await;
        });
        self.0.insert(of, task);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn work_on_one_package_waits_for_its_turn_and_for_no_other_package() {
        let (mut in_turn, (done, mut order)) = (InTurn::default(), mpsc::unbounded_channel());
        let (release, released) = oneshot::channel::<()>();
        let tell = |name: &'static str| {
            let done = done.clone();
            async move { done.send(name).unwrap() }
        };
        let first = tell("first");
        in_turn.spawn("one", async {
            released.await.unwrap();
            first.await;
        });
        in_turn.spawn("one", tell("second"));
        in_turn.spawn("other", tell("other"));
        assert_eq!(order.recv().await, Some("other"));
        release.send(()).unwrap();
        assert_eq!([order.recv().await, order.recv().await], [Some("first"), Some("second")]);
    }
}
