-- Before which day events of a class were dropped (1: control, 2: data). What comes from a spool after its day was dropped
-- is not put back.
CREATE TABLE audit_dropped (
    class smallint PRIMARY KEY,
    before timestamptz NOT NULL
);
SELECT tollgate_platform_table('audit_dropped');

-- How many events lay before where the tenant's chains began.
ALTER TABLE audit_checkpoints ADD COLUMN dropped bigint NOT NULL DEFAULT 0;
