CREATE TABLE audit_events_clustered (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    class INTEGER NOT NULL,
    writer BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    time INTEGER NOT NULL,
    commitment BLOB NOT NULL,
    link BLOB NOT NULL,
    salt BLOB,
    payload TEXT,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    name TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (tenant, class, writer, sequence)
) STRICT, WITHOUT ROWID;
INSERT INTO audit_events_clustered SELECT * FROM audit_events;
DROP VIEW audit_events;
DROP VIEW audit_events_by_chain;
DROP TABLE audit_event_rows;
DROP TABLE audit_event_chains;
DROP TABLE audit_event_tenants;
ALTER TABLE audit_events_clustered RENAME TO audit_events;
CREATE INDEX audit_events_time ON audit_events (tenant, time);
