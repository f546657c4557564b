//! The trace of a package: every role derives the same identifiers from the package's names, so that the spans of all
//! of them meet in one trace although nobody writes a trace into the object. Spans themselves are the drivers' business.

use crate::names::PackageKey;

/// Keeps these identifiers apart from every other use of BLAKE3. Another text is another trace: it never changes.
const DERIVATION_CONTEXT: &str = "peerdist 2026-11-30 trace of a package";

/// Identifiers of the trace of one package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageTrace {
    /// Of the trace.
    pub trace_id: [u8; 16],
    /// Of the span above all others. Nobody sends it: it stands for the package itself.
    pub root_span_id: [u8; 8],
}

impl PackageTrace {
    /// The trace of the package, for the operator as for the last node. The digest has no part in it, because the
    /// object is reconciled before there is one.
    pub fn of(package: &PackageKey) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DERIVATION_CONTEXT);
        let distribution = &package.distribution;
        for name in [distribution.namespace.as_str(), distribution.name.as_str(), package.version.as_str()] {
            // No name contains a zero byte, so that different names are different bytes.
            hasher.update(name.as_bytes()).update(&[0]);
        }
        let (mut trace_id, mut root_span_id) = ([0; 16], [0; 8]);
        let mut output = hasher.finalize_xof();
        output.fill(&mut trace_id);
        output.fill(&mut root_span_id);
        Self { trace_id, root_span_id }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::names::{DistributionKey, Namespace, PackageName, Version};

    fn trace(namespace: &str, name: &str, version: &str) -> PackageTrace {
        let (namespace, name) = (Namespace::new(namespace).unwrap(), PackageName::new(name).unwrap());
        let distribution = DistributionKey { namespace, name };
        PackageTrace::of(&PackageKey { distribution, version: Version::new(version).unwrap() })
    }

    #[test]
    fn trace_of_a_package_is_the_same_in_every_release() {
        let PackageTrace { trace_id, root_span_id } = trace("retail", "pos-app", "7.4.1");
        let ids = [hex::encode(trace_id), hex::encode(root_span_id)];
        assert_eq!(ids, ["c13f6c99a4b1359c7a66a998b11bdcc8", "734336d7ac69febd"]);
    }

    #[test]
    fn every_name_makes_another_trace() {
        let packages = [("a", "b", "c"), ("ab", "c", "c"), ("a", "bc", "c"), ("a", "b", "cc"), ("b", "a", "c")];
        let traces: BTreeSet<[u8; 16]> =
            packages.iter().map(|(namespace, name, version)| trace(namespace, name, version).trace_id).collect();
        assert_eq!(traces.len(), packages.len());
    }
}
