-- A revision that is tried on a share of callers or replicas, beside the head. `share` and `share_before` are in hundredths
-- of a per cent; from `share_at` on the former holds. `rules` and `figures` are JSON of the program.
CREATE TABLE canaries (
    tenant text NOT NULL CHECK (tenant <> ''),
    id uuid NOT NULL,
    base bigint NOT NULL CHECK (base > 0),
    candidate bigint NOT NULL CHECK (candidate > 0 AND candidate <> base),
    kind text NOT NULL CHECK (kind IN ('principals', 'replicas')),
    share integer NOT NULL CHECK (share BETWEEN 1 AND 10000),
    share_before integer NOT NULL CHECK (share_before BETWEEN 0 AND 10000),
    share_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('aborted', 'promoted', 'rolled_back', 'running')),
    rules text NOT NULL,
    started_by text NOT NULL,
    reason text NOT NULL,
    started_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    ended_at timestamptz,
    ended_by text,
    end_reason text,
    promoted bigint,
    figures text,
    PRIMARY KEY (tenant, id),
    CHECK ((state = 'running') = (ended_at IS NULL))
);
SELECT tollgate_tenant_table('canaries', 'SELECT, INSERT, UPDATE');
-- One at a time; and what every replica asks for.
CREATE UNIQUE INDEX canaries_running ON canaries (tenant) WHERE state = 'running';
-- The latest ones of a tenant.
CREATE INDEX canaries_started ON canaries (tenant, started_at);

-- Running totals of one process. They outlive it: what it counted still counts.
CREATE TABLE canary_reports (
    tenant text NOT NULL CHECK (tenant <> ''),
    canary uuid NOT NULL,
    boot uuid NOT NULL,
    figures text NOT NULL,
    refusal text,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, canary, boot)
);
SELECT tollgate_tenant_table('canary_reports', 'SELECT');
