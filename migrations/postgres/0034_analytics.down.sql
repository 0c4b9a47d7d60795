DROP FUNCTION tenant_usage_summary(text, timestamptz, timestamptz, text);
DROP FUNCTION request_performance_summary(text, timestamptz, timestamptz, text);
DROP FUNCTION server_health_summary(text, timestamptz, timestamptz, text);
