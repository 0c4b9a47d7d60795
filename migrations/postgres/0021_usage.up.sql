-- Calls, errors, bytes and latency sketches. Each writer has rows of its own for a minute, so that replicas never wait for
-- each other; hours and days are made of them by the leader.

CREATE TABLE usage_minute (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    principal text NOT NULL,
    route text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    writer uuid NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    sketch bytea NOT NULL,
    PRIMARY KEY (tenant, at, principal, route, server, tool, writer)
);
SELECT tollgate_tenant_table('usage_minute', 'SELECT');

CREATE TABLE usage_hour (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    principal text NOT NULL,
    route text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    sketch bytea NOT NULL,
    PRIMARY KEY (tenant, at, principal, route, server, tool)
);
SELECT tollgate_tenant_table('usage_hour', 'SELECT');

CREATE TABLE usage_day (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    principal text NOT NULL,
    route text NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    calls bigint NOT NULL,
    errors bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    sketch bytea NOT NULL,
    PRIMARY KEY (tenant, at, principal, route, server, tool)
);
SELECT tollgate_tenant_table('usage_day', 'SELECT');

-- Hours that have to be made anew of their minutes.
CREATE TABLE usage_dirty (
    tenant text NOT NULL CHECK (tenant <> ''),
    hour timestamptz NOT NULL,
    PRIMARY KEY (tenant, hour)
);
SELECT tollgate_tenant_table('usage_dirty', 'SELECT');
