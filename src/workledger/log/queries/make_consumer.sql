-- Promise: a named reader has a cursor; a new one begins at the beginning of the log.
-- Safe under concurrency: the primary key decides who makes it.
INSERT INTO consumers (name) VALUES ($1) ON CONFLICT (name) DO NOTHING
