ALTER TABLE audit_checkpoints DROP COLUMN dropped;
DROP TABLE audit_dropped;
