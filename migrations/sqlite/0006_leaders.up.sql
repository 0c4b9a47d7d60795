CREATE TABLE leader_locks (
    name TEXT NOT NULL PRIMARY KEY,
    holder BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    taken_at INTEGER NOT NULL
) STRICT;
