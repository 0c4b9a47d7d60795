CREATE TABLE secrets (
    tenant text NOT NULL CHECK (tenant <> ''),
    name text NOT NULL CHECK (name <> ''),
    version bigint NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, name)
);
SELECT tollgate_tenant_table('secrets', 'SELECT, INSERT, UPDATE, DELETE');
