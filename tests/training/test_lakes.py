"""Tables of a lake: each position once, whoever dies or comes second; Delta and Iceberg, on the disk and in a bucket."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support import wait_until
from support.object_stores import ACCESS_KEY, SECRET_KEY, Cloud
from training.journal import SCHEMA, Journal
from training.reading import derived
from training.test_hostile_values import VALUES
from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.synapse_to_training import Landing
from workledger.flows.verify_lake import repair_lake, verify_lake
from workledger.model.status import Kind
from workledger.synapse.postgres import PostgresBus
from workledger.training import lake
from workledger.training.lake import LakeStore, lake_batches, lake_schema
from workledger.training.records import SCHEMAS, ColumnType, RecordType
from workledger.training.urls import open_lake

Land = Callable[..., int]
Open = Callable[[], LakeStore]
#: Where a commit is decided: by a name in a folder or a bucket, or by a catalogue in PostgreSQL or over HTTP.
EVERY = ["delta+file", "delta+s3", "iceberg+file", "iceberg+s3", "iceberg+rest"]
on_every_kind = pytest.mark.parametrize("open_again", EVERY, indirect=True)
on_files = pytest.mark.parametrize("open_again", ["delta+file", "iceberg+file"], indirect=True)


def lake_url(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind.endswith("file"):
        return f"{kind}:{folder}/lake"
    cloud: Cloud = request.getfixturevalue("seaweedfs_cloud")
    if kind == "iceberg+rest":
        monkeypatch = request.getfixturevalue("monkeypatch")
        monkeypatch.setenv("PYICEBERG_CATALOG__WORKLEDGER__CREDENTIAL", f"{ACCESS_KEY}:{SECRET_KEY}")
        url = cloud.url(cloud.new_table_bucket(), prefix="lake", catalog=cloud.catalog)
        return url.replace("s3://", "iceberg+s3://")
    return cloud.url(cloud.new_bucket(), prefix="lake").replace("s3://", f"{kind}://")


@pytest.fixture
def open_again(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Open:
    """Opens the same store anew, as another process would."""
    url = lake_url(request.param, tmp_path, request)
    return lambda: open_lake(url, database_url=lambda: database_url, project=SCHEMA)


def assert_right(journal: Journal, store: LakeStore) -> None:
    report = verify_lake(journal.connection, store)
    assert [str(finding) for finding in report.findings] == []
    assert report.position == journal.sequence()


@on_every_kind
def test_what_is_landed_is_what_the_log_says(journal: Journal, land: Land, open_again: Open) -> None:
    journal.start("w", input=VALUES, subject="")
    for name, value in VALUES.items():
        journal.execution(f"w/{name}", "w", kind=Kind.TOOL, task_name=name, input=value, output=[value])
    journal.fail("w")
    assert open_again().position() == 0
    land(open_again(), upto=7)
    land(open_again())
    journal.workflow("later")
    head = land(open_again())
    assert land(open_again()) == head
    store = open_again()
    assert store.position() == head
    assert_right(journal, store)
    for record_type, lines in derived(journal, [head]).items():
        rows = store.table(record_type)
        rows.position()
        found = rows.rows(1, head).to_pylist()
        for row, line in zip(found, map(json.loads, lines), strict=True):
            for column in SCHEMAS[record_type].columns:
                if column.type is ColumnType.JSON and line[column.name] is not None:
                    assert json.loads(row[column.name]) == line[column.name]
                elif column.type is not ColumnType.TIMESTAMP:
                    assert row[column.name] == line[column.name]
            assert str(row["day"]) == line["created_at" if record_type == "events" else "completed_at"][:10]


@on_files
def test_rows_that_only_some_tables_got_are_not_written_again(
    journal: Journal, land: Land, open_again: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that dies between two tables, at each of the places where it can."""
    for n in range(8):
        journal.workflow(f"w{n}")
    journal.sequence()

    class Crash(BaseException):
        pass

    kind = type(open_again().table(RecordType.EVENTS))
    append = kind.append

    def dying_after(survived: int) -> Callable[..., None]:
        acts = [0]

        def act(table: Any, *args: Any, **given: Any) -> None:
            acts[0] += 1
            if acts[0] > survived:
                raise Crash
            append(table, *args, **given)

        return act

    at = 0
    for survived in range(4):
        at += 23
        with monkeypatch.context() as patch:
            patch.setattr(kind, "append", dying_after(survived))
            with pytest.raises(Crash):
                land(open_again(), upto=at)
        assert open_again().position() == at - 23
        land(open_again(), upto=at - 9)  # another stretch than the one that died
        assert land(open_again(), upto=at) == at
    land(open_again())
    assert_right(journal, open_again())


