CREATE TABLE custom_roles (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    name TEXT NOT NULL CHECK (name <> ''),
    description TEXT NOT NULL,
    -- Names of permissions, joined by spaces.
    permissions TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;
