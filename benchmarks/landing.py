"""The training store: PostgreSQL to files beside a plain COPY, through Redis, how soon, and how much memory.

    python benchmarks/landing.py [--events 1000000] [--rounds 2] [--peers PYTHON]

The events have about 300 B of JSON. Twelve are a workflow of five tasks, of which six are the ends of something: a line
of its own beside that of the event. Each landing is a process of its own, which says its time without its start, and
its peak of memory. The floor is a COPY of the events in text, unordered, straight into a file.

`--peers` names the Python of an environment that has dlt, which reads the same rows into Parquet through connectorx and
into JSONL through SQLAlchemy. It is kept apart because it pins what we do not:

    python -m venv peers && peers/bin/pip install 'dlt[parquet,filesystem]' connectorx sqlalchemy 'psycopg[binary]'
    python benchmarks/landing.py --peers peers/bin/python
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from harness import alternate, database, per_second, report
from workledger.flows.log_to_synapse import DatabaseTail, bring_up_to_date, publish_once
from workledger.flows.rebuild_training import boundaries, rebuild
from workledger.flows.synapse_to_training import Landing, land_once
from workledger.flows.verify_training import verify_training
from workledger.postgres.connection import Connection, connect
from workledger.postgres.migrate import migrate
from workledger.synapse.embedded import EmbeddedValkey
from workledger.synapse.postgres import PostgresBus
from workledger.synapse.redis import RedisBus, stream_key
from workledger.training.compaction import compact
from workledger.training.urls import open_store

SCHEMA = "bench"
DAY_OF_OUTAGE = 100 * 86_400
SHARD_ROWS = 100_000
FILL = """
INSERT INTO events (
    event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, recorded_at, payload)
SELECT (substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(r, 1, 3) || '-8' || substr(r, 4, 3) || '-'
        || substr(r, 7, 12))::uuid,
       CASE k WHEN 0 THEN 'workflow.started' WHEN 11 THEN 'workflow.completed'
              ELSE (ARRAY['task.completed', 'task.started'])[1 + k %% 2] END,
       CASE WHEN k IN (0, 11) THEN 'workflow' ELSE 'task' END,
       CASE WHEN k IN (0, 11) THEN 'workflow-' || w ELSE 'execution-' || md5(w || (k + 1) / 2) END,
       'workflow-' || w, 'info', at, at, jsonb_build_object(
           'name', 'summaries', 'task_name', 'summarise', 'kind', 'task', 'step_key', 'step-1', 'worker_id', 'w-12',
           'input', jsonb_build_object('query', md5(i::text) || md5((i + 1)::text), 'n', i, 'options',
                                       jsonb_build_array('a', 'b', i)),
           'text', md5((i + 2)::text) || ' ' || md5((i + 5)::text))
FROM (SELECT i, (i - 1) %% 12 AS k, md5(((i - 1) / 12)::text) AS w, now() + (i - %(last)s::int) * interval '1 ms' AS at
      FROM generate_series(%(first)s::int, %(last)s::int) AS i) AS made
CROSS JOIN LATERAL (SELECT lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') AS h,
                           md5(i::text || random()) AS r) AS parts
