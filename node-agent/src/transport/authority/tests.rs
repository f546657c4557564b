//! An authority of its own and one that is given: what nodes get from either, and what they trust after.

use std::os::unix::fs::symlink;

use peerdist_authority::server_identity::new_secret;
use peerdist_authority::{CertifiedKey, days};

use super::super::certificate::CertificateFacts;
use super::*;

fn now() -> SystemTime {
    SystemTime::now()
}

/// What an operator would give a server under this root.
fn given_by(root: &CertifiedKey) -> ServerIdentity {
    ServerIdentity {
        roots: vec![root.certificate.clone()],
        intermediate: root.new_intermediate(now()).unwrap(),
        manifest_key: SigningKey::from_bytes(&[1; 32]),
        next_manifest_key: Some(SigningKey::from_bytes(&[2; 32])),
        office_secret: new_secret(),
    }
}

/// Puts the files where kubelet would, and turns the link.
fn mount(folder: &Path, version: &str, identity: &ServerIdentity) {
    let target = folder.join(version);
    std::fs::create_dir_all(&target).unwrap();
    for (name, content) in identity.files() {
        std::fs::write(target.join(name), content).unwrap();
    }
    let turned = folder.join("..data_tmp");
    symlink(version, &turned).unwrap();
    std::fs::rename(turned, folder.join("..data")).unwrap();
}

#[test]
fn authority_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Authority::open(folder.path(), now()).unwrap();
    let second = Authority::open(folder.path(), now()).unwrap();
    assert_eq!(first.root_sha256(), second.root_sha256());
    assert_eq!(first.manifest_key().to_bytes(), second.manifest_key().to_bytes());
    let office = "store-1".parse().unwrap();
    assert_eq!(first.office_key(&office), second.office_key(&office));
    assert_ne!(first.office_key(&office), first.office_key(&"store-2".parse().unwrap()));
}

#[test]
fn certificate_says_what_the_caller_decided() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), now()).unwrap();
    let node = NodeIdentity::open(&folder.path().join("client")).unwrap();
    let identity = PeerIdentity::Client { office: "store-1".parse().unwrap(), node: "till-1".parse().unwrap() };
    let address = "127.77.0.9".parse().unwrap();
    let issued = authority.issue(&node.certificate_request().unwrap(), &identity, address, now()).unwrap();
    let facts = CertificateFacts::read(&issued.certificate).unwrap();
    assert_eq!((facts.identity, facts.addresses), (identity, vec![address]));
    assert!(facts.not_before < now() && facts.not_after > now() + days(6));
    let error = authority.issue(&node.certificate_request().unwrap(), &PeerIdentity::Enrolling, address, now());
    assert!(matches!(error, Err(AuthorityError::Nobody)));
    let error = authority.issue(b"rubbish", &PeerIdentity::Server, address, now());
    assert!(matches!(error, Err(AuthorityError::Request(_))));
}

#[test]
fn intermediate_is_replaced_before_it_runs_out() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), now()).unwrap();
    let issue = |at| {
        let node = NodeIdentity::open(&folder.path().join("client")).unwrap();
        let address = "127.77.0.9".parse().unwrap();
        authority.issue(&node.certificate_request().unwrap(), &PeerIdentity::Server, address, at).unwrap().chain
    };
    let first = issue(now());
    assert_eq!(issue(now() + days(50)), first);
    assert_ne!(issue(now() + days(61)), first);
}

#[test]
fn damaged_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(Authority::open(folder.path(), now()).unwrap());
    std::fs::write(folder.path().join("root.key"), "x").unwrap();
    let error = Authority::open(folder.path(), now()).unwrap_err();
    assert!(error.to_string().contains("root.key"), "{error}");
}

