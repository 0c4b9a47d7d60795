ALTER TABLE usage_minute RENAME TO usage_minute_old;
ALTER TABLE usage_minute_old RENAME CONSTRAINT usage_minute_pkey TO usage_minute_old_pkey;
ALTER TABLE usage_hour RENAME TO usage_hour_old;
ALTER TABLE usage_hour_old RENAME CONSTRAINT usage_hour_pkey TO usage_hour_old_pkey;
CREATE TABLE usage_minute (LIKE usage_minute_old INCLUDING CONSTRAINTS, PRIMARY KEY (tenant, at, principal, route, server, tool, writer));
SELECT tollgate_tenant_table('usage_minute', 'SELECT');
CREATE TABLE usage_hour (LIKE usage_hour_old INCLUDING CONSTRAINTS, PRIMARY KEY (tenant, at, principal, route, server, tool));
SELECT tollgate_tenant_table('usage_hour', 'SELECT');

-- The owner sees no rows of tenants.
SET LOCAL ROLE tollgate_platform;
INSERT INTO usage_minute SELECT * FROM usage_minute_old;
INSERT INTO usage_hour SELECT * FROM usage_hour_old;
RESET ROLE;
DROP TABLE usage_minute_old;
DROP TABLE usage_hour_old;
