//! The rows themselves: as a table for people and as JSON for tools.

use std::fmt::Write;

use peerdist_core::ports::{PortRow, Reach, Role};
use serde::Serialize;

use super::{role_name, rows_of};

/// One row of the JSON rendering.
#[derive(Serialize)]
struct NumberedRow {
    row: usize,
    protocol: &'static str,
    #[serde(flatten)]
    fields: PortRow,
}

/// The rows that a role sends or receives, as a table.
pub fn render_table(role: Option<Role>) -> String {
    let mut text = format!(
        "{:>3}  {:>5}  {:<6}  {:<42}  {:>9}  {:<18}  {:<5}  {}\n",
        "ROW", "TABLE", "FROM", "TO", "PORT", "CLASS", "SIDE", "WHAT FLOWS TO THE PORT"
    );
    for (number, row) in rows_of(role) {
        let _ = writeln!(
            text,
            "{number:>3}  {:>5}  {:<6}  {:<42}  {:>5}/udp  {:<18}  {:<5}  {}",
            row.table,
            role_name(row.from),
            receiver(row),
            row.port,
            row.class.as_str(),
            if row.reply_side { "reply" } else { "" },
            row.description
        );
    }
    text
}

/// The rows that a role sends or receives, as a JSON array with one row a line.
///
/// # Errors
/// [`serde_json::Error`], which rows of numbers and plain text do not cause.
pub fn render_json(role: Option<Role>) -> Result<String, serde_json::Error> {
    let lines: Result<Vec<String>, _> = rows_of(role)
        .into_iter()
        .map(|(row, fields)| serde_json::to_string(&NumberedRow { row, protocol: "udp", fields }))
        .collect();
    Ok(format!("[\n  {}\n]\n", lines?.join(",\n  ")))
}

fn receiver(row: PortRow) -> &'static str {
    match (row.to, row.reach) {
        (Role::Server, _) => "server",
        (Role::Vesc, _) => "vesc",
        (Role::Client, Reach::Any) => "client",
        (Role::Client, Reach::SameParentOrChildOffice) => "clients of same, parent and child offices",
        (Role::Client, Reach::SameSubnet) => "clients in the same subnet",
        (Role::Client, Reach::CentralOffice) => "clients in the Central Office",
        (Role::Client, Reach::SameOffice) => "clients in the same office",
        (Role::Client, Reach::ChildOffice) => "clients in child offices",
    }
}
