ALTER TABLE replicas DROP COLUMN identity_seq;
