-- Partitions by time, for every table that has them. Each such table has a partition `<table>_rest` for what lies outside
-- of all that were made. All of this runs as the owner of the tables: the platform's role may not make any. Policies are on
-- the whole tables; nobody but the owner may touch a partition by itself.

-- Makes one partition if it is missing. What the rest has of its time (as after a restore) moves into it.
CREATE FUNCTION tollgate_partition(parent text, key text, suffix text, since timestamptz, until timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    name text := parent || '_' || suffix;
    rest text := parent || '_rest';
    strays boolean;
BEGIN
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I WHERE %I >= $1 AND %I < $2)', rest, key, key) INTO strays USING since, until;
    IF NOT strays THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', name, parent, since, until);
        RETURN;
    END IF;
    -- Nobody adds to the rest meanwhile.
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', rest);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %I < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved',
                   rest, key, key, name) USING since, until;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, since, until);
END $$;
REVOKE ALL ON FUNCTION tollgate_partition(text, text, text, timestamptz, timestamptz) FROM PUBLIC;

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
