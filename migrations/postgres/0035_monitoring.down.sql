DROP VIEW monitoring_database;
DROP VIEW monitoring_indexes;
DROP VIEW monitoring_tables;
