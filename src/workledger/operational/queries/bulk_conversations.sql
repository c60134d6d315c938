-- Promise: the rows of conversations that began in this batch, with the seq of their last message in it.
-- Safe under concurrency: an id that is taken is a unique violation and undoes the whole batch.
INSERT INTO conversations (conversation_id, title, subject, metadata, last_seq, created_at, updated_at)
SELECT s.entity_id, s.payload ->> 'title', s.payload ->> 'subject', coalesce(s.payload -> 'metadata', '{}'),
       coalesce(m.last_seq, 0), s.created_at, now()
FROM bulk_changes s
LEFT JOIN (
    SELECT entity_id, count(*) AS last_seq FROM bulk_changes WHERE event_type = 'message.added' GROUP BY entity_id
) m ON m.entity_id = s.entity_id
WHERE s.event_type = 'conversation.started'
