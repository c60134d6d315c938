"""Conversations as trees: every message follows an earlier one, and a branch is the way from a leaf to the root.

A message follows the one just before it (`seq - 1`), unless its `parent_seq` names an earlier one, or 0: then it
begins a branch. A message that was removed keeps its place in the tree and is left out of what is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from workledger.errors import NotFound
from workledger.model.records import Message
from workledger.operational.reads import fetch_messages
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["Branch", "branch", "branch_end", "branches", "message", "parent_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One history of a conversation: its last message, and the message at which it left an older branch (or 0)."""

    leaf_seq: int
    fork_seq: int


def branch(
    connection: Connection,
    conversation_id: str,
    *,
    leaf_seq: int | None = None,
    after_seq: int = 0,
    limit: int = 10_000,
) -> list[Message]:
    """The messages of the branch that ends with `leaf_seq` (by default the newest), in order, after a seq."""
    return fetch_messages(connection, "read_branch", (conversation_id, leaf_seq, after_seq, limit))


def branch_end(
    connection: Connection,
    conversation_id: str,
    *,
    leaf_seq: int | None = None,
    before_seq: int | None = None,
    limit: int = 50,
) -> list[Message]:
    """The last messages of a branch, in order; `before_seq` is the first of the page below."""
    found = fetch_messages(connection, "read_branch_end", (conversation_id, leaf_seq, before_seq, limit))
    return found[::-1]


def branches(connection: Connection, conversation_id: str, *, limit: int = 1000) -> list[Branch]:
    """The branches of a conversation, the newest first: that one is what is read by default."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "list_branches"), (conversation_id, limit))
        return [Branch(leaf_seq=leaf_seq, fork_seq=fork_seq) for leaf_seq, fork_seq in cursor.fetchall()]


def message(connection: Connection, conversation_id: str, seq: int) -> Message:
    """One message, removed or not; raises `NotFound`."""
    found = fetch_messages(connection, "get_message", (conversation_id, seq))
    if not found:
        raise NotFound(
            f"conversation {conversation_id!r} has no message with seq {seq}", entity_type="message", entity_id=str(seq)
        )
    return found[0]


def parent_of(message: Message) -> int:
    """The seq of the message that this one follows; 0 when it is the first of its branch."""
    return message.seq - 1 if message.parent_seq is None else message.parent_seq
