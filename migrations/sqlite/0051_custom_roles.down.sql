DELETE FROM role_bindings WHERE (tenant, role) IN (SELECT tenant, name FROM custom_roles);
DROP TABLE custom_roles;
