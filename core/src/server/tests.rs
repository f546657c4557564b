//! What the server orders to be brought in, over objects that come and change.

use super::*;
use crate::distribution::{OfficeSelector, Priority, SourceUri};
use crate::names::{Namespace, PackageName, SecretName};
use crate::office::Office;

pub(super) fn distribution(name: &str, path: &str) -> Distribution {
    Distribution {
        key: DistributionKey { namespace: Namespace::new("retail").unwrap(), name: PackageName::new(name).unwrap() },
        version: Version::new("1").unwrap(),
        source: PackageSource { uri: SourceUri::File(path.into()), digest: None, secret: None },
        unpack: Unpack::None,
        offices: OfficeSelector::default(),
        priority: Priority::Normal,
        not_before: None,
        paused: false,
        retention_versions: 1,
        generation: 1,
    }
}

/// An office that can be selected by its name.
fn office(name: &str, parent: Option<&str>) -> Office {
    Office {
        name: OfficeName::new(name).unwrap(),
        parent: parent.map(|parent| OfficeName::new(parent).unwrap()),
        office_type: OfficeType::Wired,
        labels: [("office".to_owned(), name.to_owned())].into(),
        storage_limit_bytes: None,
        background_bits_per_second_max: None,
    }
}

/// The same distribution for one office alone.
pub(super) fn selecting(office: &str, distribution: &Distribution) -> Distribution {
    let match_labels = [("office".to_owned(), office.to_owned())].into();
    Distribution { offices: OfficeSelector { match_labels }, ..distribution.clone() }
}

pub(super) fn ingested(distribution: &Distribution) -> ServerEvent {
    let [body, signature, key] = [(); 3].map(|()| bytes::Bytes::new());
    let (digest, root) = (Digest::of(b"root"), SignedBytes { body, signature, key });
    let key = distribution.package();
    ServerEvent::Ingested(IngestedPackage { key, digest, root, lengths: [1].into_iter().collect(), bytes: 1 })
}

/// Tells the server, and lists by name what it orders.
fn orders(server: &mut Server, event: ServerEvent) -> Vec<String> {
    server.handle(Instant::now(), Timestamp::UNIX_EPOCH, event);
    let outputs = std::iter::from_fn(|| server.poll());
    outputs
        .filter_map(|output| match output {
            ServerOutput::Ingest { distribution } => Some(distribution.key.name.to_string()),
            ServerOutput::CancelIngest { key } => Some(format!("no {}", key.distribution.name)),
            _ => None,
        })
        .collect()
}

pub(super) fn desired(distributions: &[&Distribution]) -> ServerEvent {
    desired_in([office("central", None)].into(), distributions)
}

/// The same with the office `store` below the Central one.
pub(super) fn desired_with_store(distributions: &[&Distribution]) -> ServerEvent {
    desired_in([office("central", None), office("store", Some("central"))].into(), distributions)
}

fn desired_in(offices: Vec<Office>, distributions: &[&Distribution]) -> ServerEvent {
    let distributions = distributions.iter().map(|&one| (one.key.clone(), one.clone())).collect();
    ServerEvent::Desired { tree: OfficeTree::new(offices).unwrap(), distributions }
}

#[test]
fn source_is_ordered_once_until_the_object_names_another() {
    let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
    let mut server = Server::new(Instant::now(), config);
    let (app, broken) = (distribution("app", "/app"), distribution("broken", "/nowhere"));
    assert_eq!(orders(&mut server, desired(&[&app, &broken])), ["app", "broken"]);
    assert!(orders(&mut server, ingested(&app)).is_empty(), "the other one is not asked for again");
    let calmer = Distribution { priority: Priority::Low, ..broken.clone() };
    assert!(orders(&mut server, desired(&[&app, &calmer])).is_empty(), "its source is the same");
    let corrected = distribution("broken", "/somewhere");
    assert_eq!(orders(&mut server, desired(&[&app, &corrected])), ["broken"]);
    let with_secret = |one: &Distribution| {
        let secret = Some(SecretName::new("credentials").unwrap());
        Distribution { source: PackageSource { secret, ..one.source.clone() }, ..one.clone() }
    };
    let (app, corrected) = (with_secret(&app), with_secret(&corrected));
    assert_eq!(orders(&mut server, desired(&[&app, &corrected])), ["broken"], "what is there needs no credentials");
    assert_eq!(orders(&mut server, desired(&[&app])), ["no broken"]);
}

