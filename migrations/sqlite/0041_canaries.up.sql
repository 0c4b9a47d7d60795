CREATE TABLE canaries (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    id BLOB NOT NULL,
    base INTEGER NOT NULL CHECK (base > 0),
    candidate INTEGER NOT NULL CHECK (candidate > 0 AND candidate <> base),
    kind TEXT NOT NULL CHECK (kind IN ('principals', 'replicas')),
    share INTEGER NOT NULL CHECK (share BETWEEN 1 AND 10000),
    share_before INTEGER NOT NULL CHECK (share_before BETWEEN 0 AND 10000),
    share_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('aborted', 'promoted', 'rolled_back', 'running')),
    rules TEXT NOT NULL,
    started_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    ended_at INTEGER,
    ended_by TEXT,
    end_reason TEXT,
    promoted INTEGER,
    figures TEXT,
    PRIMARY KEY (tenant, id),
    CHECK ((state = 'running') = (ended_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX canaries_running ON canaries (tenant) WHERE state = 'running';
CREATE INDEX canaries_started ON canaries (tenant, started_at);

CREATE TABLE canary_reports (
    tenant TEXT NOT NULL CHECK (tenant <> ''),
    canary BLOB NOT NULL,
    boot BLOB NOT NULL,
    figures TEXT NOT NULL,
    refusal TEXT,
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, canary, boot)
) STRICT;
