//! The controller of VescEndpoints: validate, status. No role of this release talks to a connector, and the conditions
//! say so.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use peerdist_crds::VescEndpoint;

use crate::conditions::{ACCEPTED, Finding, READY, STALLED, refused};
use crate::context::{Context, ReconcileError};
use crate::fleet::Refusal;

/// Brings the conditions of a VescEndpoint up to date.
///
/// # Errors
/// [`ReconcileError`] when they could not be written; it is tried again.
pub async fn reconcile(object: Arc<VescEndpoint>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let wait = context.statuses.write_vesc(&object, &derive(&object), Timestamp::now()).await?;
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

/// The conditions of an endpoint.
pub fn derive(object: &VescEndpoint) -> Vec<Finding> {
    const REASON: &str = "KindNotServed";
    let message = "no role of this release talks to a connector: expected no VescEndpoint; remove it";
    match peerdist_crds::vesc_endpoint::validate(object) {
        Err(error) => refused(&Refusal::from_fields(&[error])).to_vec(),
        Ok(_) => vec![
            Finding::yes(ACCEPTED, "Valid", "the object is valid"),
            Finding::no(READY, REASON, message),
            Finding::yes(STALLED, REASON, message),
        ],
    }
}

#[cfg(test)]
mod tests {
    use peerdist_crds::VescEndpointSpec;

    use super::*;

    fn reasons(address: &str) -> Vec<(bool, String)> {
        let object = VescEndpoint::new("hq", VescEndpointSpec { address: address.to_owned(), not_understood: None });
        derive(&object).iter().map(|finding| (finding.is_true(), finding.reason().to_owned())).collect()
    }

    #[test]
    fn an_endpoint_is_never_ready_and_says_why() {
        let not_served = || "KindNotServed".to_owned();
        assert_eq!(reasons("10.0.5.9"), [(true, "Valid".to_owned()), (false, not_served()), (true, not_served())]);
        let bad = || "InvalidAddress".to_owned();
        assert_eq!(reasons("hq.example.com"), [(false, bad()), (false, bad()), (true, bad())]);
    }
}
