CREATE TABLE config_revisions (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    revision INTEGER NOT NULL CHECK (revision > 0),
    parent INTEGER NOT NULL CHECK (parent >= 0 AND parent < revision),
    schema_version INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    size INTEGER NOT NULL,
    content BLOB NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, revision)
) STRICT;
CREATE TRIGGER config_revisions_no_update BEFORE UPDATE ON config_revisions
BEGIN SELECT RAISE(ABORT, 'config_revisions is append-only'); END;
CREATE TRIGGER config_revisions_no_delete BEFORE DELETE ON config_revisions
BEGIN SELECT RAISE(ABORT, 'config_revisions is append-only'); END;

CREATE TABLE config_generation (
    one INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO config_generation (generation) VALUES (0);

CREATE TABLE config_heads (
    tenant TEXT NOT NULL PRIMARY KEY CHECK (tenant <> ''),
    revision INTEGER NOT NULL,
    hash BLOB NOT NULL,
    generation INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX config_heads_generation ON config_heads (generation);
