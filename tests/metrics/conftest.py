"""A project with a recorder, and work to record in it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from workledger.flows import log_to_metrics
from workledger.flows.record import Recorder
from workledger.log.sequencer import sequence
from workledger.model import change
from workledger.model.change import Change, Failure, Usage
from workledger.model.ids import new_id
from workledger.model.payload import Packer
from workledger.model.status import Kind
from workledger.postgres.connection import Connection, connect
from workledger.postgres.migrate import migrate

SCHEMA = "measured"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Project:
    """One migrated schema, and short ways to record what a test needs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = urlsplit(url).path.strip("/")
        self.schema = SCHEMA
        self.now = NOON
        self.connection = self.connect()
        migrate(self.connection, schema=SCHEMA)
        self.recorder = Recorder(lambda: self.connect(recording=True))

    def connect(self, **options: Any) -> Connection:
        return connect(self.url, schema=SCHEMA, **options)

    def close(self) -> None:
        self.recorder.close()
        self.connection.close()

    def record(self, changes: Sequence[Change]) -> None:
        self.recorder.record_all(changes)

    def settle(self, **options: Any) -> int:
        """Sequence what was recorded, and count it."""
        sequence(self.connection, schema=SCHEMA)
        return log_to_metrics.catch_up(self.connection, **options)

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, parameters).fetchall()

    def one(self, query: str, *parameters: Any) -> Any:
        ((value,),) = self.sql(query, *parameters)
        return value

    def counter(self, name: str, *labels: str) -> int | None:
        rows = self.sql("SELECT value FROM metric_counters WHERE name = %s AND labels = %s", name, list(labels))
        return int(rows[0][0]) if rows else None

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything the metrics are made of, in one order."""
        return {
            name: sorted(self.sql(f"SELECT * FROM {name}"), key=repr)
            for name in ("metric_counters", "metric_histograms", "metric_hours", "metric_label_values")
        }

    # -- things to record -----------------------------------------------------------------------------------

    def workflow(
        self, name: str = "research", *, outcome: str = "completed", took_ms: float | None = 1500.0, **start: Any
    ) -> list[Change]:
        """A workflow from start to end; `outcome` may also be `running` or `pending`."""
        workflow_id = new_id()
        common: dict[str, Any] = {"workflow_id": workflow_id, "at": self.now, "packer": Packer()}
        changes = [change.start_workflow(**common, name=name, pending=outcome == "pending", **start)]
        match outcome:
            case "completed":
                changes.append(change.complete_workflow(**common, output="done", execution_time_ms=took_ms))
            case "failed":
                failure = Failure(error_type="TimeoutError", error="too slow")
                changes.append(change.fail_workflow(**common, failure=failure, execution_time_ms=took_ms))
            case "cancelled":
                changes.append(change.cancel_workflow(**common, execution_time_ms=took_ms))
            case _:
                pass
        return changes

    def execution(
        self,
        workflow_id: str,
        task_name: str = "search",
        *,
        kind: Kind = Kind.TASK,
        outcome: str = "completed",
        took_ms: float | None = 20.0,
        usage: Usage | None = None,
        **start: Any,
    ) -> list[Change]:
        """An attempt at a task from start to end."""
        common: dict[str, Any] = {
            "execution_id": new_id(), "workflow_id": workflow_id, "at": self.now, "packer": Packer(),
        }  # fmt: skip
        changes = [change.start_execution(**common, task_name=task_name, kind=kind, **start)]
        match outcome:
            case "completed":
                done = change.complete_execution(**common, output="found", execution_time_ms=took_ms, usage=usage)
                changes.append(done)
            case "failed":
                failure = Failure(error_type="ValueError", error="no")
                changes.append(change.fail_execution(**common, failure=failure, execution_time_ms=took_ms, usage=usage))
            case "cancelled":
                changes.append(change.cancel_execution(**common, execution_time_ms=took_ms))
            case _:
                pass
        return changes

    def running_workflow(self, name: str = "research") -> str:
        """Record a workflow that runs, for executions to belong to."""
        changes = self.workflow(name, outcome="running")
        self.record(changes)
        return changes[0].entity_id

    def conversation(self, roles: Sequence[str], *, usage: Usage | None = None) -> list[Change]:
        """A conversation with one message for each role."""
        conversation_id = new_id()
        common: dict[str, Any] = {"conversation_id": conversation_id, "at": self.now, "packer": Packer()}
        messages = (
            change.add_message(
                **common,
                message_id=new_id(),
                message={"role": role, "content": f"said by {role}"},
                usage=usage if role == "assistant" else None,
            )
            for role in roles
        )
        return [change.start_conversation(**common), *messages]

    def event(self, event_type: str, payload: dict[str, Any] | None = None) -> Change:
        """An event of the application's own."""
        return change.record_event(
            event_type=event_type, entity_type="agent", entity_id="a", at=self.now, packer=Packer(), payload=payload
        )

    def feedback(self, workflow_id: str, name: str = "helpful", *, score: float = 1.0) -> Change:
        return change.record_feedback(
            feedback_id=new_id(), name=name, at=self.now, packer=Packer(), workflow_id=workflow_id, score=score
        )

    def mixed_work(self, *, workflows: int = 40, seed: int = 1) -> None:
        """Record some of everything: all outcomes, kinds, retries, usage, messages, feedback, own events."""
        rng = random.Random(seed)
        for n in range(workflows):
            self.now += timedelta(minutes=rng.randrange(20), microseconds=rng.randrange(1000))
            outcome = rng.choice(["completed", "completed", "failed", "cancelled", "running", "pending"])
            start, *end = self.workflow(f"flow {n % 7}", outcome=outcome, took_ms=rng.expovariate(1 / 2000))
            self.record([start])
            if outcome != "pending":
                for k, kind in enumerate(Kind):
                    usage = None
                    if kind is Kind.LLM:
                        usage = Usage(
                            input_tokens=rng.randrange(900), output_tokens=k, cost_usd=rng.random() / 7, model="gpt-x"
                        )
                    ended = rng.choice(["completed", "failed", "cancelled", "running"])
                    self.record(
                        self.execution(
                            start.entity_id, f"task {k}", kind=kind, outcome=ended, usage=usage,
                            took_ms=rng.expovariate(1 / 300), retry_count=rng.choice([0, 0, 1]),
                        )
                    )  # fmt: skip
            usage = Usage(input_tokens=3, output_tokens=5, cost_usd=1e-6, model="gpt-y")
            self.record(self.conversation(["user", "assistant", "tool"], usage=usage))
            self.record([self.event(f"cache.{rng.choice(['hit', 'miss'])}"), self.feedback(start.entity_id)])
            if end:
                self.record(end)
            if outcome == "failed":
                self.record([change.resume_workflow(workflow_id=start.entity_id, attempt=1, at=self.now)])


@pytest.fixture
def project(database_url: str) -> Iterator[Project]:
    """A project on PostgreSQL 18."""
    made = Project(database_url)
    yield made
    made.close()


@pytest.fixture
def any_project(any_postgres_url: str) -> Iterator[Project]:
    """A project, the test running once on each PostgreSQL."""
    made = Project(any_postgres_url)
    yield made
    made.close()
