//! Objects of a cluster, read each by itself: one that this release cannot read, such as one with a value that a newer
//! release has, is known by its name and is refused, and does not keep the others of its list from being read.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::object::HasStatus;
use kube::runtime::watcher::Event;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::{FieldError, Office, OfficeSpec, PackageDistribution, VescEndpoint};

/// Reason of an object that this release cannot read.
pub const NOT_UNDERSTOOD: &str = "NotUnderstood";

/// A kind of which an object can stand for one that cannot be read.
pub trait Kind: Resource<DynamicType = ()> + HasStatus + DeserializeOwned {
    /// An object without content that every check refuses with this fault.
    fn not_understood(fault: FieldError) -> Self;
}

impl Kind for Office {
    fn not_understood(fault: FieldError) -> Self {
        Self::new("", OfficeSpec { not_understood: Some(fault), ..OfficeSpec::default() })
    }
}

impl Kind for PackageDistribution {
    fn not_understood(fault: FieldError) -> Self {
        Self::new("", crate::package_distribution::not_understood(fault))
    }
}

impl Kind for VescEndpoint {
    fn not_understood(fault: FieldError) -> Self {
        Self::new("", crate::VescEndpointSpec { address: String::new(), not_understood: Some(fault) })
    }
}

/// An object as it was read, or one that stands for it.
#[derive(Debug, Clone)]
pub struct Readable<K>(pub K);

impl<'de, K> Deserialize<'de> for Readable<K>
where
    K: Kind,
    K::Status: DeserializeOwned,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let status = value.as_object_mut().and_then(|object| object.remove("status")).and_then(readable_status);
        // Who wrote which field is the API server's book-keeping, as long as the object itself, and nobody here reads it.
        value.get_mut("metadata").and_then(Value::as_object_mut).map(|metadata| metadata.remove("managedFields"));
        let mut object = match serde_path_to_error::deserialize::<_, K>(&value) {
            Ok(object) => object,
            Err(error) => {
                let mut object = K::not_understood(fault(&error));
                *object.meta_mut() = ObjectMeta::deserialize(&value["metadata"]).map_err(D::Error::custom)?;
                object
            }
        };
        *object.status_mut() = status;
        Ok(Self(object))
    }
}

/// What can be read of a status: fields of a newer release that cannot are left out, each by itself. Who took the others for
/// missing too would write them anew without end.
fn readable_status<S: DeserializeOwned>(status: Value) -> Option<S> {
    let Value::Object(mut fields) = status else { return None };
    fields.retain(|name, value| S::deserialize(json!({ name: value })).is_ok());
    S::deserialize(Value::Object(fields)).ok()
}

fn fault(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let message = format!(
        "{}: release {} of peerdist cannot read that; upgrade what is of this release, or correct the field",
        error.inner(),
        env!("CARGO_PKG_VERSION")
    );
    FieldError::new(error.path().to_string(), NOT_UNDERSTOOD, message)
}