#[test]
fn given_folder_is_followed_and_a_damaged_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mounted, state) = (folder.path().join("mounted"), folder.path().join("state"));
    std::fs::create_dir(&mounted).unwrap();
    let missing = Authority::follow(&mounted, &state).unwrap_err().to_string();
    assert!(missing.contains("mounted") && missing.contains("roots.pem"), "{missing}");

    let root = CertifiedKey::new_root(now()).unwrap();
    let first = given_by(&root);
    mount(&mounted, "..1", &first);
    let authority = Authority::follow(&mounted, &state).unwrap();
    assert_eq!(authority.look().unwrap(), None);
    let second = ServerIdentity { intermediate: root.new_intermediate(now()).unwrap(), ..given_by(&root) };
    mount(&mounted, "..2", &second);
    assert_eq!(authority.look().unwrap(), Some(AuthorityChange { certificates: true, manifest_key: false }));
    let next = SigningKey::from_bytes(&[2; 32]);
    mount(&mounted, "..3", &ServerIdentity { manifest_key: next.clone(), next_manifest_key: None, ..second });
    assert_eq!(authority.look().unwrap(), Some(AuthorityChange { certificates: false, manifest_key: true }));
    std::fs::remove_file(mounted.join("..3/office.secret")).unwrap();
    assert!(authority.look().unwrap_err().to_string().contains("office.secret"));
    assert_eq!(authority.manifest_key(), next);
    assert!(!state.join("root.key").exists(), "no root is made");
}

#[test]
fn keys_that_the_server_made_before_are_told_of_once_it_is_given_others() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let own = Authority::open(&state, now()).unwrap();
    drop(own.server_identity("127.77.0.9".parse().unwrap(), now()).unwrap());
    let told = super::own::leftovers(&state);
    assert!(told.contains(&state.join("root.key")), "{told:?}");
    assert!(!told.contains(&state.join("node")), "the server's own key stays in use");
    assert!(super::own::leftovers(folder.path()).is_empty());
}

#[test]
fn node_trusts_the_roots_that_it_was_told_of_and_that_its_trust_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let [old, new] = [(); 2].map(|()| CertifiedKey::new_root(now()).unwrap());
    let mut identity = given_by(&old);
    identity.roots.push(new.certificate.clone());
    mount(&mounted, "..1", &identity);
    let authority = Authority::follow(&mounted, folder.path()).unwrap();
    let node = NodeIdentity::open(&folder.path().join("client")).unwrap();
    let peer = PeerIdentity::Client { office: "store-1".parse().unwrap(), node: "till-1".parse().unwrap() };
    let reply = || {
        let request = node.certificate_request().unwrap();
        authority.reply(authority.issue(&request, &peer, "127.77.0.9".parse().unwrap(), now()).unwrap())
    };
    let [old, new] = [old, new].map(|root| (sha256(&root.certificate), root.certificate));
    node.install(std::slice::from_ref(&old.1), reply()).unwrap();
    assert_eq!((node.trusts_all(&[old.0]), node.trusts_all(&[old.0, new.0])), (true, false));
    assert_eq!(node.manifest_keys().len(), 2);
    node.renew(reply(), None).unwrap();
    assert!(!node.trusts_any(&[new.0]), "whose trust file is not there trusts what it trusted");
    node.renew(reply(), Some(&[old.0])).unwrap();
    assert!(!node.trusts_any(&[new.0]), "the server alone adds no root");
    node.renew(reply(), Some(&[old.0, new.0])).unwrap();
    assert!(node.trusts_all(&[old.0, new.0]));
    let again = NodeIdentity::open(&folder.path().join("client")).unwrap();
    assert!(again.trusts_all(&[old.0, new.0]), "after a restart too");
    node.renew(reply(), Some(&[new.0])).unwrap();
    assert!(!node.trusts_any(&[old.0]), "a root that is named no more is trusted no more");
    assert!(node.trusts_any(&[new.0]) && !node.trusts_all(&[new.0]), "its certificate is of that one still");
    assert!(node.renew(reply(), Some(&[[7; 32]])).is_err());
}
