-- A fair sample of the requests of each minute and route, as JSON lines: what `tollgate whatif` replays. One row per
-- minute, route and process, so that replicas never wait for each other.
CREATE TABLE request_samples (
    tenant text NOT NULL CHECK (tenant <> ''),
    at timestamptz NOT NULL,
    route text NOT NULL,
    writer uuid NOT NULL,
    requests bigint NOT NULL,
    samples bigint NOT NULL,
    lines text NOT NULL,
    PRIMARY KEY (tenant, at, route, writer)
);
SELECT tollgate_tenant_table('request_samples', 'SELECT');
