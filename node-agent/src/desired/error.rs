//! What is wrong with an object, in the shape that people, JSON output and conditions share.

use std::fmt;

use peerdist_core::names::DistributionKey;
use serde::Serialize;

/// A package selects no office: what it selects may come to be, without an edit of the package.
pub const NO_OFFICE_SELECTED: &str = "NoOfficeSelected";

/// What people call the object of a distribution: [`ObjectError::object`] of its errors.
pub fn object_of(key: &DistributionKey) -> String {
    format!("PackageDistribution {key}")
}

/// How far an error reaches, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorScope {
    /// The set as a whole cannot be used: nothing starts.
    Set,
    /// One object cannot be used: the others go on.
    Object,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectError {
    /// Kind, namespace and name, such as `PackageDistribution retail/pos-app`, or the file if no object can be named.
    pub object: String,
    /// The field, such as `spec.source.uri`; empty when it is the object as a whole.
    pub field: String,
    /// The reason in one word.
    pub reason: String,
    /// What was found, what was expected, what to do, and in which file.
    pub message: String,
    /// How far it reaches.
    #[serde(skip)]
    pub scope: ErrorScope,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, reason, message, .. } = self;
        match field.as_str() {
            "" => write!(formatter, "{object}: {message} [{reason}]"),
            field => write!(formatter, "{object}: {field}: {message} [{reason}]"),
        }
    }
}

impl std::error::Error for ObjectError {}
