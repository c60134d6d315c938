"""The handle of one conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workledger.model import change as changes
from workledger.model.change import Usage
from workledger.model.ids import new_id
from workledger.model.records import Message

if TYPE_CHECKING:
    from workledger.sdk.ledger import Ledger

__all__ = ["ConversationHandle"]


class ConversationHandle:
    """A chat history: messages in the order of their `seq`, whatever the clocks say."""

    def __init__(self, ledger: Ledger, conversation_id: str) -> None:
        self._ledger = ledger
        self.conversation_id = conversation_id

    def add(
        self,
        role: str | Mapping[str, Any],
        content: object = None,
        *,
        usage: Usage | None = None,
        message_id: str | None = None,
        parent_seq: int | None = None,
        **fields: Any,
    ) -> int:
        """Add a message (a role and a content, or a whole chat-completion object); returns its `seq`."""
        body = dict(role) if isinstance(role, Mapping) else {"role": role, "content": content, **fields}
        change = changes.add_message(
            message_id=message_id or new_id(),
            conversation_id=self.conversation_id,
            message=body,
            at=self._ledger.clock.now(),
            packer=self._ledger.packer(),
            usage=usage,
            parent_seq=parent_seq,
        )
        return self._ledger.record(change).seq or 0

    def messages(self, *, after_seq: int = 0, limit: int = 10_000) -> list[Message]:
        """The messages that stand, in order."""
        return self._ledger.messages(self.conversation_id, after_seq=after_seq, limit=limit)

    def pop(self) -> Message | None:
        """Take the last message out and return it; None when there is none. The log keeps it."""
        messages = self.messages()
        if not messages:
            return None
        self._remove([messages[-1].seq])
        return messages[-1]

    def clear(self) -> int:
        """Take every message out; returns how many. The log keeps them."""
        seqs = [message.seq for message in self.messages()]
        if seqs:
            self._remove(seqs)
        return len(seqs)

    def _remove(self, seqs: list[int]) -> None:
        change = changes.remove_messages(conversation_id=self.conversation_id, seqs=seqs, at=self._ledger.clock.now())
        self._ledger.record(change)
