-- Calls, errors, bytes and latency sketches. Each writer has rows of its own for a minute, so that replicas never wait for
-- each other; hours and days are made of them by the leader.

CREATE TABLE usage_minute (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    writer BLOB NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    sketch BLOB NOT NULL,
    PRIMARY KEY (tenant, at, principal, route, server, tool, writer)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_hour (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    sketch BLOB NOT NULL,
    PRIMARY KEY (tenant, at, principal, route, server, tool)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_day (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    sketch BLOB NOT NULL,
    PRIMARY KEY (tenant, at, principal, route, server, tool)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_dirty (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    hour INTEGER NOT NULL,
    PRIMARY KEY (tenant, hour)
) STRICT, WITHOUT ROWID;
