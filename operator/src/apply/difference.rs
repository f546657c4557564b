//! Whether a live object is what was asked for. The API server fills in defaults, so a live object may say more; what
//! was asked for must all be there, and nothing that was asked for earlier may be left: the digest tells that.

use serde_json::Value;

use crate::names::APPLIED_ANNOTATION;

/// Whether the live object has to be written.
pub fn differs(desired: &Value, live: &Value) -> bool {
    let digest = |object: &Value| object["metadata"]["annotations"][APPLIED_ANNOTATION].clone();
    digest(desired) != digest(live) || !covers(live, desired)
}

/// Whether everything that `desired` says is in `live`. Lists have the same length and order.
fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(key, wanted)| match live.get(key) {
            Some(found) => covers(found, wanted),
            None => is_empty(wanted),
        }),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| covers(live, desired))
        }
        (live, desired) => live == desired,
    }
}

/// Empty lists, maps and false are left out when an object is stored.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: Value, digest: &str) -> Value {
        json!({"metadata": {"name": "a", "annotations": {APPLIED_ANNOTATION: digest}}, "spec": spec})
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let desired = object(json!({"containers": [{"name": "x", "args": []}], "hostIPC": false}), "1");
        let mut live = object(json!({"containers": [{"name": "x", "imagePullPolicy": "Always"}], "dns": "x"}), "1");
        live["metadata"]["uid"] = json!("u");
        live["metadata"]["annotations"]["other"] = json!("kept");
        assert!(!differs(&desired, &live));
    }

    #[test]
    fn whatever_was_asked_for_and_is_not_there_is_a_difference() {
        let desired = object(json!({"replicas": 1, "list": ["a", "b"]}), "1");
        for live in [
            object(json!({"replicas": 2, "list": ["a", "b"]}), "1"),
            object(json!({"replicas": 1, "list": ["a"]}), "1"),
            object(json!({"replicas": 1, "list": ["a", "b", "c"]}), "1"),
            object(json!({"replicas": 1}), "1"),
            object(json!({"replicas": 1, "list": ["a", "b"]}), "2"),
            json!({"metadata": {}, "spec": {"replicas": 1, "list": ["a", "b"]}}),
        ] {
            assert!(differs(&desired, &live), "{live}");
        }
    }
}
