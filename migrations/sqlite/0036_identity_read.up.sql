-- How far a process has read the feed of identities: what one that lives has not read is not forgotten.
ALTER TABLE replicas ADD COLUMN identity_seq INTEGER NOT NULL DEFAULT 0;
