-- Events, by class (1: control, 2: data) and then by day, so that retention drops whole partitions.
CREATE TABLE audit_events (
    tenant text NOT NULL CHECK (tenant <> ''),
    class smallint NOT NULL,
    writer uuid NOT NULL,
    sequence bigint NOT NULL,
    time timestamptz NOT NULL,
    commitment bytea NOT NULL,
    link bytea NOT NULL,
    salt bytea,
    payload text,
    principal text NOT NULL,
    route text NOT NULL,
    server text NOT NULL,
    name text NOT NULL,
    outcome text NOT NULL,
    PRIMARY KEY (tenant, class, writer, sequence, time)
) PARTITION BY LIST (class);
CREATE TABLE audit_events_control PARTITION OF audit_events FOR VALUES IN (1) PARTITION BY RANGE (time);
CREATE TABLE audit_events_data PARTITION OF audit_events FOR VALUES IN (2) PARTITION BY RANGE (time);
-- For what lies outside of every day that was made.
CREATE TABLE audit_events_control_rest PARTITION OF audit_events_control DEFAULT;
CREATE TABLE audit_events_data_rest PARTITION OF audit_events_data DEFAULT;
CREATE INDEX audit_events_time ON audit_events (tenant, time);
CREATE INDEX audit_events_principal ON audit_events (tenant, principal, time);
SELECT tollgate_tenant_table('audit_events', 'SELECT');

-- Makes the partitions of a day (in UTC). As the owner: the platform's role may not make tables.
CREATE FUNCTION tollgate_audit_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
REVOKE ALL ON FUNCTION tollgate_audit_day(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate_audit_day(date) TO tollgate_platform;

-- Drops the partitions of a class that end at or before a day; returns how many.
CREATE FUNCTION tollgate_audit_drop(class_name text, before date) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    part record;
    dropped integer := 0;
BEGIN
    IF class_name NOT IN ('control', 'data') THEN
        RAISE EXCEPTION 'no such class';
    END IF;
    FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = format('audit_events_%s', class_name)::regclass AND c.relname ~ '_[0-9]{8}$' LOOP
        IF to_date(right(part.relname, 8), 'YYYYMMDD') < before THEN
            EXECUTE format('DROP TABLE %I', part.relname);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION tollgate_audit_drop(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate_audit_drop(text, date) TO tollgate_platform;

-- How far each chain is, and behind which event it begins.
CREATE TABLE audit_heads (
    tenant text NOT NULL CHECK (tenant <> ''),
    class smallint NOT NULL,
    writer uuid NOT NULL,
    sequence bigint NOT NULL,
    link bytea NOT NULL,
    time timestamptz NOT NULL,
    from_sequence bigint NOT NULL,
    from_link bytea NOT NULL,
    PRIMARY KEY (tenant, class, writer)
);
SELECT tollgate_tenant_table('audit_heads', 'SELECT');

-- How far each writer's spool has been drained.
CREATE TABLE audit_writers (
    writer uuid PRIMARY KEY,
    segment bigint NOT NULL,
    place bigint NOT NULL,
    updated_at timestamptz NOT NULL
);
SELECT tollgate_platform_table('audit_writers');

CREATE TABLE audit_checkpoints (
    tenant text NOT NULL CHECK (tenant <> ''),
    number bigint NOT NULL,
    time timestamptz NOT NULL,
    events bigint NOT NULL,
    statement text NOT NULL,
    PRIMARY KEY (tenant, number)
);
SELECT tollgate_tenant_table('audit_checkpoints', 'SELECT');
