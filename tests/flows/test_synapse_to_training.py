"""Each position once in the training store, whatever happens to bus, writer and publisher."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import pytest
import redis

from flows.conftest import Road
from support import wait_until
from support.redis import flush
from training.journal import SCHEMA, Journal
from training.reading import assert_agrees_with_sql, derived, lines, records, tree
from workledger.errors import StoreCorrupted, Unavailable
from workledger.flows.log_to_synapse import Publisher, publish_once
from workledger.flows.synapse_to_training import Landing, consumer_name, land_once
from workledger.log import consumers
from workledger.synapse.redis import RedisBus, stream_key
from workledger.training.records import RecordType
from workledger.training.store import LocalStore, open_store


def assert_complete(road: Road) -> None:
    """The store has every line of the log once, and they are the lines that the log gives."""
    head = road.journal.sequence()
    assert road.store.position() == head
    expected = derived(road.journal, [head])
    for record_type in RecordType:
        assert lines(road.store, record_type) == expected[record_type], record_type


def test_what_is_recorded_is_landed_once_and_agrees_with_sql(road: Road) -> None:
    for n in range(5):
        road.journal.workflow(f"w{n}")
        road.publish()
        road.land(shard_rows=16)
    assert_complete(road)
    assert_agrees_with_sql(road.journal, road.store)


def test_landing_when_there_is_nothing_new_changes_nothing(road: Road) -> None:
    road.journal.events(3)
    road.publish()
    assert road.land() == 3
    before = tree(road.store.folder)
    assert road.land() == 3
    assert tree(road.store.folder) == before


def test_landing_up_to_a_position_stops_there(road: Road) -> None:
    road.journal.events(50)
    road.publish()
    assert road.land(upto=20) == 20
    assert road.store.ranges() == [(1, 20)]


def test_the_shards_are_the_same_bytes_whatever_the_bus(road: Road, tmp_path: Path) -> None:
    for n in range(3):
        road.journal.workflow(f"w{n}")
    road.publish()
    road.land(shard_rows=25)
    other = open_store(f"file:{tmp_path}/other?format=jsonl,csv")
    land_once(road.journal.connection, bus=_Silent(), store=other, schema=SCHEMA, shard_rows=25)
    assert tree(other.folder) == tree(road.store.folder)


class _Silent:
    """A bus on which nothing ever comes."""

    def last_position(self) -> int:
        return 0

    def publish(self, events: object) -> None: ...

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[object]:
        time.sleep(block_s)
        return []

    def trim(self, *, below: int) -> None: ...

    def close(self) -> None: ...


def test_the_position_of_a_store_is_shown_among_the_consumers(road: Road) -> None:
    road.journal.events(7)
    road.land()
    road.journal.events(2)
    road.journal.sequence()
    (consumer,) = consumers.consumers(road.journal.connection)
    assert (consumer.name, consumer.position, consumer.lag) == (consumer_name(road.store), 7, 2)


@pytest.mark.parametrize("harm", ["flush", "cut", "delete"])
def test_a_stream_that_loses_its_entries_costs_nothing(redis_road: Road, harm: str) -> None:
    client = redis.Redis.from_url(redis_road.url)
    for n in range(6):
        redis_road.journal.workflow(f"w{n}")
        redis_road.publish()
        if n % 2:
            redis_road.land(upto=redis_road.store.position() + 30)
        if harm == "flush":
            client.flushall()
        elif harm == "cut":
            client.xtrim(stream_key(SCHEMA), maxlen=3, approximate=False)
        else:
            client.xdel(stream_key(SCHEMA), *[entry for entry, _ in client.xrange(stream_key(SCHEMA))][::3])
    redis_road.publish()
    redis_road.land()
    assert_complete(redis_road)


def test_a_bus_that_is_away_costs_nothing(redis_road: Road, caplog: pytest.LogCaptureFixture) -> None:
    redis_road.journal.events(20)
    redis_road.journal.sequence()
    away = RedisBus("redis://127.0.0.1:1/0", project=SCHEMA)
    assert land_once(redis_road.journal.connection, bus=away, store=redis_road.store, schema=SCHEMA) == 20
    assert [record.message for record in caplog.records if "without_bus" in record.message] != []
    assert_complete(redis_road)


def test_a_stream_of_another_database_does_not_get_in(redis_road: Road, database15_url: str) -> None:
    other = Journal(database15_url)
    other.events(30)
    with closing(redis_road.another_bus()) as bus:
        publish_once(other.connection, bus=bus, schema=SCHEMA)
    other.close()
    redis_road.journal.workflow("w")
    redis_road.journal.sequence()
    redis_road.land()
    assert_complete(redis_road)


def test_a_store_of_another_database_is_refused(road: Road, database15_url: str) -> None:
    road.journal.events(5)
    road.land()
    other = Journal(database15_url)
    other.events(9)
    with pytest.raises(StoreCorrupted, match="written from another log"):
        land_once(other.connection, bus=_Silent(), store=road.store, schema=SCHEMA)
    other.close()


def test_whoever_comes_second_waits_for_the_writer_and_takes_over_when_it_goes(road: Road) -> None:
    road.journal.events(10)
    road.journal.sequence()
    with road.store.writing() as writer:
        assert writer is not None
        with pytest.raises(Unavailable, match="being written by another process"):
            road.land(timeout_s=0)
        waits = threading.Event()
        second = threading.Thread(target=road.land, kwargs={"on_progress": lambda *_: waits.set()})
        second.start()
        assert waits.wait(60)
        assert road.store.position() == 0
    second.join(60)
    assert road.store.position() == 10


# -- loops -------------------------------------------------------------------------------------------------------


class Running:
    """Publisher and landing loops in threads, ended with the block."""

    def __init__(self, road: Road, *, landings: int = 1, publishers: int = 1, **options: float) -> None:
        self.stop = threading.Event()
        self.buses = [road.another_bus() for _ in range(landings + publishers)]
        self.errors: list[BaseException] = []
        runs = [
            Landing(connect=road.journal.connect, bus=bus, store=road.store, schema=SCHEMA, **options).run
            for bus in self.buses[:landings]
        ]
        runs += [Publisher(connect=road.journal.connect, bus=bus, schema=SCHEMA).run for bus in self.buses[landings:]]
        self.threads = [threading.Thread(target=self._guarded, args=(run,)) for run in runs]

    def _guarded(self, run: object) -> None:
        try:
            run(self.stop)
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(120)
        for bus in self.buses:
            bus.close()
        assert self.errors == []
        assert not any(thread.is_alive() for thread in self.threads)


def test_the_loops_land_what_is_recorded_when_the_flush_time_is_over(road: Road) -> None:
    with Running(road, flush_s=0.1):
        for n in range(4):
            road.journal.workflow(f"w{n}")
        wait_until(lambda: road.store.position() == road.journal.sequence(), timeout_s=60)
    assert_complete(road)


def test_a_range_is_not_ended_before_the_flush_time(road: Road) -> None:
    with Running(road, flush_s=600, shard_rows=10):
        road.journal.events(25)
        wait_until(lambda: road.store.position() == 20, timeout_s=60)
    # Told to stop, it lands what it has.
    assert road.store.ranges() == [(1, 10), (11, 20), (21, 25)]


def test_landing_goes_on_when_the_publisher_is_dead(redis_road: Road) -> None:
    redis_road.journal.events(4)
    redis_road.publish()
    with Running(redis_road, publishers=0, flush_s=0.1):
        wait_until(lambda: redis_road.store.position() == 4, timeout_s=60)
        redis_road.journal.events(4)
        wait_until(lambda: redis_road.store.position() == 8, timeout_s=60)
    assert_complete(redis_road)


def test_several_of_each_loop_are_as_good_as_one_while_the_server_is_flushed(redis_road: Road) -> None:
    with Running(redis_road, landings=3, publishers=3, flush_s=0.05, shard_rows=20):
        for n in range(15):
            redis_road.journal.workflow(f"w{n}")
            if n % 4 == 3:
                flush(redis_road.url)
        wait_until(lambda: redis_road.store.position() == redis_road.journal.sequence(), timeout_s=60)
    assert_complete(redis_road)


def test_a_publisher_that_another_overtakes_does_not_take_the_stream_for_another_logs(
    redis_road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one records and publishes between this one's look at the log and its look at the bus."""
    redis_road.journal.events(3)
    other = redis_road.another_bus()

    def overtaken() -> int:
        redis_road.journal.events(2)
        publish_once(redis_road.journal.connection, bus=other, schema=SCHEMA)
        return other.last_position()

    with closing(other):
        monkeypatch.setattr(redis_road.bus, "last_position", overtaken)
        assert redis_road.publish() == 0
        assert other.last_position() == 5


