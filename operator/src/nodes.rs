//! The controller of nodes: writes and removes the label by which an office finds the nodes of its subnets. Which label
//! a node should have is decided in [`fleet`](crate::fleet); all else of a node is left alone.

use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::apply::unless_gone;
use crate::context::{Context, ReconcileError};
use crate::fleet::Assignment;
use crate::held::HeldNode;
use crate::names::{ASSIGNED_OFFICE_LABEL, FIELD_MANAGER};

/// Writes labels of nodes.
#[derive(Clone)]
pub struct NodeLabels {
    api: Api<HeldNode>,
}

impl NodeLabels {
    /// Writes through this client.
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// Gives a node the label that it should have.
    ///
    /// # Errors
    /// [`ReconcileError`] when it could not be written; it is tried again.
    pub async fn reconcile(self, node: Arc<HeldNode>, context: Arc<Context>) -> Result<Action, ReconcileError> {
        let name = node.name_any();
        let Some(assignment) = context.fleet().assignments().get(&name).cloned() else {
            return Ok(Action::await_change());
        };
        if bears(&node, &assignment) {
            return Ok(Action::await_change());
        }
        let patch = Patch::Merge(patch(&assignment, node.resource_version().as_deref()));
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match unless_gone(self.api.patch(&name, &parameters, &patch).await) {
            Ok(Some(_)) => tracing::info!(node = %name, ?assignment, "labelled"),
            // Gone with all its labels.
            Ok(None) => {}
            Err(source) => return Err(ReconcileError::Label { node: name, source: Box::new(source) }),
        }
        Ok(Action::await_change())
    }
}

/// Whether there is nothing to write. What was judged may be older than the node.
fn bears(node: &HeldNode, assignment: &Assignment) -> bool {
    node.view.assigned() == assignment.label()
}

/// A merge patch, which cannot create a node that is gone, and which the version keeps from undoing what came later.
fn patch(assignment: &Assignment, version: Option<&str>) -> Value {
    json!({"metadata": {"resourceVersion": version, "labels": {ASSIGNED_OFFICE_LABEL: assignment.label()}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_there_already_is_not_written() {
        let node =
            |labels: Value| serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap();
        let (bare, labelled) = (node(json!({})), node(json!({ASSIGNED_OFFICE_LABEL: "store"})));
        let store = Assignment::Office("store".to_owned());
        assert!(bears(&labelled, &store) && bears(&bare, &Assignment::None));
        assert!(!bears(&bare, &store) && !bears(&labelled, &Assignment::None));
        assert!(!bears(&labelled, &Assignment::Office("other".to_owned())));
    }

    #[test]
    fn a_label_is_set_or_removed_at_the_version_that_was_read() {
        let set = patch(&Assignment::Office("store".to_owned()), Some("7"));
        assert_eq!(
            set,
            json!({"metadata": {"resourceVersion": "7", "labels": {"peerdist.io/assigned-office": "store"}}})
        );
        let removed = patch(&Assignment::None, Some("7"));
        assert_eq!(removed["metadata"]["labels"], json!({"peerdist.io/assigned-office": null}));
    }
}
