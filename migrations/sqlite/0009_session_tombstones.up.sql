CREATE TABLE session_tombstones (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    serial TEXT NOT NULL CHECK (serial <> ''),
    issued_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, serial)
) STRICT;
