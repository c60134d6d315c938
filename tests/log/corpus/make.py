"""Makes the corpus of the present schema version: `python make.py DATABASE_URL`, once, when a version is released.

What it wrote is never written again: later versions of Workledger must read these events as this one did.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from workledger.log.follow_lines import lines
from workledger.log.sequencer import sequence
from workledger.model import change
from workledger.model.archive_change import archive_workflow
from workledger.model.change import Failure, Usage
from workledger.model.payload import Packer
from workledger.model.status import Kind, Severity
from workledger.model.upcast import SCHEMA_VERSION
from workledger.operational.apply import apply_in_transaction
from workledger.postgres.connection import connect
from workledger.postgres.migrate import migrate

TABLES = {
    "definitions": "name, version",
    "workflows": "workflow_id",
    "task_executions": "execution_id",
    "conversations": "conversation_id",
    "messages": "message_id",
    "feedback": "feedback_id",
}
ROWS = "SELECT to_jsonb(t)::text FROM {table} t ORDER BY {key}"


def changes() -> list:
    """Every kind of change, with values of every kind."""
    at = iter(datetime(2026, 11, 1, 12, tzinfo=UTC) + timedelta(seconds=n, microseconds=n * 7) for n in range(100))
    nasty = {
        "text": "NUL \0, lone \ud800, é \U0001f600",
        "nan": float("nan"),
        "big": 2**70,
        "bytes": b"\0\1",
        "f": 1e16,
    }
    failure = Failure(error_type="ValueError", error="no \0 such thing", error_traceback="Traceback …")
    usage = Usage(input_tokens=10, output_tokens=2**40, cost_usd=0.000125, model="m-1")

    def make(kind: str, /, **fields):
        function = getattr(change, kind)
        names = function.__kwdefaults__ or {}
        packer = {"packer": Packer()} if "packer" in function.__code__.co_varnames and "packer" not in names else {}
        return function(at=next(at), **packer, **fields)

    return [
        make("register_definition", name="research", version="1", steps=["search", "summarise"], source_digest="abc"),
        make("change_worker", event_type="worker.started", worker_id="k1", hostname="h", pid=7, version="0", lease_s=30),
        make("start_workflow", workflow_id="w1", name="research", pending=True, input=nasty, tags=["a", "b"], subject="s1",
             metadata={"owner": "x"}, workflow_type="agent", trace_id="t1", definition_version="1", total_steps=2),
        make("start_workflow", workflow_id="w1", name="research", worker_id="k1"),
        make("start_conversation", conversation_id="c1", workflow_id="w1", title="Talk", subject="s1", metadata={"n": 1}),
        make("progress_workflow", workflow_id="w1", attempt=1, state_data={"step": 1}, current_step="search",
             total_steps=3, metadata={"more": nasty}, conversation_id="c1"),
        make("add_message", message_id="m1", conversation_id="c1", workflow_id="w1",
             message={"role": "user", "content": "hello", "custom": nasty}),
        make("start_execution", execution_id="e1", workflow_id="w1", task_name="search", input=["q"], step_key="search#1",
             input_digest="d", worker_id="k1", metadata={"m": 1}, attempt=1),
        make("start_execution", execution_id="e2", workflow_id="w1", task_name="ask", kind=Kind.LLM, input={"p": "x" * 5000},
             parent_execution_id="e1", model="m-1"),
        make("complete_execution", execution_id="e2", workflow_id="w1", output=nasty, execution_time_ms=12.5, usage=usage),
        make("complete_execution", execution_id="e1", workflow_id="w1", output=None, execution_time_ms=20.0),
        make("add_message", message_id="m2", conversation_id="c1", workflow_id="w1", execution_id="e2", usage=usage,
             message={"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": {"name": "f"}}]}),
        make("add_message", message_id="m3", conversation_id="c1", workflow_id="w1",
             message={"role": "tool", "content": "result", "tool_call_id": "x", "name": "f"}),
        make("add_message", message_id="m4", conversation_id="c1", parent_seq=1, message={"role": "user", "content": "or"}),
        make("remove_messages", conversation_id="c1", seqs=[2, 3], workflow_id="w1"),
        make("start_execution", execution_id="e3", workflow_id="w1", task_name="summarise", kind=Kind.TOOL),
        make("fail_execution", execution_id="e3", workflow_id="w1", failure=failure, execution_time_ms=1.0, usage=usage),
        make("start_execution", execution_id="e4", workflow_id="w1", task_name="summarise", kind=Kind.AGENT, retry_count=1),
        make("cancel_execution", execution_id="e4", workflow_id="w1", reason="stop", execution_time_ms=2.0),
        make("fail_workflow", workflow_id="w1", failure=failure, execution_time_ms=50.0),
        make("resume_workflow", workflow_id="w1", attempt=1, worker_id="k1"),
        make("request_cancel", workflow_id="w1", reason="enough"),
        make("cancel_workflow", workflow_id="w1", reason="enough", execution_time_ms=60.0, attempt=2),
        make("start_workflow", workflow_id="w2", name="child", parent_workflow_id="w1", input=None),
        make("complete_workflow", workflow_id="w2", output={"y": "y" * 5000}, execution_time_ms=0.5),
        make("record_feedback", feedback_id="f1", name="helpful", workflow_id="w1", score=0.5, source="user"),
        make("record_feedback", feedback_id="f2", name="tone", workflow_id="w1", execution_id="e1", label="good"),
        make("record_feedback", feedback_id="f3", name="tone", message_id="m1", comment="why \0 not"),
        make("record_event", event_type="cache.hit", entity_type="cache", entity_id="k", payload={"v": nasty},
             severity=Severity.WARNING, workflow_id="w1"),
        make("change_worker", event_type="worker.stopped", worker_id="k1"),
        make("start_workflow", workflow_id="w3", name="short"),
        make("complete_workflow", workflow_id="w3", output=1),
        archive_workflow(workflow_id="w3", archive="state/20261101T120000.000000Z", conversations=[], feedback=[],
                         first_position=31, last_position=32, at=next(at)),
    ]  # fmt: skip


def main(url: str) -> None:
    here = Path(__file__).parent
    with connect(url) as connection:
        migrate(connection, schema="workledger")
        for one in changes():
            (outcome,) = apply_in_transaction(connection, [one])
            if isinstance(outcome, Exception):
                raise outcome
            sequence(connection, schema="workledger")
        with (here / f"v{SCHEMA_VERSION}.jsonl").open("xb") as file:
            file.writelines(lines(connection))
        state = {
            table: [json.loads(row) for (row,) in connection.execute(ROWS.format(table=table, key=key)).fetchall()]
            for table, key in TABLES.items()
        }
        (here / f"v{SCHEMA_VERSION}.state.json").write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
