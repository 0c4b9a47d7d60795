DROP TABLE request_samples;
