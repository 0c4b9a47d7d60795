CREATE TABLE sealing_keys (
    purpose text NOT NULL,
    id text NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    active_from timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (purpose, id)
);
SELECT tollgate_platform_table('sealing_keys');
