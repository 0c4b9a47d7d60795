-- What the database itself says, for the platform only. Partitions count as their tables. Of Tollgate's schema alone; views
-- ask as whoever uses them.
CREATE VIEW monitoring_tables WITH (security_invoker = true) AS
    SELECT coalesce(pg_partition_root(c.oid)::regclass::text, c.relname::text) AS name,
           count(*) FILTER (WHERE c.relispartition) AS partitions,
           sum(greatest(c.reltuples, 0))::bigint AS rows_estimated,
           sum(pg_table_size(c.oid))::bigint AS table_bytes, sum(pg_indexes_size(c.oid))::bigint AS index_bytes
      FROM pg_class c
     WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
     GROUP BY 1;

CREATE VIEW monitoring_indexes WITH (security_invoker = true) AS
    SELECT coalesce(pg_partition_root(i.relid)::regclass::text, i.relname::text) AS table_name,
           coalesce(pg_partition_root(i.indexrelid)::regclass::text, i.indexrelname::text) AS name,
           sum(i.idx_scan)::bigint AS scans, sum(i.idx_tup_read)::bigint AS rows_read,
           sum(pg_relation_size(i.indexrelid))::bigint AS bytes
      FROM pg_stat_user_indexes i
     WHERE i.schemaname = current_schema()
     GROUP BY 1, 2;

CREATE VIEW monitoring_database WITH (security_invoker = true) AS
    SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes,
           (SELECT count(*) FROM pg_stat_activity a WHERE a.datname = current_database()) AS connections,
           d.xact_commit AS commits, d.xact_rollback AS rollbacks, d.blks_hit AS blocks_hit, d.blks_read AS blocks_read,
           d.deadlocks AS deadlocks
      FROM pg_stat_database d WHERE d.datname = current_database();
GRANT SELECT ON monitoring_tables, monitoring_indexes, monitoring_database TO tollgate_platform;
