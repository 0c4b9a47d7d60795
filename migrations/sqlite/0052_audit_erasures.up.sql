-- Principals whose events were erased, sealed with the master key, for as long as older events of theirs may still arrive
-- from a spool.
CREATE TABLE audit_erasures (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    id BLOB NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    asked_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
