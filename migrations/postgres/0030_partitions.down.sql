DROP FUNCTION tollgate_history_drop(text, date);
DROP FUNCTION tollgate_history_day(date);
