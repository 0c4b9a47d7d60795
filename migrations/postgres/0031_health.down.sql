DROP TABLE health_changes;
DROP TABLE health_hour;
DROP TABLE health_minute;
