"""How fast a partition is archived: out of PostgreSQL into Parquet, read again, compared with its seals, dropped.

    python benchmarks/archive.py --events 1000000

Its events are made inside PostgreSQL as they come in practice, with 300 bytes of payload, and sealed before the clock
starts, as `workledger up` does all day; their workflows have left the state already, as they have when a month does.
Beside the whole: each part alone, what an event costs in room before and after, and what a dropped partition costs
those who record meanwhile, of which there is one, from when the last file has been checked.
"""

from __future__ import annotations

import resource
import tempfile
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg

from harness import arguments, database, per_second, report
from workledger.flows.archive import archive
from workledger.flows.archive_events import FILE_EVENTS
from workledger.flows.mount import mounted
from workledger.flows.seal import seal_all
from workledger.log import archive_leaves, partitions, reader
from workledger.model.archived import Wanted
from workledger.model.clock import SystemClock
from workledger.postgres.archive_access import give_access
from workledger.postgres.connection import Connection, connect
from workledger.postgres.migrate import migrate
from workledger.training.archive_access import FileAccess
from workledger.training.archive_files import FolderFiles
from workledger.training.event_archive import EventFile

MONTH = "events_2026_01"
FACTS = """
CREATE TEMPORARY TABLE facts AS
SELECT i, (substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(r, 1, 3) || '-8' || substr(r, 4, 3) || '-'
           || substr(r, 7, 12))::uuid AS event_id, at
FROM (SELECT i, '2026-01-01Z'::timestamptz + i * interval '30 days' / %(events)s AS at
      FROM generate_series(1, %(events)s) AS i) AS made
CROSS JOIN LATERAL (SELECT lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') AS h,
                           md5(i::text || 'x') AS r) AS parts"""
EVENTS = """
INSERT INTO events (
    event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, recorded_at, payload)
SELECT event_id, (ARRAY['task.started', 'task.completed'])[1 + i %% 2], 'task', 'execution-' || md5((i / 2)::text),
       'workflow-' || md5((i / 12)::text), 'info', at, at, jsonb_build_object(
           'task_name', 'summarise', 'kind', 'task', 'step_key', 'step-1', 'worker_id', 'worker-12',
           'input', jsonb_build_object('query', md5(i::text) || md5((i + 1)::text), 'n', i, 'options',
                                       jsonb_build_array('a', 'b', i)),
           'text', md5((i + 2)::text) || ' ' || md5((i + 5)::text))
FROM facts ORDER BY i"""
POSITIONS = """
WITH placed AS (INSERT INTO event_positions (position, event_id) SELECT i, event_id FROM facts)
UPDATE log_head SET position = %(events)s"""
WORKFLOWS = """
INSERT INTO archived_workflows (workflow_id, archive, first_position, last_position, archived_at)
SELECT 'workflow-' || md5((i / 12)::text), 'before', min(i), max(i), now() FROM facts GROUP BY i / 12"""
SIZES = """
SELECT pg_total_relation_size(%(month)s::regclass), pg_total_relation_size('event_positions')"""


def fill(connection: Connection, events: int) -> tuple[int, int]:
    """Make a month of sealed events; gives the bytes of events and of positions."""
    migrate(connection, schema="workledger")
    connection.execute("SELECT ensure_event_partition('2026-01-15Z')")
    connection.execute("SET synchronous_commit = off")
    for statement in (FACTS, EVENTS, POSITIONS, WORKFLOWS):
        psycopg.ClientCursor(connection).execute(statement, {"events": events})
    connection.execute("VACUUM (ANALYZE) events")
    connection.execute("VACUUM (ANALYZE) event_positions")
    seal_all(connection, schema="workledger")
    connection.execute("CHECKPOINT")
    return connection.execute(SIZES, {"month": MONTH}).fetchone()


def cpu_s() -> float:
    return time.process_time()


class Writer:
    """Somebody who records events of now, one a commit, and remembers how long each took."""

    def __init__(self, connect_here) -> None:
        self._connect = connect_here
        self._stop = threading.Event()
        self.took_ms: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        return self

    def begin(self) -> None:
        self._thread.start()

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        insert = (
            "WITH e AS (INSERT INTO events (event_id, event_type, payload) VALUES (uuid_floor(now()), 'x', '{}')"
            " ON CONFLICT DO NOTHING RETURNING event_id) INSERT INTO event_inbox (event_id) SELECT event_id FROM e"
        )
        with self._connect() as connection:
            while not self._stop.wait(0.002):
                began = time.perf_counter()
                connection.execute(insert)
                self.took_ms.append((time.perf_counter() - began) * 1000)

    def slowest_ms(self) -> float:
        return max(self.took_ms, default=0.0)


