//! A DaemonSet of ours. Its spec is kept as text: it is compared with what is asked for, and as values of Kubernetes it
//! takes several times the memory.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::{Error, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::metadata::without_managed_fields;

/// A DaemonSet of ours. It is written as it was read, without status and managed fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Told")]
pub struct HeldDaemonSet {
    /// What counts of its metadata.
    pub metadata: ObjectMeta,
    pub(crate) spec: Text,
    /// The labels that it asks of its nodes.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Its counts.
    pub status: Option<DaemonSetStatus>,
}

stands_for!(HeldDaemonSet, DaemonSet);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    #[serde(deserialize_with = "without_managed_fields")]
    metadata: ObjectMeta,
    spec: Value,
    status: Option<DaemonSetStatus>,
}

impl From<Told> for HeldDaemonSet {
    fn from(told: Told) -> Self {
        let Told { metadata, spec, status } = told;
        let node_selector = &spec["template"]["spec"]["nodeSelector"];
        let node_selector = Option::<BTreeMap<String, String>>::deserialize(node_selector).ok().flatten();
        Self { metadata, spec: Text(spec.to_string().into_boxed_str()), node_selector, status }
    }
}

impl Serialize for HeldDaemonSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct(DaemonSet::KIND, 4)?;
        object.serialize_field("apiVersion", DaemonSet::API_VERSION)?;
        object.serialize_field("kind", DaemonSet::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        object.end()
    }
}

/// A value as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Text(Box<str>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<Value>(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::apply::differs;
    use crate::fleet::tests::{judged, office, site};
    use crate::office::build;
    use crate::settings::tests::settings;

    #[test]
    fn what_is_held_is_compared_like_the_object_itself() {
        let fleet = judged(&[office("hub", 1, site("hub", None))], &[]);
        let desired = build(fleet.accepted().next().unwrap(), &settings(), "peerdist").daemon_set.body;
        let mut live = desired.clone();
        live["metadata"]["resourceVersion"] = json!("7");
        live["metadata"]["generation"] = json!(2);
        live["metadata"]["managedFields"] = json!([{"manager": "peerdist-operator", "fieldsV1": {"f:spec": {}}}]);
        live["spec"]["template"]["spec"]["schedulerName"] = json!("default-scheduler");
        live["status"] = json!({"observedGeneration": 2, "desiredNumberScheduled": 3});
        let held: HeldDaemonSet = serde_json::from_str(&live.to_string()).unwrap();
        let shown = serde_json::to_value(&held).unwrap();
        assert!(!differs(&desired, &shown), "{shown}");
        assert_eq!(shown["metadata"]["resourceVersion"], "7");
        assert!(shown["metadata"]["managedFields"].is_null() && shown["status"].is_null());
        assert_eq!((held.namespace().as_deref(), held.metadata.generation), (Some("peerdist"), Some(2)));
        assert_eq!(held.node_selector, Some(BTreeMap::from([("site".to_owned(), "hub".to_owned())])));
        assert_eq!(held.status.map(|status| status.desired_number_scheduled), Some(3));

        live["spec"]["template"]["spec"]["hostNetwork"] = json!(false);
        let edited: HeldDaemonSet = serde_json::from_value(live).unwrap();
        assert!(differs(&desired, &serde_json::to_value(&edited).unwrap()));
    }

    #[test]
    fn a_daemon_set_may_say_nothing_but_its_name() {
        let held: HeldDaemonSet = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!((held.node_selector.as_ref(), held.status.as_ref()), (None, None));
        let expected = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "a"}, "spec": null});
        assert_eq!(serde_json::to_value(&held).unwrap(), expected);
    }
}
