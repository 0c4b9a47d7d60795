-- Answers to requests with an `Idempotency-Key`, sealed with a key that only the caller can derive again. `status` is null
-- while the first request runs.
CREATE TABLE idempotency_keys (
    tenant text NOT NULL CHECK (tenant <> ''),
    key_hash bytea NOT NULL,
    request_hash bytea NOT NULL,
    status integer,
    sealed bytea,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key_hash)
);
SELECT tollgate_tenant_table('idempotency_keys', 'SELECT, INSERT, UPDATE, DELETE');
-- What has expired, for the clean-up.
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- Tokens of the installation itself, as SHA-256.
CREATE TABLE admin_tokens (
    name text PRIMARY KEY CHECK (name <> ''),
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL
);
SELECT tollgate_platform_table('admin_tokens');

-- Whose key this is, for callers of the API: a key names no tenant.
CREATE INDEX api_keys_id ON api_keys (id);
