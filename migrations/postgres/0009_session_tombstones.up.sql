CREATE TABLE session_tombstones (
    tenant text NOT NULL CHECK (tenant <> ''),
    serial text NOT NULL CHECK (serial <> ''),
    issued_at bigint NOT NULL,
    ended_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, serial)
);
SELECT tollgate_tenant_table('session_tombstones', 'SELECT');
