CREATE TABLE tenants (
    tenant TEXT NOT NULL PRIMARY KEY CHECK (tenant <> ''),
    display_name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
