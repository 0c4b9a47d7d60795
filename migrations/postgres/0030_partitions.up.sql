-- Partitions by time of health, metrics and usage. Policies are on the whole tables; nobody but the owner may touch a
-- partition by itself.

-- Makes the partitions that a day (in UTC) belongs to: those of the day, and those of its month.
CREATE FUNCTION tollgate_history_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent text;
    month date := date_trunc('month', day::timestamp)::date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('tollgate_history_day'));
    FOREACH parent IN ARRAY ARRAY['health_minute', 'metric_minute', 'usage_minute'] LOOP
        PERFORM tollgate_partition(parent, 'at', to_char(day, 'YYYYMMDD'),
                                   day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
    FOREACH parent IN ARRAY ARRAY['health_changes', 'health_hour', 'metric_hour', 'usage_hour'] LOOP
        PERFORM tollgate_partition(parent, 'at', to_char(month, 'YYYYMM'),
                                   month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION tollgate_history_day(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate_history_day(date) TO tollgate_platform;

-- Drops the partitions of a table that end at or before a day, and what else is that old. Returns how many partitions and
-- rows that was.
CREATE FUNCTION tollgate_history_drop(parent text, before date) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    part record;
    gone bigint := 0;
    rows bigint;
    ends date;
BEGIN
    IF parent NOT IN ('health_changes', 'health_hour', 'health_minute', 'metric_hour', 'metric_minute', 'usage_hour', 'usage_minute') THEN
        RAISE EXCEPTION 'no such table';
    END IF;
    FOR part IN SELECT c.relname, substring(c.relname FROM '_([0-9]+)$') AS period FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = parent::regclass AND c.relname ~ '_([0-9]{6}|[0-9]{8})$' LOOP
        ends := CASE length(part.period) WHEN 8 THEN to_date(part.period, 'YYYYMMDD') + 1
                     ELSE (to_date(part.period, 'YYYYMM') + interval '1 month')::date END;
        IF ends <= before THEN
            EXECUTE format('DROP TABLE %I', part.relname);
            gone := gone + 1;
        END IF;
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE at < $1', parent || '_rest') USING before::timestamp AT TIME ZONE 'UTC';
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN gone + rows;
END $$;
REVOKE ALL ON FUNCTION tollgate_history_drop(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate_history_drop(text, date) TO tollgate_platform;
