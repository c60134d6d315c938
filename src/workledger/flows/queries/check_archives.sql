-- Promise: the files of the archive of which the log does not say what their rows do, and those that it tells of and
-- that have no row; nothing when all is well.
-- Safe under concurrency: one snapshot; a row and its event are written in one transaction.
SELECT coalesce(a.name, e.entity_id),
       CASE WHEN a.name IS NULL THEN 'the log tells of this file, and nothing is recorded about it'
            WHEN e.event_id IS NULL THEN 'no event of the log tells of this file'
            ELSE 'the event ' || e.event_id || ' says something else about this file' END
FROM archives a
FULL JOIN (SELECT * FROM events WHERE event_type = 'log.archived') AS e ON e.event_id = a.event_id
WHERE a.name IS NULL OR e.event_id IS NULL
   OR (a.name, a.kind, a.source, a.url, encode(a.sha256, 'hex'), a.size_bytes, a.rows, a.first_position, a.last_position)
      IS DISTINCT FROM
      (e.entity_id, e.payload ->> 'kind', e.payload ->> 'source', e.payload ->> 'url', e.payload ->> 'sha256',
       (e.payload -> 'size_bytes')::bigint, (e.payload -> 'rows')::bigint, (e.payload -> 'first_position')::bigint,
       (e.payload -> 'last_position')::bigint)
ORDER BY 1
