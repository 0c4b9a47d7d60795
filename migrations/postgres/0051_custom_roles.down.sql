DELETE FROM role_bindings b USING custom_roles c WHERE c.tenant = b.tenant AND c.name = b.role;
DROP TABLE custom_roles;
