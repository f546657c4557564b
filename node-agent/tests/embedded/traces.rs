//! What an OTLP endpoint hears of a run: everything that is done for a package, in one trace.

use std::collections::BTreeSet;

use peerdist_core::names::{DistributionKey, Namespace, PackageKey, PackageName, Version};
use peerdist_core::trace::PackageTrace;
use peerdist_telemetry::collector::{CollectedSpan, Collector};
use tokio::runtime::Runtime;

use crate::objects::{content, package, two_offices};
use crate::place::{DONE, Place, Run};

const NODES: [&str; 3] = ["central-1", "store-1", "store-2"];

fn key(name: &str) -> PackageKey {
    let (namespace, name) = (Namespace::new("demo").unwrap(), PackageName::new(name).unwrap());
    PackageKey { distribution: DistributionKey { namespace, name }, version: Version::new("1").unwrap() }
}

/// Runs until both packages are everywhere, and gives what was heard.
fn spans_of_a_run(place: &Place) -> Vec<CollectedSpan> {
    let runtime = Runtime::new().unwrap();
    let mut collector = runtime.block_on(Collector::start());
    let mut command = place.command();
    command.arg("--once").env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    let ended = Run::start(command).wait();
    assert_eq!(ended.code, Some(DONE), "{}", ended.said);
    collector.spans()
}

#[test]
fn trace_follows_a_package_from_its_source_to_the_last_node() {
    let place = Place::new(141);
    for name in ["app", "data"] {
        place.write(&format!("{name}/file"), &content(name, 2 << 20));
    }
    let both = package("app", "1", &place.uri("app"), "") + &package("data", "1", &place.uri("data"), "");
    place.objects(&(two_offices() + &both));
    let spans = spans_of_a_run(&place);
    for key in [key("app"), key("data")] {
        let trace = PackageTrace::of(&key);
        let in_trace: Vec<&CollectedSpan> = spans.iter().filter(|span| span.span.trace_id == trace.trace_id).collect();
        let count = |name: &str| in_trace.iter().filter(|span| span.span.name == name).count();
        assert_eq!(count("ingest"), 1, "{key}");
        for step in ["prepare", "transfer", "publish"] {
            let steps = in_trace.iter().filter(|span| span.span.name == step);
            let nodes: BTreeSet<&str> = steps.filter_map(|span| span.attribute("node")).collect();
            assert_eq!(nodes, BTreeSet::from(NODES), "{step} of {key}");
        }
        assert!(count("want") >= NODES.len(), "{key}");
        assert!(count("message") >= NODES.len(), "{key}: whoever is asked or told goes on in the trace");
        let (about, name) = (in_trace.iter().filter_map(|span| span.attribute("package")), key.to_string());
        assert!(about.clone().count() > 0 && { about }.all(|package| package == name), "{key}");
        let elsewhere = spans.iter().filter(|span| span.attribute("package") == Some(&name));
        assert!({ elsewhere }.all(|span| span.span.trace_id == trace.trace_id), "{key}");
    }
}
