-- Promise: a worker's coming, going and loss are rows and events at once.
-- Safe under concurrency: several reapers may report the same loss; only the first finds `lost_at` unset.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), changed AS (
    INSERT INTO workers AS k (
        worker_id, hostname, pid, version, started_at, heartbeat_at, lease_s, stopped_at, lost_at)
    SELECT c.entity_id, coalesce(p.hostname, ''), coalesce(p.pid, 0), coalesce(p.version, ''), c.created_at,
           coalesce(c.recorded_at, now()), coalesce(p.lease_s, 30), NULL, NULL
    FROM change c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (
        hostname text, pid integer, version text, lease_s double precision)
    WHERE c.event_type = 'worker.started'
    ON CONFLICT (worker_id) DO NOTHING
    RETURNING worker_id
), ended AS (
    UPDATE workers k
    SET stopped_at = CASE c.event_type WHEN 'worker.stopped' THEN c.created_at ELSE k.stopped_at END,
        lost_at = CASE c.event_type WHEN 'worker.lost' THEN c.created_at ELSE k.lost_at END
    FROM change c
    WHERE k.worker_id = c.entity_id AND c.event_type IN ('worker.stopped', 'worker.lost')
      AND k.stopped_at IS NULL AND k.lost_at IS NULL
      AND (c.expected IS NULL OR c.event_type = 'worker.stopped'
           OR k.heartbeat_at < now() - k.lease_s * interval '1 second')
    RETURNING k.worker_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM change c JOIN (SELECT worker_id FROM changed UNION ALL SELECT worker_id FROM ended) k ON k.worker_id = c.entity_id
    WHERE c.recorded_at IS NULL
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
