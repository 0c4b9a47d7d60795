DROP TABLE identity_changes, identity_head, role_bindings, revocations, api_keys, users;
DROP FUNCTION tollgate_next_identity();
