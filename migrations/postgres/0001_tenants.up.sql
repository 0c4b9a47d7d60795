-- What every table of tenants gets: row-level security that binds the owner too, one policy for the tenant's role and one
-- for the platform's. A tenant that is not named matches nothing. Roles are compared by name, too: the role that logs in
-- inherits from both, and sees nothing before it takes one. `tenant_may` lists what the tenant's role may do.
CREATE FUNCTION tollgate_tenant_table(target regclass, tenant_may text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY tenant_rows ON %s TO tollgate_tenant
                    USING (tenant = current_setting(''tollgate.tenant'', true) AND current_user = ''tollgate_tenant'')
                    WITH CHECK (tenant = current_setting(''tollgate.tenant'', true) AND current_user = ''tollgate_tenant'')',
                   target);
    EXECUTE format('CREATE POLICY platform_rows ON %s TO tollgate_platform
                    USING (current_user = ''tollgate_platform'')
                    WITH CHECK (current_user = ''tollgate_platform'')', target);
    EXECUTE format('GRANT %s ON %s TO tollgate_tenant', tenant_may, target);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO tollgate_platform', target);
END $$;

-- Tables without tenants: the platform's role only.
CREATE FUNCTION tollgate_platform_table(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO tollgate_platform', target);
END $$;

-- For append-only tables.
CREATE FUNCTION tollgate_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO tollgate_tenant, tollgate_platform', current_schema());
END $$;
GRANT SELECT ON schema_migrations TO tollgate_platform;

CREATE TABLE tenants (
    tenant text PRIMARY KEY CHECK (tenant <> ''),
    display_name text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
SELECT tollgate_tenant_table('tenants', 'SELECT');
