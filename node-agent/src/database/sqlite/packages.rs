//! Packages, their nodes and the chunks that offices hold.

use std::collections::BTreeMap;

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::names::{DistributionKey, OfficeName, PackageKey};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::decode::{TableRow, bigint};
use super::query_error;
use crate::database::{DatabaseError, IngestState, PackageNodeRow, PackageRow};
use crate::metrics::PackageState;

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

pub(super) async fn put(pool: &SqlitePool, package: &PackageRow) -> Result<(), DatabaseError> {
    let PackageRow { key, sequence, digest, bytes, chunk_count, uri, source_digest, state, error } = package;
    let query = sqlx::query(
        "INSERT INTO packages
             (namespace, name, version, sequence, digest, bytes, chunk_count, uri, source_digest, state, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (namespace, name, version) DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest,
             bytes = excluded.bytes, chunk_count = excluded.chunk_count, uri = excluded.uri,
             source_digest = excluded.source_digest, state = excluded.state, error = excluded.error",
    );
    bind_key(query, key)
        .bind(bigint(*sequence))
        .bind(digest.map(|digest| digest.to_string()))
        .bind(bigint(*bytes))
        .bind(i64::from(*chunk_count))
        .bind(uri)
        .bind(source_digest)
        .bind(state.as_str())
        .bind(error)
        .execute(pool)
        .await
        .map_err(query_error("record a package"))?;
    Ok(())
}

pub(super) async fn one(pool: &SqlitePool, key: &PackageKey) -> Result<Option<PackageRow>, DatabaseError> {
    let query = sqlx::query("SELECT * FROM packages WHERE namespace = $1 AND name = $2 AND version = $3");
    let row = bind_key(query, key).fetch_optional(pool).await.map_err(query_error("read a package"))?;
    row.as_ref().map(package_row).transpose()
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
    for PackageNodeRow { key, node, state, bytes, error, completed_at } in rows {
        let known = sqlx::query(
            "SELECT 1 FROM packages, nodes WHERE packages.namespace = $1 AND packages.name = $2
             AND packages.version = $3 AND nodes.name = $4",
        );
        let known = bind_key(known, key).bind(node.as_str()).fetch_optional(&mut *transaction).await.map_err(failed)?;
        if known.is_none() {
            continue;
        }
        let query = sqlx::query(
            "INSERT INTO package_nodes (namespace, name, version, node, state, bytes, error, completed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (namespace, name, version, node) DO UPDATE SET state = excluded.state,
                 bytes = excluded.bytes, error = excluded.error, completed_at = excluded.completed_at",
        );
        bind_key(query, key)
            .bind(node.as_str())
            .bind(state.as_str())
            .bind(bigint(*bytes))
            .bind(error)
            .bind(completed_at.map(|time| time.as_millisecond()))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
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
         VALUES ($1, $2, $3, $4, $5, $6)
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
            let chunks = ChunkSet::from_bytes(row.number("chunk_count")?, row.value("bitmap")?);
            Ok((row.parsed("office")?, chunks))
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
    Ok(PackageRow {
        key: package_key(&row)?,
        sequence: row.number("sequence")?,
        digest: row.parsed_option("digest")?,
        bytes: row.number("bytes")?,
        chunk_count: row.number("chunk_count")?,
        uri: row.value("uri")?,
        source_digest: row.value("source_digest")?,
        state: row.word("state", IngestState::from_word)?,
        error: row.value("error")?,
    })
}

fn package_node_row(row: &SqliteRow) -> Result<PackageNodeRow, DatabaseError> {
    let row = TableRow { table: "package_nodes", row };
    Ok(PackageNodeRow {
        key: package_key(&row)?,
        node: row.parsed("node")?,
        state: row.word("state", PackageState::from_label)?,
        bytes: row.number("bytes")?,
        error: row.value("error")?,
        completed_at: row.time_option("completed_at")?,
    })
}
