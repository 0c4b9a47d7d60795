-- Before which day events of a class were dropped (1: control, 2: data). What comes from a spool after its day was dropped
-- is not put back.
CREATE TABLE audit_dropped (
    class INTEGER NOT NULL PRIMARY KEY,
    before INTEGER NOT NULL
) STRICT;

-- How many events lay before where the tenant's chains began.
ALTER TABLE audit_checkpoints ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
