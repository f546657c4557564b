//! Packages, how far nodes are with them, and the chunks that offices have.

use std::collections::{BTreeMap, BTreeSet};

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::names::{DistributionKey, OfficeName, PackageKey};
use serde_json::Value;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::decode::{TableRow, bigint};
use super::query_error;
use crate::database::{DatabaseError, PackageNodeRow, PackageRow};

pub(super) async fn next_sequence(pool: &SqlitePool, distribution: &DistributionKey) -> Result<u64, DatabaseError> {
    let row = sqlx::query(
        "INSERT INTO distributions (namespace, name, last_sequence) VALUES ($1, $2, 1)
         ON CONFLICT (namespace, name) DO UPDATE SET last_sequence = distributions.last_sequence + 1
         RETURNING last_sequence",
    )
    .bind(distribution.namespace.as_str())
    .bind(distribution.name.as_str())
    .fetch_one(pool)
    .await
    .map_err(query_error("give a sequence number"))?;
    TableRow { table: "distributions", row: &row }.number("last_sequence")
}

pub(super) async fn put(
    mut transaction: Transaction<'static, Sqlite>,
    PackageRow { key, sequence, digest }: &PackageRow,
) -> Result<(), DatabaseError> {
    let failed = query_error("record a package");
    let digest = digest.to_string();
    // What nodes had of other content under these names they do not have of this one.
    let other =
        sqlx::query("DELETE FROM packages WHERE namespace = $1 AND name = $2 AND version = $3 AND digest <> $4");
    bind_key(other, key).bind(&digest).execute(&mut *transaction).await.map_err(failed)?;
    let query = sqlx::query(
        "INSERT INTO packages (namespace, name, version, sequence, digest) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (namespace, name, version) DO UPDATE SET sequence = excluded.sequence",
    );
    bind_key(query, key).bind(bigint(*sequence)).bind(&digest).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

pub(super) async fn all(pool: &SqlitePool) -> Result<Vec<PackageRow>, DatabaseError> {
    let rows = sqlx::query("SELECT * FROM packages ORDER BY namespace, name, sequence")
        .fetch_all(pool)
        .await
        .map_err(query_error("read the packages"))?;
    rows.iter().map(package_row).collect()
}

pub(super) async fn remove(pool: &SqlitePool, key: &PackageKey) -> Result<(), DatabaseError> {
    let query = sqlx::query("DELETE FROM packages WHERE namespace = $1 AND name = $2 AND version = $3");
    bind_key(query, key).execute(pool).await.map_err(query_error("forget a package"))?;
    Ok(())
}

pub(super) async fn put_nodes(
    mut transaction: Transaction<'static, Sqlite>,
    rows: &[PackageNodeRow],
) -> Result<(), DatabaseError> {
    let failed = query_error("record progress of nodes");
    for PackageNodeRow { key, node, bytes, complete, error } in rows {
        let known = sqlx::query(
            "SELECT 1 FROM packages, nodes WHERE packages.namespace = $1 AND packages.name = $2
             AND packages.version = $3 AND nodes.name = $4",
        );
        let known = bind_key(known, key).bind(node.as_str()).fetch_optional(&mut *transaction).await.map_err(failed)?;
        if known.is_none() {
            continue;
        }
        let query = sqlx::query(
            "INSERT INTO package_nodes
                 (namespace, name, version, node, bytes, complete, error_reason, error_message)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (namespace, name, version, node) DO UPDATE SET bytes = excluded.bytes,
                 complete = excluded.complete, error_reason = excluded.error_reason,
                 error_message = excluded.error_message",
        );
        let (reason, message) = match error {
            Some((reason, message)) => (Some(reason), Some(message)),
            None => (None, None),
        };
        bind_key(query, key)
            .bind(node.as_str())
            .bind(bigint(*bytes))
            .bind(*complete)
            .bind(reason)
            .bind(message)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// Keeps the progress of one package in these offices alone.
pub(super) async fn keep_progress(
    mut transaction: Transaction<'static, Sqlite>,
    key: &PackageKey,
    offices: &BTreeSet<OfficeName>,
) -> Result<(), DatabaseError> {
    let failed = query_error("forget progress of nodes");
    // One parameter however many offices there are, so that nodes are looked through once and not once an office.
    let offices = offices.iter().map(OfficeName::as_str).collect::<Value>().to_string();
    let of_nodes = sqlx::query(
        "DELETE FROM package_nodes WHERE namespace = $1 AND name = $2 AND version = $3
         AND node NOT IN (SELECT nodes.name FROM nodes WHERE nodes.office IN (SELECT value FROM json_each($4)))",
    );
    bind_key(of_nodes, key).bind(&offices).execute(&mut *transaction).await.map_err(failed)?;
    let of_offices = sqlx::query(
        "DELETE FROM chunk_holders WHERE namespace = $1 AND name = $2 AND version = $3
         AND office NOT IN (SELECT value FROM json_each($4))",
    );
    bind_key(of_offices, key).bind(&offices).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

pub(super) async fn nodes(pool: &SqlitePool, key: &PackageKey) -> Result<Vec<PackageNodeRow>, DatabaseError> {
    let query =
        sqlx::query("SELECT * FROM package_nodes WHERE namespace = $1 AND name = $2 AND version = $3 ORDER BY node");
    let rows = bind_key(query, key).fetch_all(pool).await.map_err(query_error("read a package's nodes"))?;
    rows.iter().map(package_node_row).collect()
}

pub(super) async fn put_chunk_holders(
    pool: &SqlitePool,
    key: &PackageKey,
    office: &OfficeName,
    chunks: &ChunkSet,
) -> Result<(), DatabaseError> {
    let query = sqlx::query(
        "INSERT INTO chunk_holders (namespace, name, version, office, chunk_count, bitmap)
         SELECT namespace, name, version, $4, $5, $6 FROM packages WHERE namespace = $1 AND name = $2 AND version = $3
         ON CONFLICT (namespace, name, version, office) DO UPDATE SET chunk_count = excluded.chunk_count,
             bitmap = excluded.bitmap",
    );
    bind_key(query, key)
        .bind(office.as_str())
        .bind(i64::from(chunks.capacity()))
        .bind(chunks.to_bytes())
        .execute(pool)
        .await
        .map_err(query_error("record the chunks of an office"))?;
    Ok(())
}

pub(super) async fn chunk_holders(
    pool: &SqlitePool,
    key: &PackageKey,
) -> Result<BTreeMap<OfficeName, ChunkSet>, DatabaseError> {
    let query = sqlx::query("SELECT * FROM chunk_holders WHERE namespace = $1 AND name = $2 AND version = $3");
    let rows = bind_key(query, key).fetch_all(pool).await.map_err(query_error("read the chunks of offices"))?;
    rows.iter()
        .map(|row| {
            let row = TableRow { table: "chunk_holders", row };
            let bitmap: Vec<u8> = row.value("bitmap")?;
            Ok((row.parsed("office")?, ChunkSet::from_bytes(row.number("chunk_count")?, &bitmap)))
        })
        .collect()
}

type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The first three parameters of every query by package.
fn bind_key<'q>(query: SqliteQuery<'q>, key: &'q PackageKey) -> SqliteQuery<'q> {
    let PackageKey { distribution: DistributionKey { namespace, name }, version } = key;
    query.bind(namespace.as_str()).bind(name.as_str()).bind(version.as_str())
}

fn package_key(row: &TableRow<'_>) -> Result<PackageKey, DatabaseError> {
    let distribution = DistributionKey { namespace: row.parsed("namespace")?, name: row.parsed("name")? };
    Ok(PackageKey { distribution, version: row.parsed("version")? })
}

fn package_row(row: &SqliteRow) -> Result<PackageRow, DatabaseError> {
    let row = TableRow { table: "packages", row };
    Ok(PackageRow { key: package_key(&row)?, sequence: row.number("sequence")?, digest: row.parsed("digest")? })
}

fn package_node_row(row: &SqliteRow) -> Result<PackageNodeRow, DatabaseError> {
    let row = TableRow { table: "package_nodes", row };
    let (reason, message): (Option<String>, Option<String>) = (row.value("error_reason")?, row.value("error_message")?);
    Ok(PackageNodeRow {
        key: package_key(&row)?,
        node: row.parsed("node")?,
        bytes: row.number("bytes")?,
        complete: row.value("complete")?,
        error: reason.zip(message),
    })
}
