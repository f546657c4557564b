//! How a node starts again whose certificate has run out, while its server is away.

use peerdist_authority::certificates::NODE_LIFETIME;
use peerdist_authority::days;
use tokio::time::{sleep, timeout};

use super::fixture::{TestNode, certify};
use super::*;
use crate::driver::tests::Log;
use crate::transport::Authority;

const GOES_ON: &str = "the certificate has run out, and the node goes on in its office with it";
const ASKS_AGAIN: &str = "not enrolled, and tried again";
/// Far more than one try to enrol takes where nobody answers.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A node that is back so long after its certificate ran out.
fn back_after(number: u8, run_out_for: Duration) -> TestNode {
    TestNode::prepared(number, |settings| {
        let issued_at = SystemTime::now() - NODE_LIFETIME - run_out_for;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), issued_at).unwrap();
        certify(settings, &authority, issued_at);
        JoinToken::generate(authority.root_sha256()).write(&settings.join_token_file).unwrap();
    })
}

#[tokio::test]
async fn node_whose_certificate_has_run_out_goes_on_in_its_office_while_the_server_is_away() {
    let log = Log::default();
    let _listening = log.listen();
    let node = back_after(20, EXPIRED_TOLERANCE - days(1));
    let TestNode { context, .. } = &node;
    let stored = context.transport.identity().enrolment().unwrap();
    assert!(context.transport.identity().is_expired(SystemTime::now()));
    let enrolled = timeout(PATIENCE, enrol(&context.settings, &context.transport)).await.unwrap();
    assert_eq!(enrolled.unwrap(), stored);
    assert_eq!(log.count_beginning(GOES_ON), 1);
}

#[tokio::test]
async fn node_without_a_token_does_not_wait_for_one_while_its_office_takes_its_certificate() {
    let node = back_after(22, days(1));
    let TestNode { context, .. } = &node;
    std::fs::remove_file(&context.settings.join_token_file).unwrap();
    let enrolled = timeout(PATIENCE, enrol(&context.settings, &context.transport)).await.unwrap();
    assert_eq!(Some(enrolled.unwrap()), context.transport.identity().enrolment());
}

#[tokio::test]
async fn node_whose_certificate_ran_out_too_long_ago_waits_for_the_server() {
    let log = Log::default();
    let _listening = log.listen();
    let node = back_after(21, EXPIRED_TOLERANCE + days(1));
    let TestNode { context, .. } = &node;
    assert!(context.transport.identity().enrolment().is_some());
    let asked = async {
        while log.count_beginning(ASKS_AGAIN) == 0 {
            sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::select! {
        enrolled = enrol(&context.settings, &context.transport) => panic!("nobody answers it: {enrolled:?}"),
        asked = timeout(PATIENCE, asked) => asked.expect("the server is asked"),
    }
    assert_eq!(log.count_beginning(GOES_ON), 0);
}
