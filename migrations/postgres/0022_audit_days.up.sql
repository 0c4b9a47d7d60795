-- Partitions by time. Each table that has them has a partition `<table>_rest` for what lies outside of all that were made. All
-- of this runs as the owner of the tables: the platform's role may not make any.

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

-- Makes the partitions of a day (in UTC). What the rest has of that day, as after a restore, moves into them: PostgreSQL
-- makes no partition for rows that the default one has.
CREATE OR REPLACE FUNCTION tollgate_audit_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    class text;
BEGIN
    -- One at a time, or two replicas would make the same one.
    PERFORM pg_advisory_xact_lock(hashtext('tollgate_audit_day'));
    FOREACH class IN ARRAY ARRAY['control', 'data'] LOOP
        PERFORM tollgate_partition('audit_events_' || class, 'time', to_char(day, 'YYYYMMDD'),
                                   day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
END $$;
