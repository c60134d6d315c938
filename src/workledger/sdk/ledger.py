"""The ledger: what a recording program holds."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from workledger.errors import Conflict, InvalidTransition
from workledger.flows.record import Recorder
from workledger.flows.take_over import claim, is_being_run, read_steps, release
from workledger.model import change as changes
from workledger.model.change import Change
from workledger.model.clock import Clock, SystemClock
from workledger.model.ids import check_id, new_id
from workledger.model.payload import Packer
from workledger.model.records import Workflow
from workledger.model.status import Severity, Status
from workledger.operational import reads
from workledger.operational.apply import Outcome
from workledger.operational.prices import PriceTable
from workledger.postgres.pool import ConnectionPool
from workledger.sdk import context
from workledger.sdk.conversation import ConversationHandle
from workledger.sdk.decorators import DecoratorsMixin
from workledger.sdk.reading import ReadingMixin
from workledger.sdk.resume import AlreadyCompleted, Recorded
from workledger.sdk.run import WorkflowRun
from workledger.sdk.scribe import Scribe, Tally
from workledger.sdk.worker import Worker

if TYPE_CHECKING:
    from workledger.sdk.past import PastLedger

__all__ = ["Ledger"]


class Ledger(DecoratorsMixin, ReadingMixin):
    """Records workflows and reads them back. Made by `workledger.open()`; safe from any thread and coroutine.

    Every write returns when it is committed, together with the event that explains it.
    """

    def __init__(
        self,
        *,
        scribe: Scribe,
        recorder: Recorder,
        pool: ConnectionPool,
        clock: Clock | None = None,
        lease_s: float = 30.0,
        prices: PriceTable | None = None,
    ) -> None:
        super().__init__()
        self.clock = clock or SystemClock()
        self.pool = pool
        self.recorder = recorder
        self.lease_s = lease_s
        self._scribe = scribe
        self._pricing = None if prices is None else prices.priced
        self._worker = Worker(scribe=scribe, recorder=recorder, pool=pool, clock=self.clock, lease_s=lease_s)
        self._known_conversations: set[str] = set()
        self._closing = threading.Lock()
        self._closed = False
        context.follow_threads()
        atexit.register(self.close)

    # -- recording ----------------------------------------------------------------------------------------------

    def start_workflow(
        self,
        name: str,
        *,
        workflow_id: str | None = None,
        workflow_type: str | None = None,
        input: object = None,  # noqa: A002  the word users know
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        subject: str | None = None,
        conversation_id: str | None = None,
        parent_workflow_id: str | None = None,
        trace_id: str | None = None,
        definition_version: str | None = None,
        total_steps: int = 0,
        pending: bool = False,
        claim: bool = False,
        strict: bool = True,
    ) -> WorkflowRun:
        """A workflow run, to be used with `with` or `async with`.

        With the `workflow_id` of an unfinished one, it is resumed; of a completed one, `Conflict` is raised.
        Inside another run, that run becomes its parent. `claim=True` is for work that others may take as well: its
        start is committed or raises `DatabaseUnavailable`, and never waits in the spool.
        """
        place = context.current()
        if parent_workflow_id is None and place is not None and place.run.ledger is self:
            parent_workflow_id = place.run.workflow_id
        own_id = workflow_id is not None
        workflow_id = check_id("workflow_id", workflow_id) if own_id else new_id()
        opening = changes.start_workflow(
            workflow_id=workflow_id,
            name=name,
            at=self.clock.now(),
            packer=self.packer(strict=strict),
            workflow_type=workflow_type,
            input=input,
            metadata=metadata,
            tags=tags,
            subject=subject,
            conversation_id=conversation_id,
            parent_workflow_id=parent_workflow_id,
            trace_id=trace_id,
            definition_version=definition_version,
            total_steps=total_steps,
            pending=pending,
            worker_id=None if pending else self.worker_id,
        )
        return WorkflowRun(
            self,
            workflow_id=workflow_id,
            opening=opening,
            conversation_id=conversation_id,
            own_id=own_id,
            claims=claim,
            strict=strict,
        )

    def conversation(self, conversation_id: str, *, subject: str | None = None) -> ConversationHandle:
        """A conversation, begun when it is new."""
        self.ensure_conversation(conversation_id, subject=subject)
        return ConversationHandle(self, conversation_id)

    def ensure_conversation(
        self,
        conversation_id: str,
        *,
        workflow_id: str | None = None,
        subject: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a conversation unless it is there."""
        if conversation_id in self._known_conversations:
            return
        change = changes.start_conversation(
            conversation_id=conversation_id,
            workflow_id=workflow_id,
            subject=subject,
            title=title,
            metadata=metadata,
            at=self.clock.now(),
            packer=self.packer(),
        )
        with suppress(Conflict):  # then it is there, which is what was asked for
            self.record(change)
        if not self._scribe.is_joined:  # the caller's transaction may yet roll back
            self._known_conversations.add(conversation_id)

    def event(
        self,
        event_type: str,
        *,
        entity_type: str,
        entity_id: str,
        payload: Mapping[str, Any] | None = None,
        severity: Severity | str = "info",
        workflow_id: str | None = None,
        event_id: str | None = None,
    ) -> str:
        """Record an event of the application's own about anything; returns its id."""
        change = changes.record_event(
            event_type=event_type,
            entity_type=entity_type,
            entity_id=entity_id,
            workflow_id=workflow_id,
            payload=payload,
            severity=Severity(severity),
            event_id=event_id,
            at=self.clock.now(),
            packer=self.packer(),
        )
        self.record(change)
        return change.event_id

    def feedback(
        self,
        name: str,
        *,
        workflow_id: str | None = None,
        execution_id: str | None = None,
        message_id: str | None = None,
        score: float | None = None,
        label: str | None = None,
        comment: str | None = None,
        source: str | None = None,
        feedback_id: str | None = None,
    ) -> str:
        """Judge a workflow, an execution or a message; returns the feedback's id."""
        feedback_id = feedback_id or new_id()
        change = changes.record_feedback(
            feedback_id=feedback_id,
            name=name,
            workflow_id=workflow_id,
            execution_id=execution_id,
            message_id=message_id,
            score=score,
            label=label,
            comment=comment,
            source=source,
            at=self.clock.now(),
            packer=self.packer(),
        )
        self.record(change)
        return feedback_id

    def cancel(self, workflow_id: str, *, reason: str | None = None) -> None:
        """Ask a workflow to stop; running code sees it at its next task boundary."""
        change = changes.request_cancel(
            workflow_id=workflow_id, reason=reason, at=self.clock.now(), packer=self.packer()
        )
        self.record(change)

    def record(self, change: Change, *, wait: bool = False) -> Outcome:
        """Record one change; by default this returns when it is committed. `wait=True` never buffers it."""
        return self._scribe.record(change, wait=wait)

    async def record_async(self, change: Change, *, wait: bool = False) -> Outcome:
        """The same without blocking the event loop."""
        return await self._scribe.record_async(change, wait=wait)

    def claim(self, change: Change) -> Outcome:
        """Commit one change now or raise `DatabaseUnavailable`: it is never buffered, spooled or joined."""
        return self._scribe.claim(change)

    def joining(self, connection: Any) -> AbstractContextManager[None]:
        """Make every write in this block part of the caller's own transaction, to commit or roll back with it.

        Takes a psycopg connection or a SQLAlchemy connection or session over psycopg, in the same database.
        """
        return self._scribe.joining(connection)

    def flush(self) -> None:
        """Return when everything recorded so far is committed (with `durability="buffered"`)."""
        self._scribe.flush()

    @property
    def tally(self) -> Tally:
        """Counts of changes nobody waited for: buffered, spooled while PostgreSQL was away, refused later."""
        return self._scribe.tally

    def packer(self, *, strict: bool = True) -> Packer:
        """An encoder for the values of one event."""
        return Packer(strict=strict, pricing=self._pricing)

    @property
    def worker_id(self) -> str:
        """The id under which this process works."""
        return self._worker.worker_id

    def place(self) -> context.Place | None:
        """Where the calling code is; None outside of this ledger's workflows."""
        place = context.current()
        return place if place is not None and place.run.ledger is self else None

    # -- resuming -----------------------------------------------------------------------------------------------

    def take_over(self, workflow_id: str) -> tuple[Workflow, Recorded]:
        """Resume an unfinished workflow for this worker: what stands, and what its tasks did so far.

        Raises `Conflict` when it is completed, `InvalidTransition` when a live worker is running it.
        """
        with self.pool.connection() as connection:
            workflow = reads.workflow(connection, workflow_id)
            if workflow.status == Status.COMPLETED:
                raise AlreadyCompleted(
                    f"workflow {workflow_id!r} is completed already", entity_id=workflow_id, workflow=workflow
                )
            if is_being_run(connection, workflow):
                raise InvalidTransition(
                    f"workflow {workflow_id!r} is being run by worker {workflow.worker_id}; wait for it, or cancel it",
                    entity_id=workflow_id,
                    current=workflow.status,
                    wanted="workflow.resumed",
                )
        worker_id = self.worker_id
        attempt = claim(workflow, worker_id=worker_id, commit=self.claim, clock=self.clock)
        try:
            with self.pool.connection() as connection:
                steps, order = read_steps(
                    connection,
                    self.recorder,
                    workflow_id=workflow_id,
                    attempt=attempt,
                    schema=self._scribe.project,
                    clock=self.clock,
                )
        except BaseException as error:
            self.record(release(error, workflow_id=workflow_id, attempt=attempt, worker_id=worker_id, clock=self.clock))
            raise
        return workflow, Recorded(steps, order)

    # -- looking back -------------------------------------------------------------------------------------------

    @contextmanager
    def as_of(self, at: int | datetime | None = None, *, workflow_id: str | None = None) -> Generator[PastLedger]:
        """Give the ledger as it was at a position of the log or at a time, for the block: every read, of the past.

        The events up to there are replayed (`workflow_id`: only those of one workflow, which is quick, and leaves the
        rest out) into temporary tables that nobody else sees. None is the head of the log. Raises `InvalidInput` for a
        position that the log does not have, and `ConfigurationError` behind a pooler.

        >>> with ledger.as_of(4711) as past:
        ...     print(past.get_workflow("2026-11-22").status, past.running())
        """
        from workledger.sdk.past import look_back  # noqa: PLC0415  who records starts sooner

        with (
            self.recorder.another_connection() as connection,
            look_back(connection, at, schema=self._scribe.project, workflow_id=workflow_id) as past,
        ):
            yield past

    # -- ending -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Record that this worker stopped and close the connections; idempotent."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._worker.stop()
        self._scribe.close()
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)
