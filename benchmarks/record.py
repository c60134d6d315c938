"""W: to record one workflow of 5 tasks with about 300 B of JSON in and out of each, 12 durable changes in all.

The floor is the same W written by hand: one statement per change with the state row and its event in one
data-modifying CTE, the same columns kept true (`current_step`, `completed_steps`), the same tables with the same
indexes, the same server, fsync on. It has no inbox, no guards, no idempotency and no order; that is what the ratio
pays for.

    python benchmarks/record.py
"""

from __future__ import annotations

import asyncio
import random
import string
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg
import orjson
import psycopg
import uuid_utils

import workledger
from harness import alternate, arguments, database, per_second, report
from workledger.model import change as changes
from workledger.model.ids import new_id
from workledger.model.payload import Packer

TASKS = 5
CHANGES = 2 * TASKS + 2

START_WORKFLOW = """
WITH state AS (
    INSERT INTO workflows (workflow_id, name, status, input_data, created_at, started_at)
    VALUES ($1, 'w', 'running', $2, $3, $3) RETURNING workflow_id)
INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload, created_at)
SELECT $4, 'workflow.started', 'workflow', workflow_id, workflow_id, $2, $3 FROM state"""
COMPLETE_WORKFLOW = """
WITH state AS (
    UPDATE workflows SET status = 'completed', output_data = $2, completed_at = $3, updated_at = now()
    WHERE workflow_id = $1 AND status = 'running' RETURNING workflow_id)
INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload, created_at)
SELECT $4, 'workflow.completed', 'workflow', workflow_id, workflow_id, $2, $3 FROM state"""
START_TASK = """
WITH state AS (
    INSERT INTO task_executions (execution_id, workflow_id, task_name, status, input_data, created_at, started_at)
    VALUES ($5, $1, 't', 'running', $2, $3, $3) RETURNING execution_id, workflow_id
), step AS (
    UPDATE workflows w SET current_step = 't', updated_at = now() FROM state WHERE w.workflow_id = state.workflow_id)
INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload, created_at)
SELECT $4, 'task.started', 'task', execution_id, workflow_id, $2, $3 FROM state"""
COMPLETE_TASK = """
WITH state AS (
    UPDATE task_executions SET status = 'completed', output_data = $2, completed_at = $3, execution_time_ms = 1.5
    WHERE execution_id = $5 AND status = 'running' RETURNING execution_id, workflow_id
), step AS (
    UPDATE workflows w SET completed_steps = completed_steps + 1, updated_at = now()
    FROM state WHERE w.workflow_id = state.workflow_id)
INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload, created_at)
SELECT $4, 'task.completed', 'task', execution_id, $1, $2, $3 FROM state"""


def body() -> dict[str, str]:
    """About 300 B of JSON that does not compress to nothing."""
    letters = string.ascii_letters + string.digits
    return {f"key_{n}": "".join(random.choices(letters, k=24)) for n in range(8)}


def now() -> datetime:
    return datetime.now(UTC)


def floor_statements(value: dict[str, str]) -> list[tuple[str, tuple[object, ...]]]:
    """The statements of one W with their parameters."""
    workflow_id = new_id()

    def common() -> tuple[object, ...]:
        return workflow_id, orjson.dumps(value).decode(), now(), str(uuid_utils.uuid7())

    statements: list[tuple[str, tuple[object, ...]]] = [(START_WORKFLOW, common())]
    for _ in range(TASKS):
        execution_id = new_id()
        statements += [(START_TASK, (*common(), execution_id)), (COMPLETE_TASK, (*common(), execution_id))]
    return [*statements, (COMPLETE_WORKFLOW, common())]


def floor_one(connection: psycopg.Connection, count: int) -> None:
    value = body()
    cursor = psycopg.RawCursor(connection)
    for _ in range(count):
        for statement, parameters in floor_statements(value):
            cursor.execute(statement, parameters)


async def floor_many(url: str, callers: int, count: int) -> float:
    pool = await asyncpg.create_pool(dsn=None, min_size=16, max_size=16, **dsn(url))

    async def caller() -> None:
        value = body()
        for _ in range(count):
            for statement, parameters in floor_statements(value):
                async with pool.acquire() as connection:
                    await connection.execute(statement, *parameters)

    async with pool:
        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return callers * count / (time.perf_counter() - began)


def dsn(url: str) -> dict[str, object]:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return {
        "host": parts["host"],
        "port": int(parts["port"]),
        "user": parts["user"],
        "database": parts["dbname"],
        "server_settings": {"search_path": "workledger"},
    }


