DROP TABLE audit_erasures;