def test_a_store_that_cannot_be_written_is_said_once_and_landing_goes_on_when_it_can(
    road: Road, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder in the place of the lock stands for whatever keeps a store from being written."""
    caplog.set_level(logging.WARNING)
    road.store.folder.mkdir()
    (road.store.folder / "_lock").mkdir()
    road.journal.events(3)
    with Running(road, flush_s=0.05):
        wait_until(lambda: "landing.waiting" in caplog.text, timeout_s=60)
        (road.store.folder / "_lock").rmdir()
        wait_until(lambda: road.store.position() == 3, timeout_s=60)
    assert caplog.text.count("landing.waiting") == 1


def test_a_store_that_is_corrupt_ends_the_loop_with_the_reason(road: Road) -> None:
    road.journal.events(3)
    road.land()
    next((road.store.folder / "_manifest").iterdir()).write_bytes(b"{}")
    stop = threading.Event()
    landing = Landing(connect=road.journal.connect, bus=_Silent(), store=road.store, schema=SCHEMA)
    with pytest.raises(StoreCorrupted, match="_manifest/"):
        landing.run(stop)


# -- killing -----------------------------------------------------------------------------------------------------

#: Publishes and lands in two children for each line it is sent, and says their ids: it imports only once.
LANDERS = """
import os, sys, threading
from workledger.flows.log_to_synapse import DatabaseTail, Publisher
from workledger.flows.synapse_to_training import Landing
from workledger.postgres.connection import connect
from workledger.synapse.postgres import PostgresBus
from workledger.synapse.redis import RedisBus
from workledger.training.store import open_store

database, url, training, schema = sys.argv[1:]
connecting = lambda: connect(database, schema=schema)

def bus():
    return RedisBus(url, project=schema) if url else PostgresBus(DatabaseTail(connect=connecting, schema=schema))

def land():
    never = threading.Event()
    publisher = Publisher(connect=connecting, bus=bus(), schema=schema)
    threading.Thread(target=publisher.run, args=(never,), daemon=True).start()
    store = open_store(training)
    Landing(connect=connecting, bus=bus(), store=store, schema=schema, shard_rows=7, flush_s=0.02).run(never)

for _ in sys.stdin:
    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            land()
    print(*children, flush=True)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
"""


@contextmanager
def two_landers(landers: subprocess.Popen[str], chance: random.Random) -> Iterator[None]:
    """Two processes that publish and land while the block lasts, and are killed at its end, one after the other."""
    assert landers.stdin is not None
    assert landers.stdout is not None
    landers.stdin.write("go\n")
    landers.stdin.flush()
    children = [int(word) for word in landers.stdout.readline().split()]
    try:
        yield
    finally:
        for child in chance.sample(children, 2):
            os.kill(child, signal.SIGKILL)
        assert landers.stdout.readline() == "[-9, -9]\n"


@pytest.mark.parametrize(
    ("seed", "rounds"), [pytest.param(1, 2, id="short"), pytest.param(2, 20, id="long", marks=pytest.mark.chaos)]
)
def test_kill_9_at_random_moments_two_writers_and_flushes_lose_and_repeat_nothing(
    road: Road, seed: int, rounds: int
) -> None:
    chance = random.Random(seed)
    recorded = 0

    def record_one() -> None:
        nonlocal recorded
        road.journal.workflow(f"w{recorded}")
        recorded += 1
        if road.url and chance.random() < 0.1:
            flush(road.url)

    def has_landed(before: int) -> bool:
        record_one()
        return road.store.position() > before

    training = f"file:{road.store.folder}?{urlencode({'format': 'jsonl,csv'})}"
    argv = [sys.executable, "-c", LANDERS, road.journal.url, road.url, training, SCHEMA]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as landers:
        for _ in range(rounds):
            with two_landers(landers, chance):
                wait_until(partial(has_landed, road.store.position()), timeout_s=60)
                ends_at = time.monotonic() + chance.uniform(0.0, 0.5)
                while time.monotonic() < ends_at:
                    record_one()
        landers.communicate(timeout=60)
    road.publish()
    road.land(shard_rows=7)
    assert_complete(road)
    assert_agrees_with_sql(road.journal, road.store)
    assert road.store.unlisted() == []
    assert len(records(road.store, RecordType.WORKFLOWS)) == recorded


def test_a_writer_killed_between_data_and_manifest_leaves_nothing_in_the_way(road: Road, tmp_path: Path) -> None:
    """Every order in which a crash can cut a commit short, made by taking back what comes last."""
    road.journal.events(10)
    road.land()
    entry = next((road.store.folder / "_manifest").iterdir())
    summary = road.store.folder / "latest.json"
    entry.unlink()  # the files are there, the entry is not
    road.journal.events(3)  # so that the next range is another one
    road.land()
    assert road.store.ranges() == [(1, 13)]
    assert_complete(road)
    summary.unlink()  # the entry is there, the summary is not
    road.land()
    assert summary.exists()


def test_a_crash_of_the_whole_machine_is_survived_with_what_was_synced(road: Road) -> None:
    """Files of a range whose entry was never written may be empty or torn after a power cut."""
    road.journal.events(10)
    road.land()
    for folder in ("events", "tasks"):
        torn = road.store.folder / folder / f"{folder}-000000000011-000000000020.jsonl"
        torn.write_bytes(b'{"position":11,"eve')
    (road.store.folder / "_tmp" / "x").write_bytes(b"\0\0\0")
    road.journal.events(10)
    road.land()
    assert_complete(road)


def test_a_store_can_be_read_while_it_is_written(road: Road, store: LocalStore) -> None:
    seen: set[int] = set()

    def has_grown() -> bool:
        road.journal.events(3)
        positions = [line["position"] for entry in store.entries() for line in _events_of(store, entry)]
        assert positions == list(range(1, len(positions) + 1))
        seen.add(len(positions))
        return len(seen) > 5

    with Running(road, flush_s=0.02, shard_rows=5):
        wait_until(has_grown, timeout_s=120)


def _events_of(store: LocalStore, entry: object) -> list[dict[str, object]]:
    import json

    path = store.folder / entry.files_of("jsonl")[RecordType.EVENTS].path
    return [json.loads(line) for line in path.read_bytes().splitlines()]
