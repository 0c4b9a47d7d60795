CREATE TABLE replicas (
    boot uuid PRIMARY KEY,
    replica text NOT NULL,
    role text NOT NULL CHECK (role IN ('all', 'control', 'data')),
    version text NOT NULL,
    schema_level integer NOT NULL,
    address text,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL
);
SELECT tollgate_platform_table('replicas');

CREATE TABLE replica_revisions (
    boot uuid NOT NULL REFERENCES replicas ON DELETE CASCADE,
    tenant text NOT NULL CHECK (tenant <> ''),
    served bigint NOT NULL,
    refused bigint,
    refusal text,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (boot, tenant)
);
SELECT tollgate_tenant_table('replica_revisions', 'SELECT');
-- Who serves which revision of a tenant.
CREATE INDEX replica_revisions_tenant ON replica_revisions (tenant, boot);
