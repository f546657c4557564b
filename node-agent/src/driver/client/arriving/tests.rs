//! What becomes of chunks that are of no use, and how they are counted.

use peerdist_core::chunk_set::ChunkRun;

use super::*;
use crate::driver::client::fixture::TestNode;
use crate::store::tests::fixture::TestPackage;

const TRANSFER: TransferId = 7;

/// Takes in the first chunk of a package that was asked for, in a transfer that was perhaps called off.
async fn take_first(
    node: &TestNode,
    package: &TestPackage,
    is_expected: bool,
    cancelled: &CancellationToken,
) -> Option<Option<UnservedReason>> {
    let (expected, digest, class) = (Expected::default(), package.digest(), ContentClass::Foreground);
    if is_expected {
        expected.expect(TRANSFER, Peer::Server, class, digest, None, &[ChunkRun { first: 0, count: 1 }]);
    }
    let context = &node.context;
    let arriving =
        Arriving { context, expected: &expected, transfer: TRANSFER, digest, class, from: Peer::Server, cancelled };
    let arrived: Arrived = Ok((0, package.chunks[0].clone()));
    arriving.take_all(&mut stream::iter([arrived]).boxed()).await
}

fn rejected(node: &TestNode, reason: ChunkRejection) -> u64 {
    node.context.metrics.chunks_rejected(reason).get()
}

#[tokio::test]
async fn chunk_that_was_here_already_counts_as_duplicate_not_as_content_and_its_sender_stays() {
    let (node, package, running) = (TestNode::new(1), TestPackage::mixed("1"), CancellationToken::new());
    package.put_manifest(&node.context.store);
    node.context.store.prepare(package.digest()).unwrap();
    let progress = node.context.progress.clone();
    for duplicates in [0, 1] {
        let (verifying, on_disk) = (progress.time_verifying(), progress.time_on_disk());
        assert_eq!(take_first(&node, &package, true, &running).await, Some(None));
        assert_eq!(rejected(&node, ChunkRejection::Duplicate), duplicates);
        assert_eq!(node.context.metrics.content_bytes(ContentSource::Origin).get(), package.chunks[0].len() as u64);
        assert!(progress.time_verifying() > verifying && progress.time_on_disk() > on_disk, "both count, and apart");
    }
}

#[tokio::test]
async fn chunk_of_a_package_that_is_not_here_any_more_counts_as_such() {
    let (mut node, package) = (TestNode::new(2), TestPackage::mixed("1"));
    assert_eq!(take_first(&node, &package, true, &CancellationToken::new()).await, None);
    assert_eq!(rejected(&node, ChunkRejection::UnknownPackage), 1);
    assert!(matches!(node.events.recv().await, Some(Event::StoreFailed { .. })));
}

#[tokio::test]
async fn chunk_of_a_transfer_that_was_called_off_is_not_blamed_on_its_sender() {
    let (mut node, package, cancelled) = (TestNode::new(3), TestPackage::mixed("1"), CancellationToken::new());
    assert_eq!(take_first(&node, &package, false, &cancelled).await, None);
    assert_eq!(rejected(&node, ChunkRejection::NotRequested), 1);
    assert!(matches!(node.events.recv().await, Some(Event::ChunkRejected { .. })));
    cancelled.cancel();
    assert_eq!(take_first(&node, &package, false, &cancelled).await, None);
    assert_eq!(rejected(&node, ChunkRejection::NotRequested), 1);
    assert!(node.events.try_recv().is_err());
}

#[test]
fn what_the_disk_refuses_is_not_blamed_on_the_chunk() {
    let digest = Digest::of(b"package");
    let refused = |fault| rejection(&StoreError::ChunkRefused { digest, index: 0, fault });
    assert_eq!(refused(ChunkFault::Digest), Some(ChunkRejection::DigestMismatch));
    assert_eq!(refused(ChunkFault::Length), Some(ChunkRejection::WrongLength));
    assert_eq!(refused(ChunkFault::UnknownIndex), Some(ChunkRejection::NotRequested));
    assert_eq!(rejection(&StoreError::BeingRemoved(digest)), Some(ChunkRejection::UnknownPackage));
    assert_eq!(rejection(&StoreError::ManifestIncomplete { digest, missing: 1 }), None);
}