def our_changes(value: dict[str, str]):
    """The changes of one W, each made when it is asked for."""
    workflow_id = new_id()
    yield changes.start_workflow(workflow_id=workflow_id, name="w", input=value, at=now(), packer=Packer())
    for _ in range(TASKS):
        ids = {"workflow_id": workflow_id, "execution_id": new_id()}
        yield changes.start_execution(**ids, task_name="t", input=value, at=now(), packer=Packer())
        yield changes.complete_execution(**ids, output=value, execution_time_ms=1.5, at=now(), packer=Packer())
    yield changes.complete_workflow(workflow_id=workflow_id, output=value, at=now(), packer=Packer())


def ours_one(ledger: workledger.Ledger, count: int) -> None:
    value = body()
    for _ in range(count):
        for change in our_changes(value):
            ledger.record(change)


async def ours_many(ledger: workledger.Ledger, callers: int, count: int) -> float:
    async def caller() -> None:
        value = body()
        for _ in range(count):
            for change in our_changes(value):
                await ledger.record_async(change)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return callers * count / (time.perf_counter() - began)


def buffered_cost_us(url: str, home: Path, calls: int) -> tuple[float, float]:
    """Microseconds added to a recorded call: of the calling thread, and of the whole process."""
    with workledger.open(url, home=home, durability="buffered") as ledger:

        @ledger.tool
        def tool(query):
            return query

        value = body()
        caller = process = 0.0
        with ledger.start_workflow("buffered"):
            for _ in range(3):
                process_began, thread_began = time.process_time(), time.thread_time()
                for _ in range(calls):
                    tool(value)
                caller = (time.thread_time() - thread_began) / calls * 1e6
                ledger.flush()
                process = (time.process_time() - process_began) / calls * 1e6
    return caller, process


def bulk_ratio(connection: psycopg.Connection, ledger: workledger.Ledger, count: int) -> tuple[float, float]:
    """Events a second: raw COPY into the events table with its indexes, and finished workflows recorded in bulk."""
    value = body()
    batch = [change for _ in range(count) for change in our_changes(value)]
    rows = [
        (str(uuid_utils.uuid7()), c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.payload.decode(), now())
        for c in batch
    ]

    def copy() -> None:
        columns = "event_id, event_type, entity_type, entity_id, workflow_id, payload, created_at"
        with connection.cursor().copy(f"COPY events ({columns}) FROM STDIN") as out:
            for row in rows:
                out.write_row(row)

    copied = per_second(len(rows), copy)

    def record() -> None:
        for start in range(0, len(batch), 250 * CHANGES):
            ledger.recorder.record_all(batch[start : start + 250 * CHANGES])

    return copied, per_second(len(batch), record)


def main() -> None:
    options = arguments(__doc__ or "", workflows=150, bulk=1000, calls=2000)
    with database() as url, tempfile.TemporaryDirectory() as home, workledger.open(url, home=Path(home)) as ledger:
        rows = []
        with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
            connection.execute("SET search_path = workledger")
            count = options.workflows
            one = alternate(
                {
                    "floor": lambda: per_second(count, partial(floor_one, connection, count)),
                    "ours": lambda: per_second(count, partial(ours_one, ledger, count)),
                },
                rounds=options.rounds,
            )
            rows.append(("W/s, 1 caller", f"{one['ours']:.0f}", ratio(one, "at least 0.85, goal 0.95")))
            for callers, bound in ((16, "at least 1.3, goal 1.6"), (64, "at least 2.0, goal 3.0")):
                each = max(count * 4 // callers, 2)
                many = alternate(
                    {
                        "floor": lambda c=callers, e=each: asyncio.run(floor_many(url, c, e)),
                        "ours": lambda c=callers, e=each: asyncio.run(ours_many(ledger, c, e)),
                    },
                    rounds=options.rounds,
                )
                rows.append((f"W/s, {callers} callers, one connection", f"{many['ours']:.0f}", ratio(many, bound)))
            bulk = [bulk_ratio(connection, ledger, options.bulk) for _ in range(3)]
            copied, recorded = sorted(bulk, key=lambda pair: pair[1] / pair[0])[1]
            rows.append(
                (
                    "bulk, events/s",
                    f"{recorded:.0f}",
                    f"{recorded / copied:.2f} of raw COPY ({copied:.0f}); at least 0.4",
                )
            )
        caller, process = buffered_cost_us(url, Path(home), options.calls)
        rows.append(
            ("buffered, µs of the caller's CPU per call", f"{caller:.1f}", f"at most 40; whole process {process:.1f}")
        )
        report("Recording", rows)


def ratio(figures: dict[str, float], bound: str) -> str:
    return f"{figures['ours'] / figures['floor']:.2f} of the floor ({figures['floor']:.0f}); {bound}"


if __name__ == "__main__":
    main()
