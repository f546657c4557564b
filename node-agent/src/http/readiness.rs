//! Readiness: named checks that a role's driver passes one by one, and may lose again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, PoisonError, RwLock};

/// Handle to the checks of one role; clones share them.
#[derive(Debug, Clone)]
pub struct Readiness {
    checks: Arc<RwLock<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Readiness {
    /// All of these checks must pass; none does yet.
    pub fn new(checks: impl IntoIterator<Item = &'static str>) -> Self {
        let pending = |name| (name, Err("not yet".to_owned()));
        Self { checks: Arc::new(RwLock::new(checks.into_iter().map(pending).collect())) }
    }

    /// Says how a check stands; the error is a reason for people.
    pub fn set(&self, check: &'static str, outcome: Result<(), String>) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).insert(check, outcome);
    }

    /// Whether every check passes.
    pub fn is_ready(&self) -> bool {
        self.checks.read().unwrap_or_else(PoisonError::into_inner).values().all(Result::is_ok)
    }

    /// A line a check.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (name, outcome) in self.checks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "{name}: {}", outcome.as_ref().map_or_else(String::as_str, |()| "ok"));
        }
        text
    }
}