@on_every_kind
def test_of_two_writers_the_second_to_commit_loses(journal: Journal, open_again: Open) -> None:
    journal.workflow("w")
    head = journal.sequence()
    lines = derived(journal, [head])
    one, two = open_again(), open_again()
    with one.writing() as first, two.writing() as second:
        assert first is not None
        assert second is not None
        for writer in (first, second):
            for record_type, found in lines.items():
                writer.write(record_type, found)
        last = json.loads(lines[RecordType.EVENTS][-1])["event_id"]
        first.commit(last=head, last_event_id=last)
        with pytest.raises(Unavailable) as raised:
            second.commit(last=head, last_event_id=last)
        assert raised.value.outrun
    assert_right(journal, open_again())


@pytest.mark.parametrize("open_again", ["delta+s3", "iceberg+file"], indirect=True)
def test_writers_at_once_land_every_position_once(journal: Journal, open_again: Open) -> None:
    stop = threading.Event()

    def connect_without_locks() -> Any:
        connection = journal.connect()
        connection.prepare_threshold = None  # as behind PgBouncer: nothing but the tables keeps them apart
        return connection

    def run() -> None:
        bus = PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))
        Landing(
            connect=connect_without_locks, bus=bus, store=open_again(), schema=SCHEMA, shard_rows=17, flush_s=0.1
        ).run(stop)
        bus.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(4):
        journal.workflow(f"w{n}")
    head = journal.sequence()
    store = open_again()
    try:
        wait_until(lambda: store.position() == head, timeout_s=120)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert_right(journal, open_again())


@pytest.mark.parametrize("open_again", ["delta+file"], indirect=True)
def test_a_table_of_another_log_is_not_gone_on_with(journal: Journal, land: Land, open_again: Open) -> None:
    journal.events(3)
    land(open_again())
    journal.connection.execute("SET session_replication_role = replica")
    from workledger.training.log_lines import LogLines

    original = LogLines.event_id
    try:
        LogLines.event_id = lambda self, position: "019a0000-0000-7000-8000-000000000000"  # type: ignore[method-assign]
        with pytest.raises(StoreCorrupted, match="another log"):
            land(open_again())
    finally:
        LogLines.event_id = original  # type: ignore[method-assign]


@pytest.mark.parametrize("open_again", ["delta+file", "iceberg+file", "iceberg+rest"], indirect=True)
def test_a_record_type_that_grows_gives_its_table_the_new_column(
    journal: Journal, land: Land, open_again: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    journal.events(3)
    land(open_again())
    grown = lambda record_type: lake_schema(record_type).append(pa.field("mood", pa.string()))  # noqa: E731

    def batches(record_type: RecordType, lots: Any) -> Iterator[Any]:
        for batch in lake_batches(record_type, lots):
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, pa.array(["fine"] * batch.num_rows)], schema=grown(record_type)
            )

    from workledger.training import delta, iceberg

    with monkeypatch.context() as patch:
        patch.setattr(lake, "lake_batches", batches)
        patch.setattr(delta, "lake_schema", grown)
        patch.setattr(iceberg, "lake_schema", grown)
        journal.events(2)
        assert land(open_again()) == 5
        events = open_again().table(RecordType.EVENTS)
        events.position()
        assert events.rows(1, 5)["mood"].to_pylist() == [None] * 3 + ["fine"] * 2
    journal.events(1)
    land(open_again())
    assert_right(journal, open_again())


