CREATE TABLE config_revisions (
    tenant text NOT NULL CHECK (tenant <> ''),
    revision bigint NOT NULL CHECK (revision > 0),
    parent bigint NOT NULL CHECK (parent >= 0 AND parent < revision),
    schema_version integer NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    size bigint NOT NULL,
    content bytea NOT NULL,
    author text NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, revision)
);
SELECT tollgate_tenant_table('config_revisions', 'SELECT, INSERT');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON config_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate_refuse_change();

CREATE TABLE config_generation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    generation bigint NOT NULL
);
INSERT INTO config_generation (generation) VALUES (0);
SELECT tollgate_platform_table('config_generation');

CREATE TABLE config_heads (
    tenant text PRIMARY KEY CHECK (tenant <> ''),
    revision bigint NOT NULL,
    hash bytea NOT NULL,
    generation bigint NOT NULL,
    updated_at timestamptz NOT NULL
);
SELECT tollgate_tenant_table('config_heads', 'SELECT, INSERT, UPDATE');
-- What moved since a generation: how replicas poll.
CREATE INDEX config_heads_generation ON config_heads (generation);

-- The row lock on the counter makes generations commit in order. As the owner, because a tenant must not move the counter
-- by itself.
CREATE FUNCTION tollgate_next_generation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE config_generation SET generation = generation + 1 RETURNING generation INTO NEW.generation;
    RETURN NEW;
END $$;
CREATE TRIGGER next_generation BEFORE UPDATE OF revision ON config_heads
    FOR EACH ROW EXECUTE FUNCTION tollgate_next_generation();
