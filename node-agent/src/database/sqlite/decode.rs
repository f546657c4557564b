//! From columns to types of the core and back. A value that this program does not write is an error that names its
//! table and column.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row, Sqlite, Type};

use crate::database::DatabaseError;

/// A row together with the name of its table.
pub(super) struct TableRow<'r> {
    pub(super) table: &'static str,
    pub(super) row: &'r SqliteRow,
}

impl<'r> TableRow<'r> {
    /// A column as the database's own type.
    pub(super) fn value<T>(&self, column: &'static str) -> Result<T, DatabaseError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
        &'static str: ColumnIndex<SqliteRow>,
    {
        self.row.try_get(column).map_err(|error| self.corrupt(column, &error))
    }

    /// A text that parses.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<T, DatabaseError> {
        self.value::<&str>(column)?.parse().map_err(|error| self.corrupt(column, &error))
    }

    /// A number that is never negative.
    pub(super) fn number<T: TryFrom<i64, Error: Display>>(&self, column: &'static str) -> Result<T, DatabaseError> {
        self.value::<i64>(column)?.try_into().map_err(|error| self.corrupt(column, &error))
    }

    /// A time.
    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, DatabaseError> {
        Timestamp::from_millisecond(self.value(column)?).map_err(|error| self.corrupt(column, &error))
    }

    fn corrupt(&self, column: &'static str, message: &dyn Display) -> DatabaseError {
        DatabaseError::Corrupt { table: self.table, column, message: message.to_string() }
    }
}

/// A count for a BIGINT column; what does not fit is cut, no real package comes near.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
