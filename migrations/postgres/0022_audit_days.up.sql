-- Makes the partitions of a day (in UTC). What the rest has of that day, as after a restore, moves into them: PostgreSQL
-- makes no partition for rows that the default one has.
CREATE OR REPLACE FUNCTION tollgate_audit_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    class text;
    parent text;
    name text;
    rest text;
    since timestamptz := day::timestamp AT TIME ZONE 'UTC';
    until timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    strays boolean;
BEGIN
    -- One at a time, or two replicas would make the same one.
    PERFORM pg_advisory_xact_lock(hashtext('tollgate_audit_day'));
    FOREACH class IN ARRAY ARRAY['control', 'data'] LOOP
        parent := 'audit_events_' || class;
        rest := parent || '_rest';
        name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        CONTINUE WHEN to_regclass(quote_ident(name)) IS NOT NULL;
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I WHERE time >= $1 AND time < $2)', rest) INTO strays USING since, until;
        IF NOT strays THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', name, parent, since, until);
            CONTINUE;
        END IF;
        -- Nobody adds to the rest meanwhile.
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', rest);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE time >= $1 AND time < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved',
                       rest, name) USING since, until;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, since, until);
    END LOOP;
END $$;
