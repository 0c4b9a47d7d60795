CREATE TABLE users (
    tenant text NOT NULL CHECK (tenant <> ''),
    id text NOT NULL CHECK (id <> ''),
    display_name text NOT NULL,
    email text NOT NULL,
    disabled boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id)
);
SELECT tollgate_tenant_table('users', 'SELECT, INSERT, UPDATE, DELETE');

CREATE TABLE api_keys (
    tenant text NOT NULL CHECK (tenant <> ''),
    id text NOT NULL CHECK (id <> ''),
    principal text NOT NULL,
    record text NOT NULL,
    author text NOT NULL,
    disabled boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (tenant, id)
);
SELECT tollgate_tenant_table('api_keys', 'SELECT, INSERT, UPDATE, DELETE');

CREATE TABLE revocations (
    tenant text NOT NULL CHECK (tenant <> ''),
    id text NOT NULL CHECK (id <> ''),
    record text NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id)
);
SELECT tollgate_tenant_table('revocations', 'SELECT, INSERT, DELETE');

CREATE TABLE role_bindings (
    tenant text NOT NULL CHECK (tenant <> ''),
    subject text NOT NULL CHECK (subject <> ''),
    role text NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, subject, role)
);
SELECT tollgate_tenant_table('role_bindings', 'SELECT, INSERT, DELETE');

CREATE TABLE identity_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint NOT NULL
);
INSERT INTO identity_head (seq) VALUES (0);
SELECT tollgate_platform_table('identity_head');

-- What replicas follow. A null body: it is gone.
CREATE TABLE identity_changes (
    seq bigint PRIMARY KEY,
    tenant text NOT NULL CHECK (tenant <> ''),
    kind text NOT NULL,
    id text NOT NULL,
    body text,
    changed_at timestamptz NOT NULL
);
SELECT tollgate_tenant_table('identity_changes', 'SELECT, INSERT');
-- Retention.
CREATE INDEX identity_changes_changed_at ON identity_changes (changed_at);

-- The row lock on the head holds until the commit, so numbers commit in their order and an undone transaction leaves no gap.
CREATE FUNCTION tollgate_next_identity() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE identity_head SET seq = seq + 1 RETURNING seq INTO NEW.seq;
    RETURN NEW;
END $$;
CREATE TRIGGER next_identity BEFORE INSERT ON identity_changes
    FOR EACH ROW EXECUTE FUNCTION tollgate_next_identity();
