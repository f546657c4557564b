//! Content on disk: trees, journal, manifests.
