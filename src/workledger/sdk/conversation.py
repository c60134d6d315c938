"""The handle of one conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from workledger.errors import Conflict
from workledger.model import change as changes
from workledger.model.change import Usage
from workledger.model.ids import new_id
from workledger.model.records import Message
from workledger.operational import aggregates, branches, reads
from workledger.operational.aggregates import UsageTotal
from workledger.operational.branches import Branch

if TYPE_CHECKING:
    from workledger.sdk.ledger import Ledger

__all__ = ["ConversationHandle"]

_PAGE: Final = 1000


class ConversationHandle:
    """A chat history: messages in the order of their `seq`, whatever the clocks say.

    A conversation is a tree: editing a message, or answering again, begins a new branch and leaves the old one as
    it was. Without more ado a handle reads, and adds to, the newest branch; `branch` and `regenerate` give one that
    keeps to a branch of its own.
    """

    def __init__(self, ledger: Ledger, conversation_id: str, *, leaf_seq: int | None = None) -> None:
        self._ledger = ledger
        self.conversation_id = conversation_id
        self._leaf_seq = leaf_seq

    # -- adding -------------------------------------------------------------------------------------------------

    def add(
        self,
        role: str | Mapping[str, Any],
        content: object = None,
        *,
        usage: Usage | None = None,
        message_id: str | None = None,
        parent_seq: int | None = None,
        workflow_id: str | None = None,
        execution_id: str | None = None,
        **fields: Any,
    ) -> int:
        """Add a message (a role and a content, or a whole chat-completion object); returns its `seq`.

        It follows the last message of this handle's branch, or the message `parent_seq`. In a workflow of this
        ledger it belongs to the workflow and execution that run here.
        """
        body = dict(role) if isinstance(role, Mapping) else {"role": role, "content": content, **fields}
        workflow_id, execution_id = self._where(workflow_id, execution_id)
        change = changes.add_message(
            message_id=message_id or new_id(),
            conversation_id=self.conversation_id,
            message=body,
            at=self._ledger.clock.now(),
            packer=self._ledger.packer(),
            workflow_id=workflow_id,
            execution_id=execution_id,
            usage=usage,
            parent_seq=self._leaf_seq if parent_seq is None else parent_seq,
        )
        # A branch has to know its new leaf, so it waits for the answer even when writes are buffered.
        seq = self._ledger.record(change, wait=self._leaf_seq is not None).seq
        if self._leaf_seq is not None:
            # Without an answer (the change is in the spool) the next message follows whatever comes last: this one.
            self._leaf_seq = seq
        return seq or 0

    def edit(self, seq: int, content: object, *, usage: Usage | None = None, **fields: Any) -> int:
        """Say message `seq` again with another content, as the first message of a new branch; returns the new `seq`.

        Everything else of the message stays as it was unless it is among `fields`. The old branch stays.
        """
        old = self.message(seq)
        body = {**old.body, "content": content, **fields}
        return self.add(body, usage=usage, parent_seq=branches.parent_of(old))

    def branch(self, after: int) -> ConversationHandle:
        """A handle whose next message follows message `after` (0: follows nothing), in a branch of its own."""
        if after:
            self.message(after)  # raises NotFound when there is none
        return ConversationHandle(self._ledger, self.conversation_id, leaf_seq=after)

    def regenerate(self, seq: int) -> ConversationHandle:
        """A handle whose next message takes the place of message `seq` in a branch of its own."""
        return self.branch(branches.parent_of(self.message(seq)))

    # -- reading ------------------------------------------------------------------------------------------------

    def messages(self, *, leaf_seq: int | None = None, after_seq: int = 0, limit: int = 10_000) -> list[Message]:
        """The messages of this handle's branch (or of the one that ends with `leaf_seq`) that stand, in order."""
        leaf_seq = self._leaf_seq if leaf_seq is None else leaf_seq
        with self._ledger.pool.connection() as connection:
            return branches.branch(
                connection, self.conversation_id, leaf_seq=leaf_seq, after_seq=after_seq, limit=limit
            )

    def page(self, *, before_seq: int | None = None, limit: int = 50) -> list[Message]:
        """The last messages of this handle's branch, in order; `before_seq` is the first of the page below."""
        with self._ledger.pool.connection() as connection:
            return branches.branch_end(
                connection, self.conversation_id, leaf_seq=self._leaf_seq, before_seq=before_seq, limit=limit
            )

    def message(self, seq: int) -> Message:
        """One message, also when it was taken out; raises `NotFound`."""
        with self._ledger.pool.connection() as connection:
            return branches.message(connection, self.conversation_id, seq)

    def branches(self) -> list[Branch]:
        """Every branch, the newest first; `messages(leaf_seq=…)` reads one."""
        with self._ledger.pool.connection() as connection:
            return branches.branches(connection, self.conversation_id)

    def usage(self) -> UsageTotal:
        """Tokens and cost of the model calls of this conversation, whatever their branch, by model."""
        with self._ledger.pool.connection() as connection:
            return aggregates.conversation_usage(connection, self.conversation_id)

    # -- taking out ---------------------------------------------------------------------------------------------

    def pop(self) -> Message | None:
        """Take the last message of this handle's branch out and return it; None when there is none.

        Each message is given to one caller, however many call at once. The log keeps it.
        """
        while last := self.page(limit=1):
            try:
                self._remove([last[0].seq])
            except Conflict:
                continue  # somebody else has just taken it
            return last[0]
        return None

    def clear(self) -> int:
        """Take every message of every branch out; returns how many. The log keeps them."""
        seqs = [message.seq for message in self._standing()]
        if not seqs:
            return 0
        try:
            self._remove(seqs)
        except Conflict:
            return 0  # somebody else has just cleared it
        return len(seqs)

    def _standing(self) -> Iterator[Message]:
        """Every message that stands, whatever its branch."""
        after_seq = 0
        with self._ledger.pool.connection() as connection:
            while page := reads.messages_of(connection, self.conversation_id, after_seq=after_seq, limit=_PAGE):
                yield from page
                after_seq = page[-1].seq

    def _remove(self, seqs: list[int]) -> None:
        change = changes.remove_messages(conversation_id=self.conversation_id, seqs=seqs, at=self._ledger.clock.now())
        self._ledger.record(change, wait=True)

    def _where(self, workflow_id: str | None, execution_id: str | None) -> tuple[str | None, str | None]:
        """The workflow and execution a message belongs to: those given, else those that run here."""
        place = self._ledger.place()
        if workflow_id is not None or place is None:
            return workflow_id, execution_id
        running = place.execution.execution_id if place.execution is not None else None
        return place.run.workflow_id, execution_id or running
