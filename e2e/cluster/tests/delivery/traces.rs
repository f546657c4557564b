//! What one collector hears of operator, server and clients: everything that is done for a package, in one trace, from the
//! reconcile of its object to the last node. The roles are processes of their own, so that a span below one of another
//! role shows that a message or a transfer carried the trace there.

use anyhow::{Context, Result, ensure};
use peerdist_core::names::{DistributionKey, Namespace, PackageKey, PackageName, Version};
use peerdist_core::trace::PackageTrace;
use peerdist_e2e_cluster::waiting::eventually;
use peerdist_telemetry::collector::{CollectedSpan, Collector};
use serde_json::json;

use crate::origin::Origin;
use crate::site::{NODES, Site, SiteOptions};

/// Size of the package.
const PACKAGE_BYTES: usize = 1 << 20;
/// The roles, as they name themselves in traces.
const OPERATOR: &str = "peerdist-operator";
const SERVER: &str = "peerdist-server";
const CLIENT: &str = "peerdist-client";

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_object_through_the_server_to_every_node() -> Result<()> {
    let mut collector = Collector::start().await;
    let origin = Origin::start(PACKAGE_BYTES).await?;
    let options = SiteOptions { traces: Some(collector.endpoint().to_owned()), ..SiteOptions::default() };
    let site = Site::start_with(origin.address(), options).await?;
    site.apply_package("app", json!({"version": "1", "source": {"uri": origin.url()}})).await?;
    site.package_is("app", "Ready").await?;

    let (package, mut spans) = (package()?, Vec::new());
    let trace = PackageTrace::of(&package);
    let found = eventually("every role has sent its part of the trace", async || {
        spans.extend(collector.spans());
        Ok(missing(&spans, &trace).is_empty())
    })
    .await;
    found.with_context(|| format!("missing in the trace: {:#?}", missing(&spans, &trace)))?;
    site.stop().await?;
    spans.extend(collector.spans());

    let name = package.to_string();
    for span in spans.iter().filter(|span| span.attribute("package") == Some(name.as_str())) {
        ensure!(span.span.trace_id == trace.trace_id, "{name} has a span in another trace: {span:?}");
    }
    Ok(())
}

fn package() -> Result<PackageKey> {
    let distribution = DistributionKey { namespace: Namespace::new("retail")?, name: PackageName::new("app")? };
    Ok(PackageKey { distribution, version: Version::new("1")? })
}

/// What should be in the trace and has not arrived yet.
fn missing(spans: &[CollectedSpan], trace: &PackageTrace) -> Vec<String> {
    let heard = Heard {
        root_span_id: trace.root_span_id,
        spans: spans.iter().filter(|span| span.span.trace_id == trace.trace_id).collect(),
    };
    let mut expected = vec![
        ("reconcile of the object".to_owned(), heard.is_below_root(OPERATOR, "reconcile")),
        ("ingest of the source".to_owned(), heard.is_below_root(SERVER, "ingest")),
    ];
    for node in &NODES {
        let holder = if node.office == "hub" { SERVER } else { CLIENT };
        let steps = ["prepare", "publish"];
        expected.extend(steps.map(|step| (format!("{step} of {}", node.name), heard.is_done(step, node.name))));
        let transfer = format!("transfer to {} that a {holder} began because it was asked", node.name);
        expected.push((transfer, heard.is_sent(holder, node.name)));
    }
    let completed = heard.count_of_completions() >= NODES.len();
    expected.push(("what the server does when each client says that it is complete".to_owned(), completed));
    expected.into_iter().filter(|(_, has_arrived)| !has_arrived).map(|(what, _)| what).collect()
}

/// The spans of one trace.
struct Heard<'spans> {
    root_span_id: [u8; 8],
    spans: Vec<&'spans CollectedSpan>,
}

impl<'spans> Heard<'spans> {
    /// Whether a role began such a span for the package itself.
    fn is_below_root(&self, service: &str, name: &str) -> bool {
        self.of(service, name).any(|span| span.span.parent_span_id == self.root_span_id)
    }

    /// Whether the client of a node took a step.
    fn is_done(&self, step: &str, node: &str) -> bool {
        self.of(CLIENT, step).any(|span| span.attribute("node") == Some(node))
    }

    /// Whether a node got something from a holder of this role, which had its question in a message.
    fn is_sent(&self, holder: &str, node: &str) -> bool {
        let mut transfers = self.of(CLIENT, "transfer").filter(|span| span.attribute("node") == Some(node));
        transfers.any(|span| self.follows(span, &[(holder, "message"), (CLIENT, "want")]))
    }

    /// How often the server heard from a client that it is complete.
    fn count_of_completions(&self) -> usize {
        self.of(SERVER, "message").filter(|span| self.follows(span, &[(CLIENT, "complete")])).count()
    }

    /// Whether these led to the span: service and name of its parent, of that one's parent, and so on.
    fn follows(&self, span: &CollectedSpan, causes: &[(&str, &str)]) -> bool {
        let [(service, name), earlier @ ..] = causes else { return true };
        let parent = self.of(service, name).find(|cause| cause.span.span_id == span.span.parent_span_id);
        parent.is_some_and(|parent| self.follows(parent, earlier))
    }

    fn of(&self, service: &str, name: &str) -> impl Iterator<Item = &'spans CollectedSpan> {
        self.spans.iter().copied().filter(move |span| span.service == service && span.span.name == name)
    }
}
