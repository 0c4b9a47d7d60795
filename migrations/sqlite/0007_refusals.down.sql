DROP INDEX replica_revisions_refused;
