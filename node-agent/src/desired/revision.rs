//! From one state to the next: a bad edit leaves the last good object in force, a version keeps its content, and the
//! generation of a distribution rises when it changes.

use std::sync::Arc;

use crate::desired::error::{ErrorScope, ObjectError, object_of};
use crate::desired::objects::Reading;
use crate::desired::{DesiredState, DesiredUpdate};

/// Where generations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generations {
    /// Files have none: changes are counted.
    Counted,
    /// The objects carry them.
    Given,
}

/// What holds after `reading`, when `previous` was in force before.
pub(super) fn revise(previous: Option<&DesiredState>, reading: Reading, generations: Generations) -> DesiredUpdate {
    let Reading { state, refused, mut errors } = reading;
    let Some(mut state) = state else {
        return DesiredUpdate { state: None, errors };
    };
    for (key, older) in previous.iter().flat_map(|previous| &previous.distributions) {
        if refused.contains(key) {
            state.distributions.insert(key.clone(), older.clone());
        } else if let Some(newer) = state.distributions.get_mut(key) {
            if generations == Generations::Counted {
                newer.generation = older.generation;
            }
            if let Err(reused) = newer.check_replaces(older) {
                let refusal = ObjectError {
                    object: object_of(key),
                    field: reused.field.to_owned(),
                    reason: "VersionReused".to_owned(),
                    message: reused.to_string(),
                    scope: ErrorScope::Object,
                };
                if let Some(object) = state.objects.packages.get_mut(key) {
                    object.refusal = Some(refusal.clone());
                }
                errors.push(refusal);
                *newer = older.clone();
            } else if *newer != *older && generations == Generations::Counted {
                newer.generation = older.generation.saturating_add(1);
            }
        }
    }
    DesiredUpdate { state: Some(Arc::new(state)), errors }
}
