CREATE TABLE leader_locks (
    name text PRIMARY KEY,
    holder uuid NOT NULL,
    epoch bigint NOT NULL,
    taken_at timestamptz NOT NULL
);
SELECT tollgate_platform_table('leader_locks');
