-- Promise: a file of the archive is recorded once, and the record never changes.
-- Safe under concurrency: the name is unique; the loser of a race is told.
INSERT INTO archives (
    name, kind, source, url, sha256, size_bytes, rows, first_position, last_position, first_time, last_time, erased,
    format_version, event_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::uuid)
