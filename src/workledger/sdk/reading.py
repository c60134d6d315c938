"""The reading half of a ledger: what is running, what failed, what is slow, what was said, what it cost."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from workledger.log import reader
from workledger.model.clock import Clock
from workledger.model.records import Event, Feedback, Message, TaskExecution, Workflow
from workledger.operational import aggregates, archived, branches, reads, search
from workledger.operational.aggregates import Statistics, UsageTotal
from workledger.operational.archived import ArchivedWorkflow
from workledger.operational.paging import Page
from workledger.operational.search import TimelineEntry
from workledger.postgres.pool import ConnectionPool

__all__ = ["ReadingMixin"]

_DAY: Final = timedelta(days=1)


class ReadingMixin:
    """Reads over the pool. Lists are a `Page`: a list with the `cursor` of the next page, None on the last."""

    pool: ConnectionPool
    clock: Clock

    def get_workflow(self, workflow_id: str) -> Workflow:
        """One workflow as it stands; raises `NotFound`."""
        with self.pool.connection() as connection:
            return reads.workflow(connection, workflow_id)

    def workflows(self, **filters: Any) -> list[Workflow]:
        """Workflows newest first; see `operational.reads.workflows` for the filters."""
        with self.pool.connection() as connection:
            return reads.workflows(connection, **filters)

    def find(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        workflow_type: str | None = None,
        tag: str | None = None,
        subject: str | None = None,
        conversation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Workflow]:
        """Workflows newest first, filtered, without inputs and outputs; `since` and `until` bound when they began."""
        with self.pool.connection() as connection:
            return search.find_workflows(
                connection,
                status=status,
                name=name,
                workflow_type=workflow_type,
                tag=tag,
                subject=subject,
                conversation_id=conversation_id,
                since=since,
                until=until,
                cursor=cursor,
                limit=limit,
            )

    def search(
        self,
        text: str,
        *,
        status: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Workflow]:
        """Workflows whose name or error has the words, newest first: `timeo* -billing "bad gateway"`."""
        with self.pool.connection() as connection:
            return search.search_workflows(
                connection, text, status=status, since=since, until=until, cursor=cursor, limit=limit
            )

    def search_failures(
        self,
        text: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[TaskExecution]:
        """Failed executions whose error or task has the words, newest failure first."""
        with self.pool.connection() as connection:
            return search.search_failures(connection, text, since=since, until=until, cursor=cursor, limit=limit)

    def running(self, *, cursor: str | None = None, limit: int = 100) -> Page[Workflow]:
        """What is running now, oldest first."""
        with self.pool.connection() as connection:
            return search.running_workflows(connection, cursor=cursor, limit=limit)

    def stuck(self, *, quiet_s: float, cursor: str | None = None, limit: int = 50) -> Page[Workflow]:
        """Running workflows of which nothing has been recorded for `quiet_s` seconds, the longest quiet first."""
        with self.pool.connection() as connection:
            return search.stuck_workflows(connection, quiet_s=quiet_s, cursor=cursor, limit=limit)

    def failed(self, *, since: datetime | None = None, cursor: str | None = None, limit: int = 50) -> Page[Workflow]:
        """Failed workflows, newest failure first."""
        with self.pool.connection() as connection:
            return search.failed_workflows(connection, since=since, cursor=cursor, limit=limit)

    def failed_executions(
        self, *, since: datetime | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[TaskExecution]:
        """Failed executions, newest failure first."""
        with self.pool.connection() as connection:
            return search.failed_executions(connection, since=since, cursor=cursor, limit=limit)

    def slowest(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Workflow]:
        """Finished workflows that took longest, of those that began in a time (by default the last day)."""
        since, until = self._period(since, until)
        with self.pool.connection() as connection:
            return search.slowest_workflows(connection, since=since, until=until, name=name, cursor=cursor, limit=limit)

    def slowest_executions(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        task_name: str | None = None,
        kind: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[TaskExecution]:
        """Executions that took longest, of those that ended in a time (by default the last day)."""
        since, until = self._period(since, until)
        with self.pool.connection() as connection:
            return search.slowest_executions(
                connection, since=since, until=until, task_name=task_name, kind=kind, cursor=cursor, limit=limit
            )

    def archived(self, workflow_id: str) -> ArchivedWorkflow:
        """An archived workflow as it was when it left, with executions, messages and feedback; raises `NotFound`."""
        with self.pool.connection() as connection:
            return archived.workflow(connection, workflow_id)

    def events(self, workflow_id: str) -> list[Event]:
        """The events of a workflow in the order of the log, archived ones and all."""
        with self.pool.connection() as connection:
            return reader.of_workflow(connection, workflow_id)

    def executions(self, workflow_id: str) -> list[TaskExecution]:
        """Every attempt of a workflow, in the order they began; raises `NotFound` when it is archived."""
        with self.pool.connection() as connection:
            found = reads.executions_of(connection, workflow_id)
            if not found:
                reads.refuse_archived(connection, "workflow", workflow_id)
            return found

    def timeline(self, workflow_id: str, *, cursor: str | None = None, limit: int = 500) -> Page[TimelineEntry]:
        """What happened in a workflow, in the order of the log: changes, executions, messages, feedback, events.

        Raises `NotFound` when it is archived; `events` gives what happened in it.
        """
        with self.pool.connection() as connection:
            reads.refuse_archived(connection, "workflow", workflow_id)
            return search.timeline(connection, workflow_id, cursor=cursor, limit=limit)

    def messages(self, conversation_id: str, *, after_seq: int = 0, limit: int = 10_000) -> list[Message]:
        """The messages of a conversation's newest branch, in order; `conversation` gives the others.

        Raises `NotFound` when it is archived.
        """
        with self.pool.connection() as connection:
            found = branches.branch(connection, conversation_id, after_seq=after_seq, limit=limit)
            if not found:
                reads.refuse_archived(connection, "conversation", conversation_id)
            return found

    def feedback_of(self, workflow_id: str) -> list[Feedback]:
        """Every judgement of a workflow; raises `NotFound` when it is archived."""
        with self.pool.connection() as connection:
            found = reads.feedback_of(connection, workflow_id)
            if not found:
                reads.refuse_archived(connection, "workflow", workflow_id)
            return found

    def usage(self, workflow_id: str, *, with_children: bool = False) -> UsageTotal:
        """Tokens and cost of a workflow's model calls; `with_children` adds those of the workflows it started."""
        with self.pool.connection() as connection:
            reads.refuse_archived(connection, "workflow", workflow_id)
            return aggregates.workflow_usage(connection, workflow_id, with_children=with_children)

    def statistics(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        name: str | None = None,
        by_name: bool = False,
        by_day: bool = False,
    ) -> list[Statistics]:
        """Success and duration of workflows that began in a time (by default the last day), by name and by day."""
        since, until = self._period(since, until)
        with self.pool.connection() as connection:
            return aggregates.workflow_statistics(
                connection, since=since, until=until, name=name, by_name=by_name, by_day=by_day
            )

    def execution_statistics(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        task_name: str | None = None,
        by_name: bool = False,
        by_day: bool = False,
    ) -> list[Statistics]:
        """Success and duration of executions that ended in a time (by default the last day), by task and by day."""
        since, until = self._period(since, until)
        with self.pool.connection() as connection:
            return aggregates.execution_statistics(
                connection, since=since, until=until, task_name=task_name, by_name=by_name, by_day=by_day
            )

    def _period(self, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
        until = until or self.clock.now()
        return since or until - _DAY, until
