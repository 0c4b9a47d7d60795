-- Up to when minutes of usage and of metrics were forgotten: one row, or none. What comes late for an hour before that is added
-- to the hour, which cannot be made anew any more.
CREATE TABLE usage_forgotten (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    before timestamptz NOT NULL
);
SELECT tollgate_platform_table('usage_forgotten');
