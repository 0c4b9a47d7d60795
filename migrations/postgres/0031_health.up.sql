-- What each replica saw of each target: of every minute, added up by hour, and every change of state. Replicas have rows of
-- their own and never wait for each other. Sums, not means: they add up.
CREATE TABLE health_minute (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    server text NOT NULL,
    target text NOT NULL,
    replica text NOT NULL,
    observed bigint NOT NULL,
    available bigint NOT NULL,
    probes bigint NOT NULL,
    probes_failed bigint NOT NULL,
    probe_us bigint NOT NULL,
    latency_count bigint NOT NULL,
    latency_us bigint NOT NULL,
    in_flight_max bigint NOT NULL,
    ejections bigint NOT NULL,
    changes bigint NOT NULL,
    state text NOT NULL,
    error text,
    PRIMARY KEY (tenant, at, server, target, replica)
) PARTITION BY RANGE (at);
CREATE TABLE health_minute_rest PARTITION OF health_minute DEFAULT;
-- One server's history, page by page.
CREATE INDEX health_minute_server ON health_minute (tenant, server, at, target, replica);
SELECT tollgate_tenant_table('health_minute', 'SELECT');

CREATE TABLE health_hour (LIKE health_minute INCLUDING CONSTRAINTS, PRIMARY KEY (tenant, at, server, target, replica))
    PARTITION BY RANGE (at);
CREATE TABLE health_hour_rest PARTITION OF health_hour DEFAULT;
CREATE INDEX health_hour_server ON health_hour (tenant, server, at, target, replica);
SELECT tollgate_tenant_table('health_hour', 'SELECT');

CREATE TABLE health_changes (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    server text NOT NULL,
    target text NOT NULL,
    replica text NOT NULL,
    was text,
    state text NOT NULL,
    error text,
    PRIMARY KEY (tenant, server, at, target, replica)
) PARTITION BY RANGE (at);
CREATE TABLE health_changes_rest PARTITION OF health_changes DEFAULT;
SELECT tollgate_tenant_table('health_changes', 'SELECT');
