//! What can go wrong with the metadata.

use std::path::PathBuf;

use peerdist_core::names::OfficeName;

use super::EMBEDDED_OFFICES_MAX;

/// The metadata cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file or server cannot be opened.
    #[error("cannot open the metadata database {database}: {source}")]
    Open {
        /// The file.
        database: PathBuf,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// The URL names a database that this build does not know.
    #[error("database URL {url:?}: expected sqlite:PATH")]
    UnknownScheme {
        /// The URL, without its credentials.
        url: String,
    },
    /// The schema cannot be brought to this version.
    #[error("cannot bring the metadata database {database} to this version's schema: {source}")]
    Migrate {
        /// The file.
        database: PathBuf,
        /// What went wrong.
        source: sqlx::migrate::MigrateError,
    },
    /// A query failed.
    #[error("metadata database, {operation}: {source}")]
    Query {
        /// What we were doing.
        operation: &'static str,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// A stored value is not what this program writes.
    #[error("metadata database, table {table}, column {column}: {message}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What was expected.
        message: String,
    },
    /// There is no index left for an office.
    #[error(
        "office {office}: an embedded run has at most {EMBEDDED_OFFICES_MAX} offices, gone ones included; start with a new --state"
    )]
    TooManyOffices {
        /// The first office without an index.
        office: OfficeName,
    },
}
