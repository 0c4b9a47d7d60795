CREATE TABLE users (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    id TEXT NOT NULL CHECK (id <> ''),
    display_name TEXT NOT NULL,
    email TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE api_keys (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    id TEXT NOT NULL CHECK (id <> ''),
    principal TEXT NOT NULL,
    record TEXT NOT NULL,
    author TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE revocations (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    id TEXT NOT NULL CHECK (id <> ''),
    record TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE role_bindings (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    subject TEXT NOT NULL CHECK (subject <> ''),
    role TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject, role)
) STRICT;

CREATE TABLE identity_head (
    one INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO identity_head (seq) VALUES (0);

CREATE TABLE identity_changes (
    seq INTEGER NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX identity_changes_changed_at ON identity_changes (changed_at);
