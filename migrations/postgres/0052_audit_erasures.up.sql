-- Principals whose events were erased, sealed with the master key, for as long as older events of theirs may still arrive
-- from a spool.
CREATE TABLE audit_erasures (
    tenant text NOT NULL CHECK (tenant <> ''),
    id uuid NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    asked_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id)
);
SELECT tollgate_tenant_table('audit_erasures', 'SELECT');
