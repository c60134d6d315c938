-- Promise: the events created from $1 up to, but not including, $2, after the id $3, in the order of their ids, which
-- begin with their time; one page. A time of NULL is no bound. Partitions of other times are not touched.
-- Safe under concurrency: one snapshot. An event that is recorded late, with an id in the past, is missed by who has
-- read past it: who must not miss anything reads by position.
SELECT p.position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM events e
LEFT JOIN event_positions p ON p.event_id = e.event_id
WHERE e.event_id >= coalesce(uuid_floor($1::timestamptz), '00000000-0000-0000-0000-000000000000'::uuid)
  AND e.event_id < coalesce(uuid_floor($2::timestamptz), 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
  AND e.event_id > coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
  AND ($4::text IS NULL OR e.event_type = $4)
ORDER BY e.event_id
LIMIT $5
