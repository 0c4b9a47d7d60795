DROP TABLE canary_reports;
DROP TABLE canaries;
