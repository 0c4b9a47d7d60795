CREATE TABLE request_samples (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    route TEXT NOT NULL,
    writer BLOB NOT NULL,
    requests INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    lines TEXT NOT NULL,
    PRIMARY KEY (tenant, at, route, writer)
) STRICT;
