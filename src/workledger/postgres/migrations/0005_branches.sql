-- Branches: a conversation is a tree of messages.
--
-- A tour. A message follows the one just before it, and `parent_seq` is NULL; that is every message of a
-- conversation nobody has edited, and costs nothing. Where a message was edited or answered again, `parent_seq`
-- names the earlier message that the new one follows (0: none), and `messages_forks` finds these few places. So a
-- branch is read as a few ranges of seq, however long it is.

ALTER TABLE messages ADD CONSTRAINT messages_parent_seq_is_of_an_earlier_message
    CHECK (parent_seq >= 0 AND parent_seq < seq);

CREATE INDEX messages_forks ON messages (conversation_id, seq) INCLUDE (parent_seq) WHERE parent_seq < seq - 1;
CREATE INDEX workflows_by_conversation ON workflows (conversation_id) WHERE conversation_id IS NOT NULL;
