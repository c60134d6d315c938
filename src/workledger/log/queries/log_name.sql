-- Promise: the name under which the log is sealed: that of its seals, else that of its keys, else one made of its id.
-- Safe under concurrency: one snapshot; a log never changes its name.
SELECT coalesce(
    (SELECT origin FROM seals WHERE number = 1),
    (SELECT name FROM seal_keys ORDER BY created_at, key_id LIMIT 1),
    (SELECT 'workledger/' || $1::text || '/' || left(replace(log_id::text, '-', ''), 16) FROM log_head))
