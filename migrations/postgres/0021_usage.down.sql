DROP TABLE usage_dirty;
DROP TABLE usage_day;
DROP TABLE usage_hour;
DROP TABLE usage_minute;
