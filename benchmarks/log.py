"""The log: order, reading, seals, replay; and what the sequencer costs the writers.

    python benchmarks/log.py [--events 300000] [--rounds 3]

Payloads are about 300 B of JSON as PostgreSQL prints it. Every figure is the median of the rounds, on a server of
its own with fsync on; a round that does not count comes first.
"""

from __future__ import annotations

import bisect
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import workledger
from harness import alternate, arguments, database, per_second, report
from workledger.flows.replay import replay
from workledger.flows.seal import seal_all, verify_seals
from workledger.flows.verify import one_moment
from workledger.log import reader
from workledger.log.follow_lines import lines
from workledger.log.keys import KeyFolder
from workledger.log.sequencer import sequence
from workledger.model import change
from workledger.model.ids import new_id
from workledger.model.payload import Packer
from workledger.operational.apply import apply_in_transaction
from workledger.postgres.connection import connect
from workledger.postgres.migrate import migrate

SCHEMA = "bench"
CALLERS = 16

# Ten events a workflow, each with its inbox row, as the recording statements leave them.
FILL = """
WITH e AS (
    INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, created_at, payload)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || left(h, 3) || '8'
            || substr(h, 4, 15))::uuid, 'task.completed', 'task', gen_random_uuid()::text, 'w-' || i / 10, at,
           jsonb_build_object('output', h || h || h || h || h || h, 'execution_time_ms', i * 0.37, 'attempt', 1,
                              'input_tokens', i, 'output_tokens', i / 3, 'model', 'a-model-of-1b')
    FROM (SELECT i, md5(i::text || random()) AS h, now() - interval '3 days' + i * interval '1 ms' AS at
          FROM generate_series(1, %s) AS i) AS s
    RETURNING event_id)
INSERT INTO event_inbox (event_id) SELECT event_id FROM e"""


@contextmanager
def project(url: str, name: str = SCHEMA):
    """An empty project, dropped afterwards."""
    with connect(url, schema=name, recording=True) as connection:
        migrate(connection, schema=name)
        try:
            yield connection
        finally:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


def rounds_of(rounds: int, work: Callable[[], float]) -> float:
    return alternate({"": work}, rounds=rounds)[""]


def sequencing(url: str, events: int, rounds: int) -> float:
    def once() -> float:
        with project(url) as connection:
            connection.execute(FILL, (events,))
            return per_second(events, partial(sequence, connection, schema=SCHEMA))

    return rounds_of(rounds, once)


def reading(url: str, events: int, rounds: int) -> list[tuple[str, str, str]]:
    """Everything that reads one large log."""
    with project(url) as connection, tempfile.TemporaryDirectory() as folder:
        connection.execute(FILL, (events,))
        sequence(connection, schema=SCHEMA)
        connection.execute("VACUUM ANALYZE")
        ((payload,),) = connection.execute("SELECT avg(length(payload::text))::int FROM events").fetchall()
        signer = KeyFolder(Path(folder)).make("bench/log")
        from workledger.log.seal_keys import list_key

        list_key(connection, signer.key)
        sealing = per_second(events, partial(seal_all, connection, schema=SCHEMA, signer=signer))

        def check(**options: object) -> None:
            assert verify_seals(connection, **options).ok

        def objects() -> None:
            assert sum(1 for _ in reader.iterate(connection)) == events

        def raw() -> None:
            assert sum(1 for _ in lines(connection, connect=partial(connect, url, schema=SCHEMA))) == events

        figures = alternate(
            {
                "objects": lambda: per_second(events, objects),
                "lines": lambda: per_second(events, raw),
                "verify": lambda: per_second(events, check),
            },
            rounds=rounds,
        )
        thorough = per_second(events, partial(check, thorough=True))
    return [
        ("payload", f"{payload} B", ""),
        ("read as Python objects", f"{figures['objects']:,.0f}/s", "at least 150,000"),
        ("read as lines of JSON", f"{figures['lines']:,.0f}/s", "at least 300,000"),
        ("seal", f"{sealing:,.0f}/s", ""),
        ("verify seals", f"{figures['verify']:,.0f}/s", "at least 200,000"),
        ("verify seals, hashed in Python", f"{thorough:,.0f}/s", ""),
    ]


def replaying(url: str, events: int, rounds: int) -> float:
    """Rebuild the state of whole workflows of ten events each."""
    with project(url) as connection:
        recorded = 0
        while recorded < events:
            batch = [one for _ in range(50) for one in workflow(4)]
            apply_in_transaction(connection, batch)
            recorded += len(batch)
        sequence(connection, schema=SCHEMA)
        connection.execute("VACUUM ANALYZE")

        def once() -> float:
            with one_moment(connection):
                return per_second(recorded, lambda: replay(connection, schema=SCHEMA))

        return rounds_of(rounds, once)


