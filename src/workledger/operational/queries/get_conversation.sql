-- Promise: one conversation.
-- Safe under concurrency: one snapshot.
SELECT conversation_id, title, subject, metadata, last_seq, created_at, updated_at
FROM conversations WHERE conversation_id = $1
