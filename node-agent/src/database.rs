//! The server's metadata in SQL.
