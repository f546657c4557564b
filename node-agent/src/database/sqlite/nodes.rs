//! Nodes, offices and the audit trail.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use peerdist_core::names::{NodeName, OfficeName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::decode::{TableRow, bigint};
use super::query_error;
use crate::database::{AuditRow, DatabaseError, EMBEDDED_OFFICES_MAX, NodeRow, OfficeRow};

pub(super) async fn put(pool: &SqlitePool, node: &NodeRow) -> Result<(), DatabaseError> {
    let NodeRow { name, office, address, boot_id, certificate_serial, enrolled_at, last_seen } = node;
    sqlx::query(
        "INSERT INTO nodes (name, office, address, boot_id, certificate_serial, enrolled_at, last_seen)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (name) DO UPDATE SET office = excluded.office, address = excluded.address,
             boot_id = excluded.boot_id, certificate_serial = excluded.certificate_serial,
             enrolled_at = excluded.enrolled_at, last_seen = excluded.last_seen",
    )
    .bind(name.as_str())
    .bind(office.as_str())
    .bind(address.to_string())
    .bind(boot_id.cast_signed())
    .bind(certificate_serial)
    .bind(enrolled_at.as_millisecond())
    .bind(last_seen.as_millisecond())
    .execute(pool)
    .await
    .map_err(query_error("record a node"))?;
    Ok(())
}

pub(super) async fn touch(
    pool: &SqlitePool,
    name: &NodeName,
    boot_id: u64,
    last_seen: Timestamp,
) -> Result<bool, DatabaseError> {
    let result = sqlx::query("UPDATE nodes SET boot_id = $2, last_seen = $3 WHERE name = $1")
        .bind(name.as_str())
        .bind(boot_id.cast_signed())
        .bind(last_seen.as_millisecond())
        .execute(pool)
        .await
        .map_err(query_error("note that a node was heard"))?;
    Ok(result.rows_affected() > 0)
}

pub(super) async fn one(pool: &SqlitePool, name: &NodeName) -> Result<Option<NodeRow>, DatabaseError> {
    let row = sqlx::query("SELECT * FROM nodes WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(pool)
        .await
        .map_err(query_error("read a node"))?;
    row.as_ref().map(node_row).transpose()
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
    let rows = sqlx::query("SELECT * FROM offices").fetch_all(&mut *transaction).await.map_err(failed)?;
    let known: Vec<OfficeRow> = rows.iter().map(office_row).collect::<Result<_, _>>()?;
    let mut given: BTreeMap<OfficeName, u8> =
        known.into_iter().filter_map(|office| Some((office.name, office.embedded_index?))).collect();
    for office in wanted {
        if given.contains_key(office) {
            continue;
        }
        let index = (1..=EMBEDDED_OFFICES_MAX)
            .find(|index| given.values().all(|taken| taken != index))
            .ok_or_else(|| DatabaseError::TooManyOffices { office: office.clone() })?;
        sqlx::query(
            "INSERT INTO offices (name, embedded_index, term) VALUES ($1, $2, 0)
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

pub(super) async fn record_rendezvous_point(
    pool: &SqlitePool,
    office: &OfficeName,
    term: u64,
    node: &NodeName,
) -> Result<bool, DatabaseError> {
    let result = sqlx::query(
        "INSERT INTO offices (name, term, rendezvous_point) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET term = excluded.term, rendezvous_point = excluded.rendezvous_point
         WHERE excluded.term > offices.term OR (excluded.term = offices.term
             AND (offices.rendezvous_point IS NULL OR offices.rendezvous_point = excluded.rendezvous_point))",
    )
    .bind(office.as_str())
    .bind(bigint(term))
    .bind(node.as_str())
    .execute(pool)
    .await
    .map_err(query_error("record a rendezvous point"))?;
    Ok(result.rows_affected() > 0)
}

pub(super) async fn offices(pool: &SqlitePool) -> Result<Vec<OfficeRow>, DatabaseError> {
    let rows = sqlx::query("SELECT * FROM offices ORDER BY name")
        .fetch_all(pool)
        .await
        .map_err(query_error("read the offices"))?;
    rows.iter().map(office_row).collect()
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
        boot_id: row.value::<i64>("boot_id")?.cast_unsigned(),
        certificate_serial: row.value("certificate_serial")?,
        enrolled_at: row.time("enrolled_at")?,
        last_seen: row.time("last_seen")?,
    })
}

fn office_row(row: &SqliteRow) -> Result<OfficeRow, DatabaseError> {
    let row = TableRow { table: "offices", row };
    Ok(OfficeRow {
        name: row.parsed("name")?,
        embedded_index: row.number_option("embedded_index")?,
        term: row.number("term")?,
        rendezvous_point: row.parsed_option("rendezvous_point")?,
    })
}
