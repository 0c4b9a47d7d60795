-- Nothing to do: SQLite has no partitions and no functions of its own; the program does it.
SELECT 1;
