//! Objects that a test writes: what a user would apply, and what kubelet and controllers would report.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::waiting::eventually;

/// Namespace of the operator in tests.
pub const NAMESPACE: &str = "peerdist";

/// The administrator's hand.
pub struct Hand {
    /// Its client.
    pub client: Client,
}

impl Hand {
    /// Installs the three kinds and waits until they are served; makes the namespaces.
    ///
    /// # Errors
    /// When the API server refuses something.
    pub async fn install(&self) -> Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for definition in peerdist_crds::definitions() {
            api.create(&PostParams::default(), &definition).await.context("create a definition")?;
        }
        for definition in peerdist_crds::definitions() {
            let name = definition.name_any();
            eventually(&format!("{name} is served"), async || Ok(is_established(&api.get(&name).await?))).await?;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in [NAMESPACE, "retail"] {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let namespace = Namespace { metadata, ..Namespace::default() };
            namespaces.create(&PostParams::default(), &namespace).await?;
        }
        Ok(())
    }

    /// Adds a node with one label and one address.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn add_node(&self, name: &str, label: (&str, &str), address: &str) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": {label.0: label.1}}}))?;
        api.create(&PostParams::default(), &node).await?;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Applies an object of ours as a user would.
    ///
    /// # Errors
    /// What the API server says against it.
    pub async fn apply<K>(&self, api: &Api<K>, object: Value) -> Result<K, kube::Error>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        api.patch(&name, &PatchParams::apply("test").force().validation_strict(), &Patch::Apply(object)).await
    }

    /// Reports what the controller of DaemonSets would.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn report_daemon_set(&self, name: &str, nodes: i32) -> Result<()> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        let generation = api.get(name).await?.metadata.generation;
        let status = json!({"status": {
            "observedGeneration": generation, "desiredNumberScheduled": nodes, "currentNumberScheduled": nodes,
            "updatedNumberScheduled": nodes, "numberAvailable": nodes, "numberReady": nodes, "numberMisscheduled": 0,
        }});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Reports what the controller of StatefulSets and kubelet would about the server.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn report_server(&self, address: &str) -> Result<()> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        // It comes after the DaemonSets.
        eventually("the server's StatefulSet", async || Ok(sets.get_opt("peerdist-server").await?.is_some())).await?;
        let set = sets.get("peerdist-server").await?;
        let status = json!({"status": {
            "observedGeneration": set.metadata.generation, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1,
        }});
        sets.patch_status("peerdist-server", &PatchParams::default(), &Patch::Merge(status)).await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let template = set.spec.template;
        let mut pod = json!({
            "metadata": {"name": "peerdist-server-0", "labels": template.metadata.and_then(|metadata| metadata.labels)},
            "spec": template.spec,
        });
        pod["spec"]["nodeName"] = json!("hub-1");
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let status = json!({"status": {"hostIP": address, "hostIPs": [{"ip": address}]}});
        pods.patch_status("peerdist-server-0", &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}

/// The settings file of an operator that gives clients this image.
pub fn settings_text(image: &str) -> String {
    format!("image: {image}\nserver: {{storage: {{hostPath: /var/lib/peerdist-server}}}}")
}

/// An object of ours without a namespace, as somebody would write it.
pub fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": peerdist_crds::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Established").any(|condition| condition.status == "True")
}
