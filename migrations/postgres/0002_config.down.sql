DROP TABLE config_heads;
DROP FUNCTION tollgate_next_generation();
DROP TABLE config_generation;
DROP TABLE config_revisions;
