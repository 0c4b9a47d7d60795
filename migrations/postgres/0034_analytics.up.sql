-- Summaries of a time. They run as whoever calls them, so that row-level security holds, and are written so that PostgreSQL
-- takes them into the calling statement. `grain`: `minute` for short times, `hour` for long ones.

CREATE FUNCTION server_health_summary(of_tenant text, since timestamptz, till timestamptz, grain text)
RETURNS TABLE (server text, targets bigint, replicas bigint, observed bigint, available bigint, probes bigint,
               probes_failed bigint, probe_us bigint, latency_us bigint, in_flight_max bigint, ejections bigint,
               changes bigint, seen_at timestamptz)
LANGUAGE sql STABLE AS $$
    WITH samples AS (
        SELECT m.server, m.target, m.replica, m.at, m.observed, m.available, m.probes, m.probes_failed, m.probe_us,
               m.latency_count, m.latency_us, m.in_flight_max, m.ejections, m.changes
          FROM health_minute m WHERE grain = 'minute' AND m.tenant = of_tenant AND m.at >= since AND m.at < till
        UNION ALL
        SELECT h.server, h.target, h.replica, h.at, h.observed, h.available, h.probes, h.probes_failed, h.probe_us,
               h.latency_count, h.latency_us, h.in_flight_max, h.ejections, h.changes
          FROM health_hour h WHERE grain = 'hour' AND h.tenant = of_tenant AND h.at >= since AND h.at < till
    )
    SELECT s.server, count(DISTINCT s.target), count(DISTINCT s.replica), sum(s.observed)::bigint,
           sum(s.available)::bigint, sum(s.probes)::bigint, sum(s.probes_failed)::bigint,
           div(sum(s.probe_us), greatest(sum(s.probes), 1))::bigint,
           div(sum(s.latency_us), greatest(sum(s.latency_count), 1))::bigint,
           max(s.in_flight_max), sum(s.ejections)::bigint, sum(s.changes)::bigint, max(s.at)
      FROM samples s GROUP BY s.server ORDER BY s.server COLLATE "C"
$$;

-- Quantiles are the middle (by ratio) of the interval of `latency` that they lie in: at most 4.4 percent off.
CREATE FUNCTION request_performance_summary(of_tenant text, since timestamptz, till timestamptz, grain text)
RETURNS TABLE (route text, server text, calls bigint, errors bigint, failures bigint, mean_us bigint, p50_us bigint,
               p95_us bigint, p99_us bigint)
LANGUAGE sql STABLE AS $$
    WITH cells AS (
        SELECT m.route, m.server, m.calls, m.errors, m.failures, m.busy_us, m.latency
          FROM metric_minute m WHERE grain = 'minute' AND m.tenant = of_tenant AND m.at >= since AND m.at < till
        UNION ALL
        SELECT h.route, h.server, h.calls, h.errors, h.failures, h.busy_us, h.latency
          FROM metric_hour h WHERE grain = 'hour' AND h.tenant = of_tenant AND h.at >= since AND h.at < till
    ), counts AS (
        SELECT c.route, c.server, sum(c.calls)::bigint AS calls, sum(c.errors)::bigint AS errors,
               sum(c.failures)::bigint AS failures, div(sum(c.busy_us), greatest(sum(c.calls), 1))::bigint AS mean_us
          FROM cells c GROUP BY c.route, c.server
    ), sizes AS (
        SELECT c.route, c.server, b.key::int AS size, sum(b.value::bigint) AS n
          FROM cells c, jsonb_each_text(c.latency::jsonb) b GROUP BY c.route, c.server, b.key::int
    ), ranks AS (
        SELECT s.route, s.server, s.size, sum(s.n) OVER (PARTITION BY s.route, s.server ORDER BY s.size) AS upto,
               sum(s.n) OVER (PARTITION BY s.route, s.server) AS total
          FROM sizes s
    ), marks AS (
        SELECT r.route, r.server, min(r.size) FILTER (WHERE r.upto * 100 >= r.total * 50) AS p50,
               min(r.size) FILTER (WHERE r.upto * 100 >= r.total * 95) AS p95,
               min(r.size) FILTER (WHERE r.upto * 100 >= r.total * 99) AS p99
          FROM ranks r GROUP BY r.route, r.server
    )
    SELECT c.route, c.server, c.calls, c.errors, c.failures, c.mean_us,
           round(power(2::float8, (m.p50 + 0.5) / 8))::bigint, round(power(2::float8, (m.p95 + 0.5) / 8))::bigint,
           round(power(2::float8, (m.p99 + 0.5) / 8))::bigint
      FROM counts c LEFT JOIN marks m ON m.route = c.route AND m.server = c.server
     ORDER BY c.calls DESC, c.route COLLATE "C", c.server COLLATE "C"
$$;

-- `grain`: `hour` or `day`.
CREATE FUNCTION tenant_usage_summary(of_tenant text, since timestamptz, till timestamptz, grain text)
RETURNS TABLE (calls bigint, errors bigint, bytes_in bigint, bytes_out bigint, principals bigint, routes bigint,
               servers bigint, tools bigint)
LANGUAGE sql STABLE AS $$
    WITH cells AS (
        SELECT h.principal, h.route, h.server, h.tool, h.calls, h.errors, h.bytes_in, h.bytes_out
          FROM usage_hour h WHERE grain = 'hour' AND h.tenant = of_tenant AND h.at >= since AND h.at < till
        UNION ALL
        SELECT d.principal, d.route, d.server, d.tool, d.calls, d.errors, d.bytes_in, d.bytes_out
          FROM usage_day d WHERE grain = 'day' AND d.tenant = of_tenant AND d.at >= since AND d.at < till
    )
    SELECT coalesce(sum(c.calls), 0)::bigint, coalesce(sum(c.errors), 0)::bigint,
           coalesce(sum(c.bytes_in), 0)::bigint, coalesce(sum(c.bytes_out), 0)::bigint,
           count(DISTINCT nullif(c.principal, '')), count(DISTINCT nullif(c.route, '')),
           count(DISTINCT nullif(c.server, '')), count(DISTINCT nullif(c.tool, ''))
      FROM cells c
$$;
REVOKE ALL ON FUNCTION server_health_summary(text, timestamptz, timestamptz, text),
    request_performance_summary(text, timestamptz, timestamptz, text),
    tenant_usage_summary(text, timestamptz, timestamptz, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION server_health_summary(text, timestamptz, timestamptz, text),
    request_performance_summary(text, timestamptz, timestamptz, text),
    tenant_usage_summary(text, timestamptz, timestamptz, text) TO tollgate_tenant, tollgate_platform;
