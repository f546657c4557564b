//! Secrets of a manifest directory, with the credentials of sources: the objects that people write for Kubernetes, of any
//! type. Faults are told of the object that names the Secret, when its source is fetched; what does not have the form of
//! a Secret makes the set unusable. No error shows a value.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peerdist_core::names::{Namespace, SecretName};
use serde_json::Value;

use crate::desired::document::{Document, SECRET_KIND};
use crate::desired::error::{ErrorScope, ObjectError};
use crate::source::{Credentials, KnownSecrets, SecretKey};

/// Fields of a Secret.
const FIELDS: [&str; 7] = ["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"];

/// The Secrets among the documents.
pub(super) fn read(documents: &[Document], errors: &mut Vec<ObjectError>) -> KnownSecrets {
    let mut known = KnownSecrets::new();
    for document in documents.iter().filter(|document| document.kind == SECRET_KIND) {
        match values(document).and_then(|values| Ok((key(document)?, values))) {
            Ok((key, _)) if known.contains_key(&key) => errors.push(document.duplicate_error(ErrorScope::Set)),
            Ok((key, values)) => {
                let credentials = Credentials::from_keys(|name| values.get(name).map(Vec::as_slice));
                known.insert(key, credentials);
            }
            Err(fault) => errors.push(fault),
        }
    }
    known
}

fn key(document: &Document) -> Result<SecretKey, ObjectError> {
    let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = match text("/metadata/namespace") {
        "" => peerdist_crds::package_distribution::NAMESPACE_DEFAULT,
        namespace => namespace,
    };
    let refused = |field: &str, error| document.error(ErrorScope::Set, field, "InvalidName", error);
    Ok(SecretKey {
        namespace: Namespace::new(namespace).map_err(|error| refused("metadata.namespace", error))?,
        name: SecretName::new(text("/metadata/name")).map_err(|error| refused("metadata.name", error))?,
    })
}

/// The values by key. As with Kubernetes, `stringData` goes before `data`.
fn values(document: &Document) -> Result<BTreeMap<&str, Vec<u8>>, ObjectError> {
    let mut fields = document.value.as_object().into_iter().flatten();
    if let Some((unknown, _)) = fields.find(|(name, _)| !FIELDS.contains(&name.as_str())) {
        let message = format!("unknown field: expected one of {}; correct or remove it", FIELDS.join(", "));
        return Err(document.error(ErrorScope::Set, unknown, "UnknownField", message));
    }
    let mut values = BTreeMap::new();
    for (name, text) in texts(document, "data")? {
        // Line breaks are what tools wrap long lines with.
        let packed: String = text.split_ascii_whitespace().collect();
        let value = STANDARD.decode(packed).map_err(|_| {
            let message = "no base64: expected the encoded value; correct it, or write it as it is in stringData";
            document.error(ErrorScope::Set, &format!("data.{name}"), "InvalidValue", message)
        })?;
        values.insert(name, value);
    }
    values.extend(texts(document, "stringData")?.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())));
    Ok(values)
}

fn texts<'document>(
    document: &'document Document,
    field: &str,
) -> Result<Vec<(&'document str, &'document str)>, ObjectError> {
    let refused = |field: &str, message| document.error(ErrorScope::Set, field, "InvalidValue", message);
    let entries = match document.value.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value.as_object().ok_or_else(|| refused(field, "no map: expected keys with texts"))?,
    };
    let text = |(name, value): (&'document String, &'document Value)| {
        let text = value.as_str();
        text.map(|text| (name.as_str(), text))
            .ok_or_else(|| refused(&format!("{field}.{name}"), "no text: expected one; put it in quotes"))
    };
    entries.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::document::split;
    use crate::source::CredentialsError;

    const HEAD: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: repo";

    fn read_text(text: &str) -> (KnownSecrets, Vec<ObjectError>) {
        let mut errors = Vec::new();
        let known = read(&split("x.yaml", text).unwrap(), &mut errors);
        (known, errors)
    }

    #[test]
    fn both_forms_of_values_and_any_type_are_read() {
        let plain =
            read_text(&format!("{HEAD}, namespace: retail}}\nstringData: {{username: u, password: 'p q'}}\n")).0;
        let keys: Vec<String> = plain.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["retail/repo"]);
        let encoded = "type: kubernetes.io/basic-auth\ndata:\n  username: dQ==\n  password: |\n    cC\n    Bx\n";
        let encoded = read_text(&format!("{HEAD}, namespace: retail}}\n{encoded}")).0;
        assert_eq!(encoded, plain);
        let both = "type: Odd\nimmutable: true\ndata: {token: eA==}\nstringData: {token: y}\n";
        let both = read_text(&format!("{HEAD}}}\n{both}")).0;
        assert_eq!(both, read_text(&format!("{HEAD}}}\nstringData: {{token: y}}\n")).0);
    }

    #[test]
    fn secrets_without_credentials_are_known_as_such() {
        let (known, errors) = read_text(&format!("{HEAD}}}\nstringData: {{other: x}}\n---\n{HEAD}-2}}\n"));
        assert!(errors.is_empty());
        let faults: Vec<_> = known.into_values().collect();
        assert_eq!(faults, [Err(CredentialsError::Keys), Err(CredentialsError::Keys)]);
    }

    #[test]
    fn what_has_not_the_form_of_a_secret_names_its_field_and_no_value() {
        for (rest, field, reason) in [
            ("}\nstringData: {password: 7391}", "stringData.password", "InvalidValue"),
            ("}\nstringData: 7391", "stringData", "InvalidValue"),
            ("}\ndata: {token: '=7391'}", "data.token", "InvalidValue"),
            ("}\nstringdata: {token: '7391'}", "stringdata", "UnknownField"),
            (", namespace: A}", "metadata.namespace", "InvalidName"),
            ("..x}", "metadata.name", "InvalidName"),
        ] {
            let errors = read_text(&format!("{HEAD}{rest}\n")).1;
            let [error] = &errors[..] else { panic!("{errors:?}") };
            assert_eq!((error.field.as_str(), error.reason.as_str()), (field, reason));
            assert!(!error.to_string().contains("7391") && error.to_string().contains("x.yaml, line 1"), "{error}");
        }
        let twice = read_text(&format!("{HEAD}}}\n---\n{HEAD}, namespace: default}}\n")).1;
        assert_eq!(twice[0].reason, "DuplicateObject");
    }
}
