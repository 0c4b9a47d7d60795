CREATE OR REPLACE FUNCTION tollgate_audit_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    class text;
    name text;
BEGIN
    -- One at a time, or two replicas would make the same one.
    PERFORM pg_advisory_xact_lock(hashtext('tollgate_audit_day'));
    FOREACH class IN ARRAY ARRAY['control', 'data'] LOOP
        name := format('audit_events_%s_%s', class, to_char(day, 'YYYYMMDD'));
        IF to_regclass(quote_ident(name)) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', name,
                           'audit_events_' || class, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END IF;
    END LOOP;
END $$;
DROP FUNCTION tollgate_partition(text, text, text, timestamptz, timestamptz);
