//! From documents to one validated state. Faults of offices, and whatever does not follow the schema, make the set
//! unusable; faults in the values of one distribution leave the others alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kube::ResourceExt;
use peerdist_core::distribution::Distribution;
use peerdist_core::names::{DistributionKey, OfficeName};
use peerdist_core::office::{Office, OfficeTree, OfficeTreeError};
use peerdist_crds::{FieldError, PackageDistribution, VescEndpoint};

use crate::desired::document::{Document, OBJECTS_MAX, PACKAGE_KIND, file_error};
use crate::desired::error::{ErrorScope, NO_OFFICE_SELECTED, ObjectError};
use crate::desired::secrets;
use crate::desired::source_uri::{self, Environment};
use crate::desired::{ClusterObjects, DesiredState};

/// Annotation of an Office: how many nodes embedded mode runs in it.
pub const EMBEDDED_NODES_ANNOTATION: &str = "peerdist.io/embedded-nodes";
/// Nodes of an office without the annotation.
pub const EMBEDDED_NODES_DEFAULT: u32 = 2;
/// Most nodes of an office: the addresses of its loopback network.
pub const EMBEDDED_NODES_MAX: u32 = 254;

/// Errors told of one set; more are cut.
pub(super) const ERRORS_MAX: usize = 200;

/// What a set of documents says.
#[derive(Debug)]
pub(super) struct Reading {
    /// The state, unless the set is unusable.
    pub(super) state: Option<DesiredState>,
    /// Distributions that exist and are not in the state because of an error.
    pub(super) refused: BTreeSet<DistributionKey>,
    /// Everything that is wrong.
    pub(super) errors: Vec<ObjectError>,
}

impl Reading {
    /// A set that cannot be used.
    pub(super) fn unusable(mut errors: Vec<ObjectError>) -> Self {
        errors.truncate(ERRORS_MAX);
        Self { state: None, refused: BTreeSet::new(), errors }
    }
}

/// Builds the state from the documents of `directory`.
pub(super) fn read(documents: &[Document], directory: &Path, environment: &Environment) -> Reading {
    if documents.len() > OBJECTS_MAX {
        let message = format!("more than {OBJECTS_MAX} objects: expected at most that many; remove some");
        return Reading::unusable(vec![file_error(&directory.display().to_string(), "TooManyObjects", message)]);
    }
    let mut errors = Vec::new();
    let offices = read_offices(documents, &mut errors);
    let mut distributions = read_distributions(documents, directory, environment, &mut errors);
    errors.extend(unserved_endpoints(documents));
    let secrets = Arc::new(secrets::read(documents, &mut errors));
    let tree = build_tree(documents, offices.iter().map(|(office, _)| office.clone()), directory, &mut errors);
    let Some(offices_tree) = tree.filter(|_| errors.iter().all(|error| error.scope != ErrorScope::Set)) else {
        return Reading::unusable(errors);
    };
    for (key, (document, distribution)) in &distributions.good {
        if let Some(error) = unmatched_selector(document, distribution, &offices_tree) {
            errors.push(error);
            distributions.refused.insert(key.clone());
        }
    }
    errors.truncate(ERRORS_MAX);
    let good = distributions.good.into_iter().filter(|(key, _)| !distributions.refused.contains(key));
    let state = DesiredState {
        offices: offices_tree,
        distributions: good.map(|(key, (_, distribution))| (key, distribution)).collect(),
        embedded_nodes: offices.into_iter().map(|(office, nodes)| (office.name, nodes)).collect(),
        secrets,
        objects: ClusterObjects::default(),
    };
    Reading { state: Some(state), refused: distributions.refused, errors }
}

fn of_kind<'set>(documents: &'set [Document], kind: &'static str) -> impl Iterator<Item = &'set Document> {
    documents.iter().filter(move |document| document.kind == kind)
}

fn field_errors(document: &Document, scope: ErrorScope, faults: Vec<FieldError>) -> Vec<ObjectError> {
    faults.iter().map(|fault| document.error(scope, &fault.field, fault.reason, &fault.message)).collect()
}

fn read_offices(documents: &[Document], errors: &mut Vec<ObjectError>) -> Vec<(Office, u32)> {
    let mut offices = Vec::new();
    for document in of_kind(documents, "Office") {
        match read_office(document) {
            Ok(office) => offices.push(office),
            Err(faults) => errors.extend(faults),
        }
    }
    offices
}

