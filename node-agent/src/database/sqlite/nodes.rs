//! Nodes and offices.

use std::collections::{BTreeMap, BTreeSet};

use peerdist_core::names::{NodeName, OfficeName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, SqliteExecutor, SqlitePool, Transaction};

use super::decode::TableRow;
use super::query_error;
use crate::database::{DatabaseError, EMBEDDED_OFFICES_MAX, NodeRow};

pub(super) async fn put(database: impl SqliteExecutor<'_>, node: &NodeRow) -> Result<(), DatabaseError> {
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
    .execute(database)
    .await
    .map_err(query_error("record a node"))?;
    Ok(())
}

pub(super) async fn put_anew(
    mut transaction: Transaction<'static, Sqlite>,
    node: &NodeRow,
) -> Result<(), DatabaseError> {
    let failed = query_error("forget progress of a node");
    let query = sqlx::query("DELETE FROM package_nodes WHERE node = $1").bind(node.name.as_str());
    query.execute(&mut *transaction).await.map_err(failed)?;
    put(&mut *transaction, node).await?;
    transaction.commit().await.map_err(failed)
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
    let mut given: BTreeMap<OfficeName, u8> = rows.iter().map(office_and_index).collect::<Result<_, _>>()?;
    for office in wanted {
        if given.contains_key(office) {
            continue;
        }
        let index = (1..=EMBEDDED_OFFICES_MAX)
            .find(|index| given.values().all(|taken| taken != index))
            .ok_or_else(|| DatabaseError::TooManyOffices { office: office.clone() })?;
        sqlx::query("INSERT INTO offices (name, embedded_index) VALUES ($1, $2)")
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
