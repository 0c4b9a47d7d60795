-- What each replica saw of each target: of every minute, added up by hour, and every change of state. Replicas have rows of
-- their own and never wait for each other. Sums, not means: they add up.
CREATE TABLE health_minute (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    server TEXT NOT NULL,
    target TEXT NOT NULL,
    replica TEXT NOT NULL,
    observed INTEGER NOT NULL,
    available INTEGER NOT NULL,
    probes INTEGER NOT NULL,
    probes_failed INTEGER NOT NULL,
    probe_us INTEGER NOT NULL,
    latency_count INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    in_flight_max INTEGER NOT NULL,
    ejections INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (tenant, at, server, target, replica)
) STRICT, WITHOUT ROWID;
-- One server's history, page by page.
CREATE INDEX health_minute_server ON health_minute (tenant, server, at, target, replica);

CREATE TABLE health_hour (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    server TEXT NOT NULL,
    target TEXT NOT NULL,
    replica TEXT NOT NULL,
    observed INTEGER NOT NULL,
    available INTEGER NOT NULL,
    probes INTEGER NOT NULL,
    probes_failed INTEGER NOT NULL,
    probe_us INTEGER NOT NULL,
    latency_count INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    in_flight_max INTEGER NOT NULL,
    ejections INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (tenant, at, server, target, replica)
) STRICT, WITHOUT ROWID;
CREATE INDEX health_hour_server ON health_hour (tenant, server, at, target, replica);

CREATE TABLE health_changes (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    at INTEGER NOT NULL,
    server TEXT NOT NULL,
    target TEXT NOT NULL,
    replica TEXT NOT NULL,
    was TEXT,
    state TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (tenant, server, at, target, replica)
) STRICT, WITHOUT ROWID;
