-- How far a process has read the feed of identities: what one that lives has not read is not forgotten.
ALTER TABLE replicas ADD COLUMN identity_seq bigint NOT NULL DEFAULT 0;