ORDER BY i
RETURNING event_id"""
RECORD = f"WITH made AS ({FILL}), waiting AS (INSERT INTO event_inbox (event_id) SELECT event_id FROM made) SELECT 1"


def main() -> None:
    given = _arguments()
    with (
        database() as url,
        tempfile.TemporaryDirectory(prefix="workledger-bench-") as folder,
        connect(url, schema=SCHEMA, recording=True) as connection,
    ):
        migrate(connection, schema=SCHEMA)
        _record(connection, 1, given.events)
        bring_up_to_date(connection, schema=SCHEMA)
        connection.execute("VACUUM ANALYZE")
        rows = from_postgres(url, Path(folder), connection, given)
        rows += through_redis(url, Path(folder), min(given.events, given.published))
        rows += how_soon(url, Path(folder), connection)
    report(f"Training store: {given.events:,} events", rows)


# -- from PostgreSQL alone --------------------------------------------------------------------------------------------


def from_postgres(
    url: str, folder: Path, connection: Connection, given: argparse.Namespace
) -> list[tuple[str, str, str]]:
    peaks: dict[str, int] = {}
    places = iter(range(1_000_000))

    def landing(form: str) -> float:
        return given.events / _child(["land", url, f"file:{folder}/{form}-{next(places)}?format={form}"], peaks, form)

    contenders: dict[str, Callable[[], float]] = {
        "copy": lambda: per_second(given.events, partial(_copy, url, folder / "events.copy")),
        "jsonl": partial(landing, "jsonl"),
        "parquet": partial(landing, "parquet"),
    }
    if given.peers:
        contenders |= {f"dlt {form}": partial(_dlt, form, url, folder, given) for form in ("parquet", "jsonl")}
        _flatten(connection)
    figures = alternate(contenders, rounds=given.rounds)
    floor = figures["copy"]
    rows = [
        ("plain COPY to a file", f"{floor:,.0f}/s", ""),
        ("PostgreSQL to JSONL", f"{figures['jsonl']:,.0f}/s", f"{figures['jsonl'] / floor:.2f} of COPY; 0.3, goal 0.5"),
        ("PostgreSQL to Parquet", f"{figures['parquet']:,.0f}/s", f"{figures['parquet'] / floor:.2f} of COPY"),
        ("a day's outage at 100/s", f"{DAY_OF_OUTAGE / figures['jsonl']:,.0f} s", "8.64 M events at that pace"),
    ]
    for name, figure in figures.items():
        if name.startswith("dlt"):
            ours = figures[name.removeprefix("dlt ")]
            rows.append((name, f"{figure:,.0f}/s", f"ours is {ours / figure:.1f} times as fast"))
    for kind in ("delta", "iceberg"):
        seconds = _child(["land", url, f"{kind}+file:{folder}/{kind}"], peaks, kind)
        rows.append((f"PostgreSQL to {kind}", f"{given.events / seconds:,.0f}/s", ""))
    for verb in ("rebuild", "compact", "verify"):
        seconds = _child([verb, url, f"file:{folder}/{verb}?format=jsonl"], peaks, verb)
        rows.append((verb, f"{given.events / seconds:,.0f}/s", ""))
    rows += [(f"peak memory: {name}", f"{peak / 1024:,.0f} MB", "under 300") for name, peak in peaks.items()]
    return rows


def _copy(url: str, path: Path) -> None:
    with connect(url, schema=SCHEMA) as connection, connection.cursor() as cursor, path.open("wb") as file:
        with cursor.copy("COPY (SELECT * FROM events) TO STDOUT") as copy:
            for chunk in copy:
                file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _child(arguments: list[str], peaks: dict[str, int], name: str) -> float:
    """Run a part of this script in a process of its own; gives the seconds it says, and keeps its peak in KiB."""
    argv = [sys.executable, __file__, "--part", *arguments]
    # As the command line has it.
    environ = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "TOKIO_WORKER_THREADS": "1"}
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, env=environ)
    said = json.loads(done.stdout)
    peaks[name] = max(peaks.get(name, 0), said["peak"])
    return said["seconds"]


def part(verb: str, url: str, store_url: str) -> None:
    """Do one thing to a store, and say how long it took and how much memory."""
    store = open_store(store_url, database_url=lambda: url, project=SCHEMA)
    with connect(url, schema=SCHEMA) as connection, closing(_tail(url)) as bus:
        ((head,),) = connection.execute("SELECT position FROM log_head").fetchall()
        land = partial(land_once, connection, bus=bus, store=store, schema=SCHEMA)
        if verb == "compact":
            land(shard_rows=SHARD_ROWS // 20)
        elif verb == "verify":
            land(shard_rows=SHARD_ROWS)
        began = time.perf_counter()
        match verb:
            case "land":
                assert land(shard_rows=SHARD_ROWS) == head
            case "rebuild":
                assert rebuild(connection, store, ends=boundaries(head, block_rows=SHARD_ROWS)) == head
            case "compact":
                assert compact(store, block_rows=SHARD_ROWS, whole=True, grace_s=0).joined
            case _:
                assert verify_training(connection, store).ok
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak}))


def _tail(url: str) -> PostgresBus:
    return PostgresBus(DatabaseTail(connect=lambda: connect(url, schema=SCHEMA), schema=SCHEMA))


# -- through Redis ----------------------------------------------------------------------------------------------------


def through_redis(url: str, folder: Path, events: int) -> list[tuple[str, str, str]]:
    """A project of its own, whose whole log fits into memory, published and landed from there."""
    schema = f"{SCHEMA}_redis"
    store = open_store(f"file:{folder}/redis?format=jsonl")
    with EmbeddedValkey(folder / "valkey") as valkey, connect(url, schema=schema, recording=True) as connection:
        migrate(connection, schema=schema)
        _record(connection, 1, events)
        bring_up_to_date(connection, schema=schema)
        connection.execute("VACUUM ANALYZE")
        bus = RedisBus(valkey, project=schema)
        publishing = per_second(
            events, partial(_in_a_thread, partial(publish_once, connection, bus=bus, schema=schema))
        )
        assert bus.last_position() == events
        adding = per_second(events, partial(_add_raw, valkey, stream_key(schema), events))
        landing = per_second(events, partial(land_once, connection, bus=bus, store=store, schema=schema))
        bus.close()
    return [
        (
            "publishing to Redis",
            f"{publishing:,.0f}/s",
            f"{publishing / adding:.2f} of XADD in redis-py's pipeline; 0.7",
        ),
        ("Redis to JSONL", f"{landing:,.0f}/s", "at least 60,000"),
    ]


def _in_a_thread(work: Callable[[], object]) -> None:
    """Do it as `workledger up` does."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _add_raw(url: str, key: str, events: int) -> None:
    """Add the same bytes to another stream, 2,000 in a pipeline."""
    import redis

    with closing(redis.Redis.from_url(url)) as server:
        sample = [fields for _, fields in server.xrange(key, count=2000)]
        for n in range(0, events, len(sample)):
            pipe = server.pipeline(transaction=False)
            for m, fields in enumerate(sample, start=1):
                pipe.xadd("raw", fields, id=f"{n + m}-0")
            pipe.execute()


