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
    errors.extend(path.iter().filter_map(|path| not_allowed(path, prefixes)));
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

/// Why a normal path may not be used, if so.
fn not_allowed(path: &str, prefixes: &StoragePrefixes) -> Option<FieldError> {
    let message = if !prefixes.allow(path) {
        format!(
            "storage path {path} may not be used on the nodes of this cluster: expected a folder in one of {prefixes}; \
             correct it, or let an administrator add a prefix to --storage-prefixes of the operator"
        )
    } else if let Some(server) = prefixes.of_server(path) {
        format!(
            "storage path {path} holds or lies in {}, which is server.storage.hostPath in the chart's values: expected a \
             folder apart from it, since clients and server cannot share one; correct it, or let an administrator choose \
             another for the server",
            server.display()
        )
    } else {
        let root = prefixes.published(path)?.display();
        format!(
            "storage path {path} holds or lies in {root}, a folder of server.fileRoots in the chart's values, whose \
             files anybody may publish who may publish packages: expected a folder apart from it; correct it, or let an \
             administrator take {root} off that list"
        )
    };
    Some(FieldError::new("spec.storage.path", "StoragePathNotAllowed", message))
}
