-- What nobody reads goes. Of a package only its number and digest count, the rest is in the library; what happened is in
-- the log. How far nodes are is what the status says of those that have not spoken since the server started.
DROP TABLE audit;
DROP INDEX nodes_by_office;
DELETE FROM offices WHERE embedded_index IS NULL;

DELETE FROM packages WHERE digest IS NULL;
ALTER TABLE packages DROP COLUMN bytes;
ALTER TABLE packages DROP COLUMN chunk_count;
ALTER TABLE packages DROP COLUMN uri;
ALTER TABLE packages DROP COLUMN source_digest;
ALTER TABLE packages DROP COLUMN state;
ALTER TABLE packages DROP COLUMN error;

-- Offices report all of it again.
DROP TABLE package_nodes;
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
