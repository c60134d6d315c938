-- Promise: a message gets the next `seq` of its conversation, and its row and `message.added` event appear
-- together. The event carries the seq, so that a replay gives the same one.
-- Safe under concurrency: the update of the conversation row locks it until commit, so seqs are dense and in
-- commit order. A repeated message id, earlier or in the same batch, is left out before anything is counted.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), fresh AS (
    SELECT c.*, row_number() OVER (PARTITION BY c.entity_id ORDER BY c.n) AS nth,
           count(*) OVER (PARTITION BY c.entity_id) AS many
    FROM (SELECT DISTINCT ON (payload ->> 'message_id') * FROM change ORDER BY payload ->> 'message_id', n) AS c
    WHERE NOT EXISTS (SELECT FROM messages m WHERE m.message_id = c.payload ->> 'message_id')
), counted AS (
    UPDATE conversations v
    SET last_seq = v.last_seq + f.many, updated_at = coalesce(f.recorded_at, now())
    FROM fresh f
    WHERE v.conversation_id = f.entity_id AND f.nth = f.many
    RETURNING v.conversation_id, v.last_seq - f.many AS before
), added AS (
    INSERT INTO messages (
        message_id, conversation_id, seq, role, content, tool_calls, tool_call_id, name, extra, workflow_id,
        execution_id, parent_seq, model, input_tokens, output_tokens, cost_usd, created_at)
    SELECT p.message_id, f.entity_id, v.before + f.nth, f.payload #>> '{message,role}',
           f.payload #> '{message,content}', f.payload #> '{message,tool_calls}',
           f.payload #>> '{message,tool_call_id}', f.payload #>> '{message,name}', coalesce(p.extra, '{}'),
           f.workflow_id, p.execution_id, p.parent_seq, p.model, p.input_tokens, p.output_tokens, p.cost_usd,
           f.created_at
    FROM fresh f
    JOIN counted v ON v.conversation_id = f.entity_id
    CROSS JOIN LATERAL jsonb_to_record(f.payload) AS p (
        message_id text, extra jsonb, execution_id text, parent_seq bigint, model text, input_tokens bigint,
        output_tokens bigint, cost_usd numeric)
    RETURNING message_id, seq
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload || jsonb_build_object('seq', a.seq)
    FROM fresh c JOIN added a ON a.message_id = c.payload ->> 'message_id'
    WHERE c.recorded_at IS NULL
    ORDER BY c.n
    RETURNING event_id
), queued AS (
    INSERT INTO event_inbox (event_id) SELECT event_id FROM event
)
SELECT c.event_id, a.seq
FROM fresh c JOIN added a ON a.message_id = c.payload ->> 'message_id'
