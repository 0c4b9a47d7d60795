DROP TABLE config_heads;
DROP TABLE config_generation;
DROP TABLE config_revisions;