@pytest.mark.parametrize("open_again", ["delta+s3", "iceberg+s3"], indirect=True)
def test_maintenance_joins_small_files_and_harms_nothing(journal: Journal, land: Land, open_again: Open) -> None:
    for _ in range(9):
        journal.events(2)
        land(open_again())
    journal.workflow("w")
    land(open_again())
    done = {kind: open_again().table(kind).maintain(keep=timedelta(0)) for kind in RecordType}
    events = done[RecordType.EVENTS]
    assert (events.joined, events.made) == (10, 1)
    assert events.expired or events.removed
    assert done[RecordType.TASKS].joined == 0
    assert open_again().table(RecordType.EVENTS).maintain(keep=timedelta(0)).joined == 0
    assert_right(journal, open_again())
    journal.workflow("later")
    land(open_again())
    assert_right(journal, open_again())


@on_files
def test_landing_goes_on_while_tables_are_maintained(journal: Journal, open_again: Open) -> None:
    stop = threading.Event()
    bus = PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))
    landing = Landing(connect=journal.connect, bus=bus, store=open_again(), schema=SCHEMA, shard_rows=10, flush_s=0.05)
    thread = threading.Thread(target=landing.run, args=(stop,))
    journal.events(70)
    head = journal.sequence()
    store, refused = open_again(), set()

    def is_landed() -> bool:
        try:
            open_again().table(RecordType.EVENTS).maintain(keep=timedelta(0))
        except Unavailable as error:
            refused.add(error.details.get("outrun"))
        return store.position() == head

    thread.start()
    try:
        wait_until(is_landed, timeout_s=120)
    finally:
        stop.set()
        thread.join(120)
    bus.close()
    assert refused <= {True}
    assert_right(journal, open_again())


@on_files
def test_what_nobody_names_is_removed_when_it_is_old(
    journal: Journal, land: Land, open_again: Open, tmp_path: Path
) -> None:
    for _ in range(9):
        journal.events(2)
        land(open_again())
    left, young = tmp_path / "lake" / "events" / "left.parquet", tmp_path / "lake" / "events" / "young.parquet"
    for path in (left, young):
        path.write_bytes(b"by somebody who died")
    os.utime(left, times=(time.time() - 3 * 86400,) * 2)
    events = open_again().table(RecordType.EVENTS)
    assert events.maintain(keep=timedelta(days=2)).removed >= 1
    assert (left.exists(), young.exists()) == (False, True)
    # What was joined stays for whoever reads an older version.
    assert len(list((tmp_path / "lake" / "events").rglob("day=*/*.parquet"))) == 9 + 1
    assert_right(journal, open_again())


@on_files
def test_rows_that_were_taken_out_altered_or_doubled_are_named_and_put_right(
    journal: Journal, land: Land, open_again: Open
) -> None:
    for n in range(3):
        journal.workflow(f"w{n}")
    head = land(open_again())
    store = open_again()
    lines = derived(journal, [head])
    events = store.table(RecordType.EVENTS)
    events.position()
    altered = lines[RecordType.EVENTS][4].replace(b'"severity":"info"', b'"severity":"INFO"')
    again = [*lines[RecordType.EVENTS][1:3], altered, *lines[RecordType.EVENTS][6:8], lines[RecordType.EVENTS][7]]
    events.replace(lake_batches(RecordType.EVENTS, [again]), first=2, last=8)
    tools = store.table(RecordType.TOOL_EXECUTIONS)
    tools.position()
    tools.replace(iter(()), first=1, last=head)
    report = verify_lake(journal.connection, open_again())
    found = {finding.location: finding.message for finding in report.findings if finding.kind == "line"}
    assert found["events[4]"] == found["events[6]"] == "is missing"
    assert found["events[5]"].startswith("differs from the log: severity is 'INFO', the log says 'info'")
    assert found["events[8]"] == "is there 2 times"
    assert sum(name.startswith("tool_executions[") for name in found) == 3
    assert len(found) == 7
    assert repair_lake(journal.connection, open_again()) == 2
    assert_right(journal, open_again())


