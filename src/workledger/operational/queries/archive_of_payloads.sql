-- Promise: the files that hold the stored payloads $1, each with the digests that it has of these.
-- Safe under concurrency: one snapshot; rows are only ever added.
SELECT a.name, a.kind, a.source, a.url, a.sha256, a.size_bytes, a.rows, a.first_position, a.last_position, a.first_time,
       a.last_time, a.erased, a.format_version, a.event_id::text, a.archived_at, a.removed_at, array_agg(p.digest)
FROM archived_payloads p
JOIN archives a ON a.name = p.archive
WHERE p.digest = ANY ($1::bytea[])
GROUP BY a.name
ORDER BY a.name
