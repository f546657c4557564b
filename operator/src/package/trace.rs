//! Where a reconcile belongs: into the trace of the package that the object names, with which server and clients go on.

use peerdist_core::names::{PackageKey, Version};
use peerdist_crds::{PackageDistribution, package_distribution};
use peerdist_telemetry::join_package_trace;
use tracing::Span;

/// The span of a reconcile. An object whose names are refused has no package, and a trace of its own.
pub(super) fn span_of(object: &PackageDistribution) -> Span {
    let package = package_of(object);
    let span = tracing::info_span!("reconcile", package = package.as_ref().map(display));
    if let Some(package) = &package {
        join_package_trace(&span, package);
    }
    span
}

fn package_of(object: &PackageDistribution) -> Option<PackageKey> {
    let distribution = package_distribution::key(object).ok()?;
    Some(PackageKey { distribution, version: Version::new(&object.spec.version).ok()? })
}

#[cfg(test)]
mod tests {
    use peerdist_core::trace::PackageTrace;
    use peerdist_telemetry::collector::collected;
    use serde_json::json;
    use tracing::Instrument;

    use super::*;

    fn object(version: &str) -> PackageDistribution {
        let object = json!({
            "apiVersion": peerdist_crds::API_VERSION,
            "kind": "PackageDistribution",
            "metadata": {"name": "pos-app", "namespace": "retail", "uid": "7d9c", "generation": 3},
            "spec": {"version": version, "source": {"uri": "https://example.com/a.tar"}},
        });
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reconcile_is_in_the_trace_that_names_and_version_give() {
        let spans = collected(async || {
            let in_kube = tracing::info_span!(target: "kube_runtime::controller", "reconciling object");
            async { async {}.instrument(span_of(&object("7.4.1"))).await }.instrument(in_kube).await;
        })
        .await;
        let reconcile = spans.iter().find(|span| span.span.name == "reconcile").unwrap();
        let trace = PackageTrace::of(&package_of(&object("7.4.1")).unwrap());
        assert_eq!(reconcile.span.trace_id, trace.trace_id);
        assert_eq!(reconcile.span.parent_span_id, trace.root_span_id);
        assert_eq!(reconcile.attribute("package"), Some("retail/pos-app 7.4.1"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reconcile_of_an_object_without_a_valid_version_is_traced_all_the_same() {
        let spans = collected(async || drop(span_of(&object("current")))).await;
        assert_eq!((spans[0].span.name.as_str(), spans[0].attribute("package")), ("reconcile", None));
    }
}
