//! Offices one by one: what each says for itself, before the others are looked at.

use kube::ResourceExt;
use peerdist_crds::FieldError;
use peerdist_crds::office::{node_selection, normal_path};

use super::{Refusal, ValidOffice};
use crate::storage::StoragePrefixes;

/// The parts of an Office, if all of them are good.
pub(super) fn candidate(object: &peerdist_crds::Office, prefixes: &StoragePrefixes) -> Result<ValidOffice, Refusal> {
    if let Some(fault) = &object.spec.not_understood {
        return Err(Refusal::from_fields(std::slice::from_ref(fault)));
    }
    let mut errors = Vec::new();
    let office = peerdist_crds::office::validate(object).map_err(|faults| errors.extend(faults)).ok();
    let selection = node_selection(&object.spec).map_err(|faults| errors.extend(faults)).ok();
    // A path that is not normal is among the errors already.
    let path = normal_path(&object.spec.storage.path);
    errors.extend(path.iter().filter(|path| !prefixes.allow(path)).map(|path| not_allowed(path, prefixes)));
    match (office, selection, path) {
        (Some(office), Some(Some(selection)), Some(storage_path)) if errors.is_empty() => {
            Ok(ValidOffice { office, selection, storage_path, uid: object.uid().unwrap_or_default() })
        }
        (Some(_), Some(None), Some(_)) if errors.is_empty() => Err(Refusal {
            field: "spec.nodeSelector".to_owned(),
            reason: "NodesNotSelected",
            message: "the office says nothing about its nodes: expected spec.nodeSelector or spec.subnets; add one"
                .to_owned(),
            stalled: true,
        }),
        _ => Err(Refusal::from_fields(&errors)),
    }
}

fn not_allowed(path: &str, prefixes: &StoragePrefixes) -> FieldError {
    let message = format!(
        "storage path {path} may not be used on the nodes of this cluster: expected a folder in one of {prefixes}; \
         correct it, or let an administrator add a prefix to --storage-prefixes of the operator"
    );
    FieldError::new("spec.storage.path", "StoragePathNotAllowed", message)
}
