//! Whether a PackageDistribution can be acted upon: its own fields, its source as a cluster allows it, and the offices
//! it names.

use std::str::FromStr;

use peerdist_core::distribution::{Distribution, SourceUri};
use peerdist_core::names::OfficeName;
use peerdist_crds::{FieldError, PackageDistribution};

use crate::fleet::{Fleet, Refusal};
use crate::settings::FileRoots;

/// A distribution that can be acted upon.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidPackage {
    /// What it says.
    pub distribution: Distribution,
    /// The offices that should hold it, at least one.
    pub offices: Vec<OfficeName>,
    /// The Central Office.
    pub central: OfficeName,
}

/// Checks a distribution against the offices and the folders whose files may be sources.
///
/// # Errors
/// [`Refusal`] with the field and what to do.
pub fn validate(object: &PackageDistribution, fleet: &Fleet, file_roots: &FileRoots) -> Result<ValidPackage, Refusal> {
    let uri = source(&object.spec.source.uri, file_roots);
    let distribution =
        peerdist_crds::package_distribution::validate(object, uri).map_err(|errors| Refusal::from_fields(&errors))?;
    let central = fleet.central().and_then(|name| OfficeName::new(name).ok()).ok_or_else(no_central_office)?;
    let matching = fleet.accepted().map(|office| &office.office).filter(|office| distribution.offices.matches(office));
    let offices: Vec<OfficeName> = matching.map(|office| office.name.clone()).collect();
    if offices.is_empty() {
        return Err(no_office(&distribution));
    }
    Ok(ValidPackage { distribution, offices, central })
}

/// A path of the server's machine is nothing that a user of a cluster may name, unless it lies in a folder that the
/// administrator opened for that.
fn source(uri: &str, file_roots: &FileRoots) -> Result<SourceUri, FieldError> {
    let field = "spec.source.uri";
    match SourceUri::from_str(uri) {
        Ok(SourceUri::File(path)) if !file_roots.contain(&path) => {
            Err(FieldError::new(field, "FileSourceNotAllowed", file_not_allowed(file_roots)))
        }
        Ok(uri) => Ok(uri),
        Err(error) => Err(FieldError::new(field, error.reason(), error.to_string())),
    }
}

fn file_not_allowed(file_roots: &FileRoots) -> String {
    if file_roots.is_empty() {
        return "a path of the server's machine is not allowed: expected http:// or https://, since server.fileRoots in \
                the chart's values names no folder; put the file on a web server, or let an administrator name its folder"
            .to_owned();
    }
    let names: Vec<String> = file_roots.iter().map(|root| root.display().to_string()).collect();
    format!(
        "the path lies in no folder of the server's machine that may be a source: expected http://, https://, or a file \
         in {}, as server.fileRoots in the chart's values has it; put the file there, or on a web server",
        names.join(", ")
    )
}

fn no_central_office() -> Refusal {
    Refusal {
        field: String::new(),
        reason: "NoCentralOffice",
        message: "there is no Central Office: expected one accepted Office without spec.parent; add it, or see its \
                  conditions"
            .to_owned(),
        stalled: false,
    }
}

