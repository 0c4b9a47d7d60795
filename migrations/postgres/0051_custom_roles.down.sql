-- The owner sees no rows of tenants.
SET LOCAL ROLE tollgate_platform;
DELETE FROM role_bindings b USING custom_roles c WHERE c.tenant = b.tenant AND c.name = b.role;
RESET ROLE;
DROP TABLE custom_roles;
