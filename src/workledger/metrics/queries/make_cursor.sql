-- Promise: a consumer has a row to lock.
-- Safe under concurrency: the primary key decides; an existing cursor stays where it is.
INSERT INTO consumers (name) VALUES ($1) ON CONFLICT (name) DO NOTHING
