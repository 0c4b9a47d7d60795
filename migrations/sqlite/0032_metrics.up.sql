-- Requests by route and server, without callers and tools: small, so that questions about performance stay quick. Written
-- with usage, by the same drainer in the same transaction. `latency` counts durations by their size, as JSON:
-- `{"83": 12}` says that 12 took from 2^(83/8) to 2^(84/8) microseconds.
CREATE TABLE metric_minute (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    writer BLOB NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    busy_us INTEGER NOT NULL,
    latency TEXT NOT NULL,
    PRIMARY KEY (tenant, at, route, server, writer)
) STRICT, WITHOUT ROWID;

CREATE TABLE metric_hour (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    busy_us INTEGER NOT NULL,
    latency TEXT NOT NULL,
    PRIMARY KEY (tenant, at, route, server)
) STRICT, WITHOUT ROWID;
