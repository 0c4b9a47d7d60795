DROP TABLE leader_locks;
