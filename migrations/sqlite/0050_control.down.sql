DROP INDEX api_keys_id;
DROP TABLE admin_tokens;
DROP TABLE idempotency_keys;