#: Lands in a child for each line it is sent, and says the child's id and how it ended: it imports only once.
LANDER = """
import os, sys
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.synapse_to_training import land_once
from workledger.postgres.connection import connect
from workledger.synapse.postgres import PostgresBus
from workledger.training import delta, iceberg
from workledger.training.urls import open_lake

url, database, head = sys.argv[1], sys.argv[2], int(sys.argv[3])

def land():
    store = open_lake(url, database_url=lambda: database, project="workledger")
    bus = PostgresBus(DatabaseTail(connect=lambda: connect(database, schema="workledger"), schema="workledger"))
    with connect(database, schema="workledger") as connection:
        position = 0
        while position < head:
            position = land_once(connection, bus=bus, store=store, schema="workledger", upto=position + 7)

for _ in sys.stdin:
    child = os.fork()
    if not child:
        land()
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@on_files
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.chaos)])
def test_killed_at_any_moment_it_goes_on_where_it_was(
    journal: Journal, open_again: Open, request: pytest.FixtureRequest, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    for n in range(1 + kills // 4):
        journal.workflow(f"w{n}")
    head = journal.sequence()
    url = lake_url(request.node.callspec.params["open_again"], tmp_path, request)
    argv = [sys.executable, "-c", LANDER, url, journal.url, str(head)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lander:
        position = 0
        for _ in range(kills):
            killed_landing(lander, after_s=rng.uniform(0.02, 0.8))
            assert open_again().position() >= position
            position = open_again().position()
        assert killed_landing(lander, after_s=120) == 0
        lander.communicate(timeout=60)
    assert_right(journal, open_again())


def killed_landing(lander: subprocess.Popen[str], *, after_s: float) -> int:
    """Have the landing killed if it has not ended by then; gives how it ended."""
    assert lander.stdin is not None
    assert lander.stdout is not None
    lander.stdin.write("go\n")
    lander.stdin.flush()
    child = int(lander.stdout.readline())

    def kill() -> None:
        with suppress(ProcessLookupError):  # it has just come to its end
            os.kill(child, signal.SIGKILL)

    timer = threading.Timer(after_s, kill)
    timer.start()
    status = int(lander.stdout.readline())
    timer.cancel()
    assert status in {0, signal.SIGKILL}
    return status


@pytest.mark.parametrize("kind", ["delta+s3", "iceberg+s3"])
def test_refused_credentials_are_said_clearly_and_the_same_each_time(
    journal: Journal,
    land: Land,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    url = lake_url(kind, tmp_path, request)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    journal.events(1)
    told = set()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="credentials are refused.*renew AWS_ACCESS_KEY_ID") as raised:
            land(open_lake(url, database_url=lambda: journal.url, project=SCHEMA))
        told.add(str(raised.value))
    assert len(told) == 1


def test_a_catalogue_that_refuses_says_how_to_be_let_in(
    journal: Journal, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = lake_url("iceberg+rest", tmp_path, request)
    monkeypatch.setenv("PYICEBERG_CATALOG__WORKLEDGER__CREDENTIAL", "nobody:nothing")
    with pytest.raises(ConfigurationError, match="catalogue refuses.*PYICEBERG_CATALOG__WORKLEDGER__CREDENTIAL"):
        open_lake(url, database_url=lambda: journal.url, project=SCHEMA).position()


def test_a_url_that_names_no_lake_is_refused(journal: Journal) -> None:
    for url in ("delta+ftp://x/y", "iceberg+az://x/y", "delta+s3:", "delta+file:x?format=csv", "iceberg+file:x?a=b"):
        with pytest.raises(ConfigurationError, match="is not a training store; use"):
            open_lake(url, database_url=lambda: journal.url, project=SCHEMA)