def main() -> None:
    options = arguments(__doc__.splitlines()[0], events=1_000_000)
    events = options.events
    with database() as url, tempfile.TemporaryDirectory(prefix="workledger-bench-") as folder:

        def connect_here() -> Connection:
            connection = connect(url)
            give_access(connection, FileAccess(lambda: f"file:{folder}"))
            return connection

        with connect(url) as connection:
            events_bytes, positions_bytes = fill(connection, events)
        steps: list[tuple[str, float]] = []
        files = -(-events // FILE_EVENTS)

        def on_step(step: str, _what: str) -> None:
            steps.append((step, time.perf_counter() - began))
            if step == "checked" and sum(one == "checked" for one, _ in steps) == files:
                writer.begin()

        began, began_cpu = time.perf_counter(), cpu_s()
        with connect_here() as connection, Writer(partial(connect, url)) as writer:
            done = archive(
                connection,
                connect=connect_here,
                files=FolderFiles(Path(folder)),
                clock=SystemClock(),
                cutoff=datetime(2026, 2, 1, tzinfo=UTC),
                on_step=on_step,
            )
            took_s, took_cpu_s = time.perf_counter() - began, cpu_s() - began_cpu
            slowest_ms, usual_ms = writer.slowest_ms(), sorted(writer.took_ms)[len(writer.took_ms) // 2]
        (month,) = [one for one in done.partitions if one.partition == MONTH]
        assert month.dropped, month.held
        assert month.events == events
        drop_ms = (steps[-1][1] - steps[-2][1]) * 1000
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        path = min(Path(folder, "events").iterdir())
        file = EventFile(path.open("rb"), location=str(path))
        everything = {"after": 0, "upto": 2**63 - 1}
        rates = {
            "read again and hashed": lambda: [
                archive_leaves.leaves(envelopes, {}) for envelopes in file.envelopes(**everything)
            ],
            "events as Python objects": lambda: sum(1 for _ in file.events(wanted=Wanted(), **everything)),
            "events as lines of JSON": lambda: sum(1 for _ in file.lines(**everything)),
        }
        rows = [
            (
                "archived, whole",
                f"{events / took_s:,.0f} events/s",
                "at least 200,000 on a machine with nothing else to do",
            ),
            ("CPU of this process", f"{took_cpu_s / events * 1e6:.1f} µs/event", ""),
            ("memory of this process at its peak", f"{peak_mib:,.0f} MiB", "does not grow with the partition"),
            (
                "dropping the partition",
                f"{drop_ms:,.0f} ms",
                f"counts {events:,} rows, then locks the log for a moment",
            ),
            ("one who records meanwhile: median, slowest", f"{usual_ms:.1f}, {slowest_ms:.0f} ms", ""),
            (
                "bytes an event: in the database",
                f"{events_bytes / events:,.0f} + {positions_bytes / events:.0f}",
                "events + positions",
            ),
            (
                "bytes an event: after",
                f"{month.size_bytes / events:,.0f} + {positions_bytes / events:.0f}",
                "file + positions, which stay",
            ),
        ]
        for name, work in rates.items():
            rows.append((name, f"{per_second(file.rows, work):,.0f} events/s", ""))
        with connect_here() as connection:
            rows.append(
                (
                    "read back through the log's reader",
                    f"{per_second(events, lambda: count(connection, events)):,.0f} events/s",
                    "",
                )
            )
            mount_s = time.perf_counter()
            with mounted(connection) as mount:
                mount_s = time.perf_counter() - mount_s
            rows.append(("mounted to be verified", f"{mount.events / mount_s:,.0f} events/s", ""))
            assert partitions.partitions(connection)
    report(f"Archive, {events:,} events", rows)


def count(connection: Connection, events: int) -> int:
    """Read the archived events in order, as a follower would."""
    return sum(1 for _ in reader.iterate(connection, upto=events))


if __name__ == "__main__":
    main()
