//! Work of the store on one package, one after the other in the order in which it was ordered: what is to be deleted
//! must not be made ready at the same time.

use std::collections::BTreeMap;

use peerdist_core::digest::Digest;
use tokio::task::JoinHandle;

/// The last task of each package that has any.
#[derive(Debug, Default)]
pub(super) struct InTurn(BTreeMap<Digest, JoinHandle<()>>);

impl InTurn {
    /// Begins the work when what was ordered before for the same package has ended.
    pub(super) fn spawn(&mut self, digest: Digest, work: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|_, task| !task.is_finished());
        let before = self.0.remove(&digest);
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // One that panicked has ended, too.
                drop(before.await);
            }
            work.await;
        });
        self.0.insert(digest, task);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn work_on_one_package_waits_for_its_turn_and_for_no_other_package() {
        let (mut in_turn, (done, mut order)) = (InTurn::default(), mpsc::unbounded_channel());
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let (release, released) = oneshot::channel::<()>();
        let tell = |name: &'static str| {
            let done = done.clone();
            async move { done.send(name).unwrap() }
        };
        let first = tell("first");
        in_turn.spawn(one, async {
            released.await.unwrap();
            first.await;
        });
        in_turn.spawn(one, tell("second"));
        in_turn.spawn(other, tell("other"));
        assert_eq!(order.recv().await, Some("other"));
        release.send(()).unwrap();
        assert_eq!([order.recv().await, order.recv().await], [Some("first"), Some("second")]);
    }
}
