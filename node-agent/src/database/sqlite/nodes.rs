//! Nodes, offices and the audit trail.

use std::collections::{BTreeMap, BTreeSet};

use peerdist_core::names::{NodeName, OfficeName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::decode::TableRow;
use super::query_error;
use crate::database::{AuditRow, DatabaseError, EMBEDDED_OFFICES_MAX, NodeRow};

pub(super) async fn put(pool: &SqlitePool, node: &NodeRow) -> Result<(), DatabaseError> {
    let NodeRow { name, office, address, enrolled_at } = node;
    sqlx::query(
        "INSERT INTO nodes (name, office, address, enrolled_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET office = excluded.office, address = excluded.address,
             enrolled_at = excluded.enrolled_at",
    )
    .bind(name.as_str())
    .bind(office.as_str())
    .bind(address.to_string())
    .bind(enrolled_at.as_millisecond())
    .execute(pool)
    .await
    .map_err(query_error("record a node"))?;
    Ok(())
}

pub(super) async fn all(pool: &SqlitePool) -> Result<Vec<NodeRow>, DatabaseError> {
    let rows = sqlx::query("SELECT * FROM nodes ORDER BY name")
        .fetch_all(pool)
        .await
        .map_err(query_error("read the nodes"))?;
    rows.iter().map(node_row).collect()
}

pub(super) async fn remove(pool: &SqlitePool, name: &NodeName) -> Result<(), DatabaseError> {
    sqlx::query("DELETE FROM nodes WHERE name = $1")
        .bind(name.as_str())
        .execute(pool)
        .await
        .map_err(query_error("forget a node"))?;
    Ok(())
}

pub(super) async fn embedded_indices(
    mut transaction: Transaction<'static, Sqlite>,
    wanted: &BTreeSet<OfficeName>,
) -> Result<BTreeMap<OfficeName, u8>, DatabaseError> {
    let failed = query_error("give offices their indices");
    let rows = sqlx::query("SELECT * FROM offices WHERE embedded_index IS NOT NULL")
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
    let mut given: BTreeMap<OfficeName, u8> = rows.iter().map(office_and_index).collect::<Result<_, _>>()?;
    for office in wanted {
        if given.contains_key(office) {
            continue;
        }
        let index = (1..=EMBEDDED_OFFICES_MAX)
            .find(|index| given.values().all(|taken| taken != index))
            .ok_or_else(|| DatabaseError::TooManyOffices { office: office.clone() })?;
        sqlx::query(
            "INSERT INTO offices (name, embedded_index) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET embedded_index = excluded.embedded_index",
        )
        .bind(office.as_str())
        .bind(i64::from(index))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        given.insert(office.clone(), index);
    }
    transaction.commit().await.map_err(failed)?;
    given.retain(|office, _| wanted.contains(office));
    Ok(given)
}

pub(super) async fn record_audit(pool: &SqlitePool, row: &AuditRow) -> Result<(), DatabaseError> {
    sqlx::query("INSERT INTO audit (time, who, what) VALUES ($1, $2, $3)")
        .bind(row.time.as_millisecond())
        .bind(&row.who)
        .bind(&row.what)
        .execute(pool)
        .await
        .map_err(query_error("add to the audit trail"))?;
    Ok(())
}

pub(super) async fn audit(pool: &SqlitePool, count_max: u32) -> Result<Vec<AuditRow>, DatabaseError> {
    let rows = sqlx::query("SELECT * FROM audit ORDER BY time DESC LIMIT $1")
        .bind(i64::from(count_max))
        .fetch_all(pool)
        .await
        .map_err(query_error("read the audit trail"))?;
    rows.iter()
        .map(|row| {
            let row = TableRow { table: "audit", row };
            Ok(AuditRow { time: row.time("time")?, who: row.value("who")?, what: row.value("what")? })
        })
        .collect()
}

fn node_row(row: &SqliteRow) -> Result<NodeRow, DatabaseError> {
    let row = TableRow { table: "nodes", row };
    Ok(NodeRow {
        name: row.parsed("name")?,
        office: row.parsed("office")?,
        address: row.parsed("address")?,
        enrolled_at: row.time("enrolled_at")?,
    })
}

fn office_and_index(row: &SqliteRow) -> Result<(OfficeName, u8), DatabaseError> {
    let row = TableRow { table: "offices", row };
    Ok((row.parsed("name")?, row.number("embedded_index")?))
}
