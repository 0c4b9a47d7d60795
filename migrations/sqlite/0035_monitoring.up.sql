-- Nothing to do: what SQLite says of itself comes from its pragmas, which are no tables.
SELECT 1;
