CREATE TABLE idempotency_keys (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    key_hash BLOB NOT NULL,
    request_hash BLOB NOT NULL,
    status INTEGER,
    sealed BLOB,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key_hash)
) STRICT;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE admin_tokens (
    name TEXT PRIMARY KEY CHECK (name <> ''),
    hash BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Whose key this is, for callers of the API: a key names no tenant.
CREATE INDEX api_keys_id ON api_keys (id);
