-- Events in a table that only grows at its end, with numbers in place of names: less than two thirds of the processor time
-- for a row that one clustered by chain costs, which every call pays, and four fifths of its bytes. `audit_events` is how
-- everything but the drainer sees them.
CREATE TABLE audit_event_tenants (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL UNIQUE CHECK (tenant <> '')
) STRICT;

CREATE TABLE audit_event_chains (
    id INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    class INTEGER NOT NULL,
    writer BLOB NOT NULL,
    UNIQUE (tenant, class, writer)
) STRICT;

CREATE TABLE audit_event_rows (
    tenant INTEGER NOT NULL,
    chain INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    time INTEGER NOT NULL,
    commitment BLOB NOT NULL,
    link BLOB NOT NULL,
    salt BLOB,
    payload TEXT,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    server TEXT NOT NULL,
    name TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;

INSERT INTO audit_event_tenants (tenant) SELECT DISTINCT tenant FROM audit_events;
INSERT INTO audit_event_chains (tenant, class, writer)
    SELECT DISTINCT t.id, e.class, e.writer FROM audit_events e JOIN audit_event_tenants t ON t.tenant = e.tenant;
INSERT INTO audit_event_rows
    SELECT t.id, c.id, e.sequence, e.time, e.commitment, e.link, e.salt, e.payload, e.principal, e.route, e.server,
           e.name, e.outcome
      FROM audit_events e
      JOIN audit_event_tenants t ON t.tenant = e.tenant
      JOIN audit_event_chains c ON c.tenant = t.id AND c.class = e.class AND c.writer = e.writer;
DROP TABLE audit_events;
CREATE UNIQUE INDEX audit_event_rows_chain ON audit_event_rows (chain, sequence);
CREATE INDEX audit_event_rows_time ON audit_event_rows (tenant, time);

CREATE VIEW audit_events AS
    SELECT t.tenant, c.class, c.writer, r.sequence, r.time, r.commitment, r.link, r.salt, r.payload, r.principal, r.route,
           r.server, r.name, r.outcome
      FROM audit_event_tenants t
      JOIN audit_event_chains c ON c.tenant = t.id
      JOIN audit_event_rows r ON r.chain = c.id AND r.tenant = t.id;

-- The same in the order of chains without a sort, for a backup.
CREATE VIEW audit_events_by_chain AS
    SELECT t.tenant, c.class, c.writer, r.sequence, r.time, r.commitment, r.link, r.salt, r.payload, r.principal, r.route,
           r.server, r.name, r.outcome
      FROM audit_event_tenants t
     CROSS JOIN audit_event_chains c ON c.tenant = t.id
     CROSS JOIN audit_event_rows r ON r.chain = c.id;

-- A restore writes as it reads.
CREATE TRIGGER audit_events_insert INSTEAD OF INSERT ON audit_events BEGIN
    INSERT INTO audit_event_tenants (tenant) VALUES (NEW.tenant) ON CONFLICT DO NOTHING;
    INSERT INTO audit_event_chains (tenant, class, writer)
        SELECT id, NEW.class, NEW.writer FROM audit_event_tenants WHERE tenant = NEW.tenant ON CONFLICT DO NOTHING;
    INSERT INTO audit_event_rows
        SELECT t.id, c.id, NEW.sequence, NEW.time, NEW.commitment, NEW.link, NEW.salt, NEW.payload, NEW.principal,
               NEW.route, NEW.server, NEW.name, NEW.outcome
          FROM audit_event_tenants t
          JOIN audit_event_chains c ON c.tenant = t.id AND c.class = NEW.class AND c.writer = NEW.writer
         WHERE t.tenant = NEW.tenant;
END;
