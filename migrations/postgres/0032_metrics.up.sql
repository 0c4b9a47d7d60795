-- Requests by route and server, without callers and tools: small, so that questions about performance stay quick. Written
-- with usage, by the same drainer in the same transaction. `latency` counts durations by their size, as JSON:
-- `{"83": 12}` says that 12 took from 2^(83/8) to 2^(84/8) microseconds.
CREATE TABLE metric_minute (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    route text NOT NULL,
    server text NOT NULL,
    writer uuid NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    failures bigint NOT NULL,
    busy_us bigint NOT NULL,
    latency text NOT NULL,
    PRIMARY KEY (tenant, at, route, server, writer)
) PARTITION BY RANGE (at);
CREATE TABLE metric_minute_rest PARTITION OF metric_minute DEFAULT;
SELECT tollgate_tenant_table('metric_minute', 'SELECT');

CREATE TABLE metric_hour (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    route text NOT NULL,
    server text NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    failures bigint NOT NULL,
    busy_us bigint NOT NULL,
    latency text NOT NULL,
    PRIMARY KEY (tenant, at, route, server)
) PARTITION BY RANGE (at);
CREATE TABLE metric_hour_rest PARTITION OF metric_hour DEFAULT;
SELECT tollgate_tenant_table('metric_hour', 'SELECT');
