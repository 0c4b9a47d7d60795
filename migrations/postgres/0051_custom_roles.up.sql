-- Named sets of permissions of the control API, of one tenant each. Who has one is in role_bindings, as with the built-in
-- roles, whose names none of these has.
CREATE TABLE custom_roles (
    tenant text NOT NULL CHECK (tenant <> ''),
    name text NOT NULL CHECK (name <> ''),
    description text NOT NULL,
    -- Names of permissions, joined by spaces.
    permissions text NOT NULL,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, name)
);
SELECT tollgate_tenant_table('custom_roles', 'SELECT, INSERT, UPDATE, DELETE');
