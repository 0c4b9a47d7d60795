CREATE TABLE secrets (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    name TEXT NOT NULL CHECK (name <> ''),
    version INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;
