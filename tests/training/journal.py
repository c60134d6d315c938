"""A project to record into, with a clock of its own: what the tests of bus and training store read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from workledger.flows.log_to_synapse import bring_up_to_date
from workledger.flows.record import Recorder
from workledger.model import change
from workledger.model.change import Change, Failure, Usage
from workledger.model.payload import Packer
from workledger.model.status import Kind
from workledger.postgres.connection import Connection, connect
from workledger.postgres.migrate import migrate

SCHEMA = "workledger"


class Journal:
    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = self.connect()
        migrate(self.connection, schema=SCHEMA)
        self.recorder = Recorder(lambda: connect(url, schema=SCHEMA, recording=True))
        self._now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self._n = 0

    def connect(self) -> Connection:
        return connect(self.url, schema=SCHEMA)

    def close(self) -> None:
        self.recorder.close()
        self.connection.close()

    def now(self) -> datetime:
        self._now += timedelta(milliseconds=7, microseconds=123)
        return self._now

    def record(self, make: Callable[..., Change], **values: Any) -> None:
        self.recorder.record(self.made(make, **values))

    def made(self, make: Callable[..., Change], **values: Any) -> Change:
        if make not in {change.remove_messages, change.resume_workflow, change.change_worker}:
            values["packer"] = Packer()
        return make(at=self.now(), **values)

    def record_all(self, changes: list[Change]) -> None:
        self.recorder.record_all(changes)

    def sequence(self) -> int:
        return bring_up_to_date(self.connection, schema=SCHEMA)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, parameters).fetchall()

    # -- what happens in programs -----------------------------------------------------------------------------

    def event(self, payload: Mapping[str, Any] | None = None, event_type: str = "cache.hit") -> None:
        self._n += 1
        self.record(
            change.record_event,
            event_type=event_type,
            entity_type="cache",
            entity_id=f"c-{self._n}",
            payload=payload or {"n": self._n},
        )

    def events(self, count: int) -> None:
        made = []
        for _ in range(count):
            self._n += 1
            values = {"event_type": "cache.hit", "entity_type": "cache", "entity_id": f"c-{self._n}"}
            made.append(self.made(change.record_event, payload={"n": self._n}, **values))
        self.record_all(made)

    def start(self, workflow_id: str, **values: Any) -> None:
        self.record(change.start_workflow, workflow_id=workflow_id, **{"name": "research", **values})

    def finish(self, workflow_id: str, **values: Any) -> None:
        self.record(change.complete_workflow, workflow_id=workflow_id, **{"output": "done", **values})

    def fail(self, workflow_id: str, **values: Any) -> None:
        failure = Failure(error_type="ValueError", error="no", error_traceback="Traceback …")
        self.record(change.fail_workflow, workflow_id=workflow_id, failure=failure, **values)

    def execution(
        self,
        execution_id: str,
        workflow_id: str,
        *,
        kind: Kind = Kind.TASK,
        input: Any = None,  # noqa: A002  the word users know
        output: Any = None,
        fails: bool = False,
        **values: Any,
    ) -> None:
        same = {"execution_id": execution_id, "workflow_id": workflow_id}
        self.record(change.start_execution, **same, **{"task_name": f"do {kind}", **values}, kind=kind, input=input)
        if fails:
            failure = Failure(error_type="KeyError", error="'x'")
            self.record(change.fail_execution, **same, failure=failure, execution_time_ms=1.25)
        else:
            usage = Usage(input_tokens=11, output_tokens=3, cost_usd=0.00125) if kind == Kind.LLM else None
            self.record(change.complete_execution, **same, output=output, usage=usage, execution_time_ms=2.5)

    def workflow(self, workflow_id: str, **values: Any) -> None:
        """One whole run: a conversation, two tasks with a tool and a model call below them, and an ending."""
        self.start(workflow_id, input={"topic": "owls"}, conversation_id=f"talk-{workflow_id}", **values)
        self.record(change.start_conversation, conversation_id=f"talk-{workflow_id}", workflow_id=workflow_id)
        top = f"{workflow_id}/plan"
        self.record(change.start_execution, execution_id=top, workflow_id=workflow_id, task_name="plan", input=[1])
        self.execution(
            f"{workflow_id}/search",
            workflow_id,
            kind=Kind.TOOL,
            input={"query": "owls"},
            output=["a", "b"],
            parent_execution_id=top,
        )
        self.execution(f"{workflow_id}/llm", workflow_id, kind=Kind.LLM, input="hi", output="ho", model="m-1")
        self.record(change.complete_execution, execution_id=top, workflow_id=workflow_id, output={"plan": True})
        self.execution(f"{workflow_id}/write", workflow_id, output=None)
        self.record(
            change.add_message,
            message_id=f"{workflow_id}/m1",
            conversation_id=f"talk-{workflow_id}",
            message={"role": "assistant", "content": "found owls"},
            workflow_id=workflow_id,
        )
        self.finish(workflow_id, execution_time_ms=12.5)
