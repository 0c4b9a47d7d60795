DROP TABLE metric_hour;
DROP TABLE metric_minute;
