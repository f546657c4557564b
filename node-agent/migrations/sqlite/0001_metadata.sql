-- Metadata of the server. A row a node and package, chunk holders as bitmaps, never a row a chunk. What every node says again after a start of
-- the server is not here, and what only people would read is in the log.
-- Times are milliseconds since 1970 UTC. Everything except the type BLOB (PostgreSQL: BYTEA) is portable SQL.

CREATE TABLE nodes (
    name        TEXT PRIMARY KEY,
    office      TEXT   NOT NULL,
    address     TEXT   NOT NULL,
    enrolled_at BIGINT NOT NULL
);

-- Which addresses the nodes of an office have in an embedded run.
CREATE TABLE offices (
    name           TEXT PRIMARY KEY,
    embedded_index BIGINT NOT NULL UNIQUE
);

-- Sequence numbers outlive the packages they were given to: clients refuse lower ones.
CREATE TABLE distributions (
    namespace     TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    last_sequence BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE packages (
    namespace TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    version   TEXT   NOT NULL,
    sequence  BIGINT NOT NULL,
    digest    TEXT   NOT NULL,
    PRIMARY KEY (namespace, name, version)
);

-- What the status says of nodes that have not spoken since the server started.
CREATE TABLE package_nodes (
    namespace     TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    version       TEXT    NOT NULL,
    node          TEXT    NOT NULL,
    bytes         BIGINT  NOT NULL,
    complete      BOOLEAN NOT NULL,
    error_reason  TEXT,
    error_message TEXT,
    PRIMARY KEY (namespace, name, version, node),
    FOREIGN KEY (namespace, name, version) REFERENCES packages ON DELETE CASCADE,
    FOREIGN KEY (node) REFERENCES nodes ON DELETE CASCADE
);
CREATE INDEX package_nodes_by_node ON package_nodes (node);

-- Chunks that some node of an office has, a bit each: for how much the status says has come to the office.
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
