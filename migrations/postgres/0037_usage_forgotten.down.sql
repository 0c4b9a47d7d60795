DROP TABLE usage_forgotten;