#[test]
fn package_that_left_the_library_is_brought_in_again_when_an_object_names_it() {
    let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
    let mut server = Server::new(Instant::now(), config);
    let app = distribution("app", "/app");
    assert_eq!(orders(&mut server, desired(&[&app])), ["app"]);
    assert!(orders(&mut server, ingested(&app)).is_empty());
    let removed = |digest| ServerEvent::Removed(vec![(app.package(), digest)]);
    assert!(orders(&mut server, removed(Digest::of(b"another"))).is_empty(), "the one that is there is another");
    assert!(orders(&mut server, desired(&[])).is_empty());
    assert!(orders(&mut server, removed(Digest::of(b"root"))).is_empty(), "nobody wants it now");
    assert_eq!(orders(&mut server, desired(&[&app])), ["app"]);
    assert!(orders(&mut server, ingested(&app)).is_empty());
    assert_eq!(orders(&mut server, removed(Digest::of(b"root"))), ["app"], "it went after it was named again");
}

#[test]
fn word_about_unknown_packages_and_nodes_is_not_kept() {
    let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
    let (mut server, now) = (Server::new(Instant::now(), config), Instant::now());
    let app = distribution("app", "/app");
    orders(&mut server, desired(&[&app]));
    orders(&mut server, ingested(&app));
    let office = OfficeName::new("central").unwrap();
    let node = |name: &str| NodeRef {
        name: NodeName::new(name).unwrap(),
        office: office.clone(),
        address: "127.0.0.1".parse().unwrap(),
    };
    let states = ["a", "invented"].map(|name| (node(name).name, crate::message::NodeState::default()));
    let of = |digest| crate::message::OfficePackage {
        digest,
        available: bytes::Bytes::new(),
        nodes: states.clone().into_iter().collect(),
    };
    let (known, unknown) = (Digest::of(b"root"), Digest::of(b"invented"));
    let packages = vec![of(known), of(unknown)];
    let report = crate::message::OfficeReport { term: 1, plan_revision: 2, packages };
    server.message(now, &node("a"), Message::OfficeReport(report)).unwrap();
    server.message(now, &node("a"), Message::Complete { digest: unknown, bytes: 1, plan_revision: None }).unwrap();
    assert!(server.progress(&office, unknown).is_none());
    let nodes: Vec<&str> = server.progress(&office, known).unwrap().nodes.keys().map(NodeName::as_str).collect();
    assert_eq!(nodes, ["a"]);
    assert_eq!(orders(&mut server, desired(&[])), [""; 0]);
}

#[test]
fn plans_carry_roots_that_were_signed_anew() {
    let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
    let mut server = Server::new(Instant::now(), config);
    let app = distribution("app", "/app");
    orders(&mut server, desired(&[&app]));
    orders(&mut server, ingested(&app));
    let key = bytes::Bytes::from_static(b"another key");
    let root = SignedBytes { key, ..server.packages().next().unwrap().root.clone() };
    let stranger = distribution("stranger", "/app").package();
    let roots = BTreeMap::from([(app.package(), root.clone()), (stranger, root.clone())]);
    assert!(orders(&mut server, ServerEvent::SignedAnew(roots)).is_empty(), "nothing is brought in again");
    assert_eq!(server.packages().count(), 1);
    let plan = &server.plans[&OfficeName::new("central").unwrap()];
    assert_eq!(plan.packages.iter().map(|package| &package.root).collect::<Vec<_>>(), [&root]);
}

#[test]
fn plans_name_what_is_not_in_the_library_so_that_no_node_drops_it() {
    let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
    let mut server = Server::new(Instant::now(), config);
    let app = distribution("app", "/app");
    let office = OfficeName::new("central").unwrap();
    orders(&mut server, desired(&[&app]));
    assert_eq!(server.plans[&office].awaited, [app.package()]);
    orders(&mut server, ingested(&app));
    assert_eq!((server.plans[&office].awaited.as_slice(), server.plans[&office].packages.len()), (&[][..], 1));
    orders(&mut server, desired(&[]));
    assert!(server.plans[&office].awaited.is_empty());
}

#[test]
fn version_that_was_gone_back_to_stays_in_force_until_the_next_is_brought_in() {
    let config = ServerConfig { addresses: Vec::new(), last_revision: 0, retention_seconds: 0 };
    let mut server = Server::new(Instant::now(), config);
    let app = |text: &str| Distribution { version: Version::new(text).unwrap(), ..distribution("app", "/app") };
    let planned = |server: &Server| -> Vec<String> {
        let plan = &server.plans[&OfficeName::new("central").unwrap()];
        plan.packages.iter().map(|package| package.key.version.to_string()).collect()
    };
    for text in ["1", "2"] {
        orders(&mut server, desired(&[&app(text)]));
        orders(&mut server, ingested(&app(text)));
    }
    assert!(orders(&mut server, desired(&[&app("1")])).is_empty());
    assert_eq!(planned(&server), ["1"]);
    assert_eq!(orders(&mut server, desired(&[&app("3")])), ["app"]);
    assert_eq!(planned(&server), ["1"]);
    orders(&mut server, ingested(&app("3")));
    assert_eq!(planned(&server), ["3"]);
}
