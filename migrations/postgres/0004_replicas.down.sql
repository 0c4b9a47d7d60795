DROP TABLE replica_revisions;
DROP TABLE replicas;
