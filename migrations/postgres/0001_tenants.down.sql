DROP TABLE tenants;
REVOKE SELECT ON schema_migrations FROM tollgate_platform;
DROP FUNCTION tollgate_refuse_change();
DROP FUNCTION tollgate_platform_table(regclass);
DROP FUNCTION tollgate_tenant_table(regclass, text);
