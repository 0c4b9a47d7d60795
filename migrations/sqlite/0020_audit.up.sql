-- Clustered by chain, with one more index: each costs processor time for every call.
CREATE TABLE audit_events (
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
CREATE INDEX audit_events_time ON audit_events (tenant, time);

CREATE TABLE audit_heads (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    class INTEGER NOT NULL,
    writer BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    link BLOB NOT NULL,
    time INTEGER NOT NULL,
    from_sequence INTEGER NOT NULL,
    from_link BLOB NOT NULL,
    PRIMARY KEY (tenant, class, writer)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_writers (
    writer BLOB NOT NULL PRIMARY KEY,
    segment INTEGER NOT NULL,
    place INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_checkpoints (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    number INTEGER NOT NULL,
    time INTEGER NOT NULL,
    events INTEGER NOT NULL,
    statement TEXT NOT NULL,
    PRIMARY KEY (tenant, number)
) STRICT;