impl<K: Resource> Resource for Readable<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// What a watch told, of the objects themselves.
pub fn unwrapped<K>(event: Event<Readable<K>>) -> Event<K> {
    match event {
        Event::Apply(Readable(object)) => Event::Apply(object),
        Event::Delete(Readable(object)) => Event::Delete(object),
        Event::Init => Event::Init,
        Event::InitApply(Readable(object)) => Event::InitApply(object),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt;
    use kube::core::ObjectList;

    fn list<K>(kind: &str, specs: &[Value], status: &Value) -> Vec<K>
    where
        K: Kind + Clone,
        K::Status: DeserializeOwned,
    {
        let object = |(number, spec): (usize, &Value)| {
            json!({
                "apiVersion": crate::API_VERSION, "kind": kind, "spec": spec, "status": status,
                "metadata": {"name": format!("object-{number}"), "namespace": "retail", "uid": "u", "generation": 3},
            })
        };
        let items: Vec<Value> = specs.iter().enumerate().map(object).collect();
        let list =
            json!({"apiVersion": crate::API_VERSION, "kind": format!("{kind}List"), "metadata": {}, "items": items});
        let list: ObjectList<Readable<K>> = serde_json::from_value(list).unwrap();
        list.items.into_iter().map(|Readable(object)| object).collect()
    }

    #[test]
    fn an_office_of_a_newer_release_is_refused_and_the_others_of_the_list_are_read() {
        let specs = [json!({"type": "WiFi"}), json!({"type": "Mesh", "parent": "hub"}), json!({})];
        let offices: Vec<Office> = list("Office", &specs, &json!({"observedGeneration": 2, "nodes": {"desired": 7}}));
        let judged: Vec<Option<(String, &str)>> = offices
            .iter()
            .map(|office| {
                let faults = crate::office::validate(office).err()?;
                Some((faults[0].field.clone(), faults[0].reason))
            })
            .collect();
        assert_eq!(judged, [None, Some(("spec.type".to_owned(), NOT_UNDERSTOOD)), None]);
        let odd = &offices[1];
        assert_eq!((odd.name_any().as_str(), odd.metadata.generation), ("object-1", Some(3)));
        assert_eq!(odd.status.as_ref().and_then(|status| status.observed_generation), Some(2));
        assert!(odd.spec.not_understood.as_ref().unwrap().message.contains("`Mesh`"));
    }

    #[test]
    fn packages_and_endpoints_of_a_newer_release_are_refused_with_the_field() {
        let source = json!({"uri": "https://a/b"});
        let specs = [json!({"version": "1", "source": source, "priority": "Whenever"}), json!({"version": "1"})];
        let packages: Vec<PackageDistribution> = list("PackageDistribution", &specs, &Value::Null);
        let fields: Vec<String> = packages
            .iter()
            .map(|package| {
                let uri = package.spec.source.uri.parse();
                let uri = uri.map_err(|_| FieldError::new("spec.source.uri", "MalformedUri", ""));
                let faults = crate::package_distribution::validate(package, uri).unwrap_err();
                assert_eq!((faults.len(), faults[0].reason), (1, NOT_UNDERSTOOD));
                assert!(crate::package_distribution::key(package).is_ok());
                faults[0].field.clone()
            })
            .collect();
        assert_eq!(fields, ["spec.priority", "spec"]);
        let endpoints: Vec<VescEndpoint> = list("VescEndpoint", &[json!({"deploy": {}})], &Value::Null);
        assert_eq!(crate::vesc_endpoint::validate(&endpoints[0]).unwrap_err().reason, NOT_UNDERSTOOD);
    }

    #[test]
    fn of_a_status_of_a_newer_release_counts_what_can_be_read() {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status =
            json!({"conditions": [condition], "percent": {"of": "bytes"}, "eviction": {"nodes": 2, "named": []}});
        let spec = json!({"version": "1", "source": {"uri": "https://a/b"}});
        let packages: Vec<PackageDistribution> = list("PackageDistribution", &[spec], &status);
        let status = packages[0].status.as_ref().unwrap();
        assert_eq!((status.conditions.len(), status.percent), (1, None));
        assert_eq!(status.eviction.as_ref().map(|eviction| eviction.nodes), Some(2));
        let offices: Vec<Office> = list("Office", &[json!({"type": "WiFi"})], &json!({"conditions": "many"}));
        assert!(offices[0].status.as_ref().is_some_and(|status| status.conditions.is_empty()));
        assert!(crate::office::validate(&offices[0]).is_ok());
    }

    #[test]
    fn what_was_not_understood_is_never_written() {
        let office = Office::not_understood(FieldError::new("spec.type", NOT_UNDERSTOOD, ""));
        assert!(!serde_json::to_string(&office).unwrap().contains(NOT_UNDERSTOOD));
    }
}
