DROP TABLE identity_changes;
DROP TABLE identity_head;
DROP TABLE role_bindings;
DROP TABLE revocations;
DROP TABLE api_keys;
DROP TABLE users;
