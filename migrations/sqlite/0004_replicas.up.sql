CREATE TABLE replicas (
    boot BLOB NOT NULL PRIMARY KEY,
    replica TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('all', 'control', 'data')),
    version TEXT NOT NULL,
    schema_level INTEGER NOT NULL,
    address TEXT,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

CREATE TABLE replica_revisions (
    boot BLOB NOT NULL REFERENCES replicas ON DELETE CASCADE,
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    served INTEGER NOT NULL,
    refused INTEGER,
    refusal TEXT,
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (boot, tenant)
) STRICT;
CREATE INDEX replica_revisions_tenant ON replica_revisions (tenant, boot);