def workflow(tasks: int) -> list:
    from datetime import UTC, datetime

    at, workflow_id = datetime.now(UTC), new_id()
    here = {"workflow_id": workflow_id, "at": at}
    changes = [change.start_workflow(name="w", packer=Packer(), input={"q": "x" * 280}, **here)]
    for _ in range(tasks):
        execution_id = new_id()
        given = {"execution_id": execution_id, **here}
        changes.append(change.start_execution(task_name="t", packer=Packer(), input={"q": "x" * 280}, **given))
        changes.append(change.complete_execution(packer=Packer(), output={"a": "y" * 280}, **given))
    return [*changes, change.complete_workflow(packer=Packer(), output="end", **here)]


def delay(url: str, *, per_second_: int = 2000, seconds: float = 5.0) -> list[float]:
    """From an event's commit to its position, in seconds, for each batch of a writer that keeps a steady pace."""
    from datetime import UTC, datetime

    heads: list[tuple[int, float]] = []
    stop = threading.Event()

    def keep_sequencing() -> None:
        with connect(url, schema=SCHEMA) as connection:
            head = 0
            while not stop.is_set():
                if placed := sequence(connection, schema=SCHEMA):
                    head += placed
                    heads.append((head, time.perf_counter()))
                stop.wait(0.01)

    with project(url) as connection:
        thread = threading.Thread(target=keep_sequencing)
        thread.start()
        batch, commits = per_second_ // 100, []
        began = time.perf_counter()
        for n in range(int(seconds * 100)):
            time.sleep(max(began + n / 100 - time.perf_counter(), 0))
            apply_in_transaction(
                connection,
                [
                    change.record_event(
                        event_type="e",
                        entity_type="t",
                        entity_id="i",
                        at=datetime.now(UTC),
                        packer=Packer(),
                        payload={"a": "x" * 280},
                    )
                    for _ in range(batch)
                ],
            )
            commits.append(((n + 1) * batch, time.perf_counter()))
        time.sleep(0.5)
        stop.set()
        thread.join()
    positions = [head for head, _ in heads]
    # One writer, so that its k-th event has position k.
    return [heads[bisect.bisect_left(positions, last)][1] - at for last, at in commits]


def keep_sequencing(url: str, stop) -> None:
    with connect(url, schema=SCHEMA) as connection:
        while not stop.is_set():
            sequence(connection, schema=SCHEMA)
            stop.wait(0.05)


def cost_to_writers(url: str, rounds: int, *, workflows: int = 320) -> dict[str, float]:
    """W a second of sixteen threads, with and without a sequencer at work in another process."""

    def record() -> float:
        with workledger.open(url, project=SCHEMA, spool_limit_bytes=0) as ledger:

            def work() -> None:
                for _ in range(workflows // CALLERS):
                    with ledger.start_workflow("w", input={"q": "x" * 280}) as run:
                        for _ in range(5):
                            with run.task("t", input={"q": "x" * 280}) as task:
                                task.output = {"a": "y" * 280}

            threads = [threading.Thread(target=work) for _ in range(CALLERS)]

            def all_of_them() -> None:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

            return per_second(workflows, all_of_them)

    def beside_a_sequencer() -> float:
        stop = multiprocessing.get_context("spawn").Event()
        process = multiprocessing.get_context("spawn").Process(target=keep_sequencing, args=(url, stop))
        process.start()
        time.sleep(1.0)
        try:
            return record()
        finally:
            stop.set()
            process.join()

    with project(url):
        return alternate({"alone": record, "beside": beside_a_sequencer}, rounds=rounds)


def main() -> None:
    given = arguments(__doc__ or "", events=300_000, rounds=3)
    with database() as url:
        positions = sequencing(url, given.events, given.rounds)
        rows = [("sequence", f"{positions:,.0f}/s", "at least 150,000")]
        rows += reading(url, given.events, given.rounds)
        rebuilt = replaying(url, min(given.events, 100_000), given.rounds)
        rows.append(("replay into the state (verify --rebuild)", f"{rebuilt:,.0f}/s", "at least 50,000"))
        waits = sorted(delay(url))
        p99 = statistics.quantiles(waits, n=100)[98] * 1000
        rows.append(("commit to position at 2,000/s, p99", f"{p99:.1f} ms", "under 50 ms"))
        rows.append(("commit to position at 2,000/s, median", f"{statistics.median(waits) * 1000:.1f} ms", ""))
        writers = cost_to_writers(url, given.rounds)
        ratio = writers["beside"] / writers["alone"]
        rows.append(("W/s of 16 callers, no sequencer", f"{writers['alone']:,.1f}", ""))
        rows.append(
            ("W/s of 16 callers beside a sequencer", f"{writers['beside']:,.1f}", f"{ratio:.2f}, at least 0.95")
        )
    report(f"The log, {given.events:,} events", rows)


if __name__ == "__main__":
    main()