fn read_office(document: &Document) -> Result<(Office, u32), Vec<ObjectError>> {
    let object: peerdist_crds::Office = document.parse()?;
    let office =
        peerdist_crds::office::validate(&object).map_err(|faults| field_errors(document, ErrorScope::Set, faults))?;
    let nodes = match object.annotations().get(EMBEDDED_NODES_ANNOTATION) {
        None => EMBEDDED_NODES_DEFAULT,
        Some(text) => embedded_nodes(text).map_err(|fault| field_errors(document, ErrorScope::Set, vec![fault]))?,
    };
    Ok((office, nodes))
}

fn embedded_nodes(text: &str) -> Result<u32, FieldError> {
    let nodes = text.parse().ok().filter(|nodes| (1..=EMBEDDED_NODES_MAX).contains(nodes));
    nodes.ok_or_else(|| {
        let shown: String = text.chars().take(20).collect();
        let message = format!("{shown:?} is no number of nodes: expected 1 to {EMBEDDED_NODES_MAX}; correct it");
        FieldError::new(format!("metadata.annotations[{EMBEDDED_NODES_ANNOTATION}]"), "OutOfRange", message)
    })
}

fn build_tree(
    documents: &[Document],
    offices: impl Iterator<Item = Office>,
    directory: &Path,
    errors: &mut Vec<ObjectError>,
) -> Option<OfficeTree> {
    // Offices that could not be read would be missed as parents: their own error says more.
    let unreadable = !errors.is_empty() && errors.iter().any(|error| error.object.starts_with("Office "));
    match OfficeTree::new(offices) {
        Ok(tree) => Some(tree),
        Err(_) if unreadable => None,
        Err(faults) => {
            errors.extend(faults.iter().map(|fault| tree_error(documents, directory, fault)));
            None
        }
    }
}

fn tree_error(documents: &[Document], directory: &Path, fault: &OfficeTreeError) -> ObjectError {
    let object = |office: &OfficeName| format!("Office {office}");
    // The last of several documents of one name is the one too many.
    let document = fault
        .office()
        .and_then(|office| of_kind(documents, "Office").filter(|document| document.object == object(office)).last());
    match document {
        Some(document) => document.error(ErrorScope::Set, fault.field(), fault.reason(), fault),
        None => file_error(&directory.display().to_string(), fault.reason(), fault.to_string()),
    }
}

/// Distributions of a set by whether they can be used.
#[derive(Default)]
struct Distributions<'set> {
    good: BTreeMap<DistributionKey, (&'set Document, Distribution)>,
    refused: BTreeSet<DistributionKey>,
}

fn read_distributions<'set>(
    documents: &'set [Document],
    directory: &Path,
    environment: &Environment,
    errors: &mut Vec<ObjectError>,
) -> Distributions<'set> {
    let mut found = Distributions::default();
    for document in of_kind(documents, PACKAGE_KIND) {
        let object: PackageDistribution = match document.parse() {
            Ok(object) => object,
            Err(faults) => {
                errors.extend(faults);
                continue;
            }
        };
        let key = match peerdist_crds::package_distribution::key(&object) {
            Ok(key) => key,
            Err(faults) => {
                errors.extend(field_errors(document, ErrorScope::Set, faults));
                continue;
            }
        };
        let duplicate = found.refused.contains(&key) || found.good.contains_key(&key);
        let uri = source_uri::resolve(&object.spec.source.uri, directory, environment);
        match peerdist_crds::package_distribution::validate(&object, uri) {
            _ if duplicate => {
                errors.push(document.duplicate_error(ErrorScope::Object));
                found.refused.insert(key);
            }
            Ok(distribution) => {
                found.good.insert(key, (document, distribution));
            }
            Err(faults) => {
                errors.extend(field_errors(document, ErrorScope::Object, faults));
                found.refused.insert(key);
            }
        }
    }
    found
}

fn unmatched_selector(document: &Document, distribution: &Distribution, tree: &OfficeTree) -> Option<ObjectError> {
    let unmatched = !tree.offices().any(|office| distribution.offices.matches(office));
    let message = format!(
        "no office has the labels {}: expected at least one; correct the labels here or on an Office",
        distribution.offices
    );
    unmatched.then(|| document.error(ErrorScope::Object, "spec.offices.matchLabels", NO_OFFICE_SELECTED, message))
}

/// No role talks to a connector yet: better said than silently left undone.
fn unserved_endpoints(documents: &[Document]) -> Vec<ObjectError> {
    let unserved = |document: &Document| match document.parse::<VescEndpoint>() {
        Ok(_) => {
            let message = "no role of this release talks to a connector: expected no VescEndpoint; remove it";
            vec![document.error(ErrorScope::Object, "", "KindNotServed", message)]
        }
        Err(faults) => faults,
    };
    of_kind(documents, "VescEndpoint").flat_map(unserved).collect()
}

#[cfg(test)]
mod tests;
