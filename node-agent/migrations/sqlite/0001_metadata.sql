-- Metadata of the server. A row a node and package, chunk holders as bitmaps, never a row a chunk.
-- Times are milliseconds since 1970 UTC. Everything except the type BLOB (PostgreSQL: BYTEA) is portable SQL.

CREATE TABLE nodes (
    name               TEXT PRIMARY KEY,
    office             TEXT   NOT NULL,
    address            TEXT   NOT NULL,
    boot_id            BIGINT NOT NULL,
    certificate_serial TEXT   NOT NULL,
    enrolled_at        BIGINT NOT NULL,
    last_seen          BIGINT NOT NULL
);
CREATE INDEX nodes_by_office ON nodes (office);

CREATE TABLE offices (
    name             TEXT PRIMARY KEY,
    embedded_index   BIGINT UNIQUE,
    term             BIGINT NOT NULL,
    rendezvous_point TEXT
);

-- Sequence numbers outlive the packages they were given to: clients refuse lower ones.
CREATE TABLE distributions (
    namespace     TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    last_sequence BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE packages (
    namespace     TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    version       TEXT   NOT NULL,
    sequence      BIGINT NOT NULL,
    digest        TEXT,
    bytes         BIGINT NOT NULL,
    chunk_count   BIGINT NOT NULL,
    uri           TEXT   NOT NULL,
    source_digest TEXT,
    state         TEXT   NOT NULL,
    error         TEXT,
    PRIMARY KEY (namespace, name, version)
);

CREATE TABLE package_nodes (
    namespace    TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    version      TEXT   NOT NULL,
    node         TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    bytes        BIGINT NOT NULL,
    error        TEXT,
    completed_at BIGINT,
    PRIMARY KEY (namespace, name, version, node),
    FOREIGN KEY (namespace, name, version) REFERENCES packages ON DELETE CASCADE,
    FOREIGN KEY (node) REFERENCES nodes ON DELETE CASCADE
);
CREATE INDEX package_nodes_by_node ON package_nodes (node);

CREATE TABLE chunk_holders (
    namespace   TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    version     TEXT   NOT NULL,
    office      TEXT   NOT NULL,
    chunk_count BIGINT NOT NULL,
    bitmap      BLOB   NOT NULL,
    PRIMARY KEY (namespace, name, version, office),
    FOREIGN KEY (namespace, name, version) REFERENCES packages ON DELETE CASCADE
);

CREATE TABLE audit (
    time BIGINT NOT NULL,
    who  TEXT   NOT NULL,
    what TEXT   NOT NULL
);
CREATE INDEX audit_by_time ON audit (time);