fn no_office(distribution: &Distribution) -> Refusal {
    Refusal {
        field: "spec.offices.matchLabels".to_owned(),
        reason: "NoOfficeSelected",
        message: format!(
            "no accepted office has the labels {}: expected at least one; correct the labels here or on an Office",
            distribution.offices
        ),
        stalled: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fleet::tests::{judged, office, site};
    use crate::settings::Settings;

    fn package(spec: Value) -> PackageDistribution {
        let metadata = json!({"name": "app", "namespace": "retail", "generation": 1});
        let object = json!({
            "apiVersion": peerdist_crds::API_VERSION, "kind": "PackageDistribution", "metadata": metadata, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn roots(list: &str) -> FileRoots {
        let text = format!("image: a\nserver: {{storage: {{hostPath: /x}}, fileRoots: {list}}}");
        Settings::parse(&text).unwrap().server.file_roots
    }

    /// As in a cluster whose administrator named no folder.
    fn validate(object: &PackageDistribution, fleet: &Fleet) -> Result<ValidPackage, Refusal> {
        super::validate(object, fleet, &FileRoots::default())
    }

    fn fleet() -> Fleet {
        let mut store = office("store", 2, site("store", Some("hub")));
        store.metadata.labels = Some([("region".to_owned(), "eu".to_owned())].into());
        judged(&[office("hub", 1, site("hub", None)), store], &[])
    }

    #[test]
    fn packages_get_the_offices_that_their_labels_select() {
        let source = json!({"uri": "https://example.com/a.tar"});
        let all = validate(&package(json!({"version": "1", "source": source})), &fleet()).unwrap();
        assert_eq!(all.offices.iter().map(OfficeName::as_str).collect::<Vec<_>>(), ["hub", "store"]);
        let selected = json!({"version": "1", "source": source, "offices": {"matchLabels": {"region": "eu"}}});
        let selected = validate(&package(selected), &fleet()).unwrap();
        assert_eq!(selected.offices.iter().map(OfficeName::as_str).collect::<Vec<_>>(), ["store"]);
        assert_eq!(selected.central.as_str(), "hub");
    }

    #[test]
    fn bad_packages_are_refused_with_field_and_reason() {
        let uri = "spec.source.uri";
        let with_uri = |uri: &str| json!({"version": "1", "source": {"uri": uri}});
        let https = json!({"uri": "https://example.com/a"});
        let readable = json!({"uri": "http://example.com/a", "secretRef": {"name": "repo"}});
        let digest = json!({"uri": "https://example.com/a", "digest": "sha256:12"});
        for (spec, field, reason) in [
            (with_uri("file:///etc/passwd"), uri, "FileSourceNotAllowed"),
            (with_uri("file:relative"), uri, "MalformedUri"),
            (with_uri("s3://bucket/key"), uri, "UnsupportedScheme"),
            (with_uri("gopher://example.com/a"), uri, "UnsupportedScheme"),
            (with_uri("https://user:secret@example.com/a"), uri, "CredentialsInUri"),
            (with_uri("https:///a"), uri, "MalformedUri"),
            (with_uri("https://example.com/a b"), uri, "MalformedUri"),
            (with_uri(""), uri, "MalformedUri"),
            (json!({"version": "current", "source": https}), "spec.version", "InvalidVersion"),
            (json!({"version": "a/b", "source": https}), "spec.version", "InvalidVersion"),
            (json!({"version": "1", "source": digest}), "spec.source.digest", "MalformedDigest"),
            (json!({"version": "1", "source": readable}), "spec.source.secretRef", "CredentialsNeedTls"),
            (
                json!({"version": "1", "source": https, "retention": {"versions": 0}}),
                "spec.retention.versions",
                "OutOfRange",
            ),
            (
                json!({"version": "1", "source": https, "offices": {"matchLabels": {"region": "us"}}}),
                "spec.offices.matchLabels",
                "NoOfficeSelected",
            ),
        ] {
            let refusal = validate(&package(spec.clone()), &fleet()).unwrap_err();
            assert_eq!((refusal.field.as_str(), refusal.reason), (field, reason), "{spec}");
        }
        let refusal = validate(&package(with_uri("https://example.com/a")), &Fleet::default()).unwrap_err();
        assert_eq!((refusal.reason, refusal.stalled), ("NoCentralOffice", false));
    }

    #[test]
    fn files_are_sources_in_the_named_folders_only() {
        let judge = |uri: &str, list: &str| {
            let object = package(json!({"version": "1", "source": {"uri": uri}}));
            super::validate(&object, &fleet(), &roots(list))
        };
        let list = "[/srv/files, /data]";
        for uri in ["file:///srv/files/app.tar", "file:/data/a/../b", "file://localhost/srv/files"] {
            assert!(judge(uri, list).is_ok(), "{uri}");
        }
        for uri in
            ["file:///srv/files2/app", "file:///srv/files/../app", "file:///data/%2e%2e/etc/passwd", "file:///srv"]
        {
            let refusal = judge(uri, list).unwrap_err();
            assert_eq!((refusal.field.as_str(), refusal.reason), ("spec.source.uri", "FileSourceNotAllowed"), "{uri}");
            assert!(
                refusal.message.contains("a file in /srv/files, /data, as server.fileRoots"),
                "{}",
                refusal.message
            );
        }
        let refusal = judge("file:///srv/files/app.tar", "[]").unwrap_err();
        assert!(refusal.message.contains("names no folder"), "{}", refusal.message);
    }
}