# -- how soon ---------------------------------------------------------------------------------------------------------


def how_soon(url: str, folder: Path, connection: Connection) -> list[tuple[str, str, str]]:
    """From a commit to the manifest entry that covers it, at 1,000 events a second."""
    rows = []
    for flush_s, seconds, bound in ((2.0, 12, 2.5), (0.1, 6, 0.3)):
        store_url = f"file:{folder}/soon-{flush_s}?format=jsonl"
        with closing(_tail(url)) as bus:
            land_once(connection, bus=bus, store=open_store(store_url), schema=SCHEMA)
        p50, p99 = _visible_after(url, store_url, connection, flush_s=flush_s, seconds=seconds)
        told = f"p50 {p50:.2f} s, p99 {p99:.2f} s"
        rows.append((f"commit to shard, flush {flush_s:g} s", told, f"p50 under {bound}"))
    return rows


def _visible_after(
    url: str, store_url: str, connection: Connection, *, flush_s: float, seconds: int
) -> tuple[float, float]:
    stop, seen = threading.Event(), [(0.0, 0)]
    with closing(_tail(url)) as bus:
        landing = Landing(
            connect=lambda: connect(url, schema=SCHEMA),
            bus=bus,
            store=open_store(store_url),
            schema=SCHEMA,
            flush_s=flush_s,
        )
        threads = [
            threading.Thread(target=landing.run, args=(stop,)),
            threading.Thread(target=_watch, args=(store_url, seen, stop)),
        ]
        for thread in threads:
            thread.start()
        ((head,),) = connection.execute("SELECT position FROM log_head").fetchall()
        committed: list[tuple[float, int]] = []
        began = time.monotonic()
        for n in range(seconds * 20):
            time.sleep(max(began + n / 20 - time.monotonic(), 0))
            _record(connection, head + 1, head + 50)
            head += 50
            committed.append((time.monotonic(), head))
        while seen[-1][1] < head:
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
    positions = [position for _, position in seen]
    waited = sorted(seen[bisect.bisect_left(positions, position)][0] - at for at, position in committed)
    return statistics.median(waited), waited[int(len(waited) * 0.99)]


def _watch(store_url: str, seen: list[tuple[float, int]], stop: threading.Event) -> None:
    store = open_store(store_url)
    while not stop.wait(0.01):
        position = store.position()
        if position > seen[-1][1]:
            seen.append((time.monotonic(), position))


# -- peers ------------------------------------------------------------------------------------------------------------

DLT = """
import sys, time
import dlt

form, url, folder = sys.argv[1:4]
place = dlt.destinations.filesystem(folder)
pipeline = dlt.pipeline("bench_" + form, destination=place, pipelines_dir=folder + "/state")
began = time.perf_counter()
if form == "parquet":
    import connectorx

    rows = connectorx.read_sql(url, "SELECT * FROM bench.flat", return_type="arrow")
    table = dlt.resource([rows], name="flat")
else:
    from dlt.sources.sql_database import sql_table

    table = sql_table(credentials=url, schema="bench", table="flat", reflection_level="minimal")
pipeline.run(table, loader_file_format=form, write_disposition="replace")
print(time.perf_counter() - began)
"""


def _flatten(connection: Connection) -> None:
    """Give the events as a plain table with text columns, which every reader can read."""
    connection.execute(
        "CREATE TABLE flat AS SELECT event_id::text, event_type, entity_type, entity_id, workflow_id, severity, "
        "created_at, recorded_at, payload::text FROM events"
    )


def _dlt(form: str, url: str, folder: Path, given: argparse.Namespace) -> float:
    if form == "parquet":  # connectorx knows a socket only as a host
        parts = urlsplit(url)
        socket = quote(parse_qs(parts.query)["host"][0], safe="")
        url = f"{parts.scheme}://{parts.username}@{socket}:5432{parts.path}"
    argv = [given.peers, "-c", DLT, form, url, str(folder / f"dlt-{form}")]
    environ = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"}
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=environ)
    return given.events / float(done.stdout.split()[-1])


# -- what is landed ---------------------------------------------------------------------------------------------------


def _record(connection: Connection, first: int, last: int) -> None:
    connection.execute(RECORD, {"first": first, "last": last})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--published", type=int, default=200_000, help="so many of them go through Redis")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", metavar="PYTHON", help="the Python of an environment that has dlt")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part(*sys.argv[2:])
    else:
        main()
