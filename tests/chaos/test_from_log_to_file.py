"""Everything between the commit and the training file is killed, emptied and cut off: each position lands once.

The long runs take `WORKLEDGER_TEST_ROUNDS` rounds, 200 unless it is set.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from chaos.attack import begin, killed_at_the_end
from chaos.test_postgres_outages import attack as attack_postgres
from chaos.test_postgres_outages import kill_a_backend, kill_postmaster, stop_immediately
from support.changes import whole_workflow
from support.kafka import KafkaBroker
from support.object_stores import Cloud, Faulty, Gateway, use, weed_server
from support.processes import free_port
from support.redis import RedisServer, SentinelPair
from support.waiting import wait_until
from training.journal import SCHEMA
from training.reading import tree
from training.test_objects import contents
from workledger.errors import WorkledgerError
from workledger.flows.log_to_synapse import DatabaseTail, bring_up_to_date
from workledger.flows.record import Recorder
from workledger.flows.synapse_to_training import land_once
from workledger.flows.verify_training import verify_training
from workledger.postgres.connection import connect
from workledger.postgres.embedded import EmbeddedPostgres
from workledger.postgres.migrate import migrate
from workledger.synapse.postgres import PostgresBus
from workledger.training import compaction
from workledger.training.compaction import compact
from workledger.training.urls import open_store

ROUNDS = int(os.environ.get("WORKLEDGER_TEST_ROUNDS", "200"))
NUMBERS = itertools.count()
BLOCK = 500
Attack = Callable[[], object]


class Load(threading.Thread):
    """Records workflows until it is stopped; what PostgreSQL did not acknowledge is recorded again."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._recorder = Recorder(lambda: connect(url, schema=SCHEMA, recording=True))
        self._stopping = threading.Event()
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        with closing(self._recorder):
            while not self._stopping.wait(random.uniform(0, 0.08)):
                changes = [each for _ in range(random.randint(1, 4)) for each in whole_workflow(tasks=2)]
                self._record(changes)
                self.acknowledged.update(str(each.event_id) for each in changes)

    def _record(self, changes: list[Any]) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                self._recorder.record_all(changes)
            except WorkledgerError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        self._stopping.set()
        self.join(150)
        assert not self.is_alive()


class Carriers:
    """Two processes that carry the log to the store; one that is killed is replaced."""

    def __init__(self, *arguments: object, chance: random.Random, stack: ExitStack) -> None:
        self._arguments = arguments
        self._chance = chance
        self._stack = stack
        self._alive = [self._begin(), self._begin()]

    def kill_one(self) -> None:
        """kill -9, and a new one at once; now and then it finds no room on the disk for what it writes."""
        short_of_room = self._chance.random() < 0.2
        self._alive.pop(self._chance.randrange(len(self._alive))).kill()
        self._alive.append(self._begin(self._chance.randint(200, 20_000) if short_of_room else 0))
        if self._chance.random() < 0.75:  # else it may die before it has done anything
            self.await_newest()

    def await_newest(self) -> None:
        """Wait until the newest is at work; Python takes its time to start."""
        output, complaints = self._alive[-1].stdout, self._alive[-1].stderr
        assert output is not None
        assert complaints is not None
        assert select.select([output], [], [], 60)[0]
        if not output.readline():
            raise AssertionError(complaints.read())

    def end(self) -> None:
        for process in self._alive:
            process.kill()
            process.wait(30)

    def _begin(self, largest_file_bytes: int = 0) -> subprocess.Popen[str]:
        process = begin("carry", *self._arguments, largest_file_bytes)
        self._stack.enter_context(killed_at_the_end(process))
        return process


@pytest.fixture
def postgres(servers_dir: Path) -> Iterator[EmbeddedPostgres]:
    directory = servers_dir / f"road-{next(NUMBERS)}"
    directory.mkdir(mode=0o711)
    server = EmbeddedPostgres(directory / "postgres")
    with connect(server.ensure_running(), schema=SCHEMA) as connection:
        migrate(connection, schema=SCHEMA)
    yield server
    server.delete()
    shutil.rmtree(directory)


def attacks_on_redis(server: RedisServer, chance: random.Random) -> list[Attack]:
    def restart() -> None:
        server.kill()
        time.sleep(chance.uniform(0, 0.3))
        server.start()

    def lose(command: Callable[[redis.Redis], object]) -> Attack:
        def attack() -> None:
            with suppress(redis.RedisError), server.client as client:
                command(client)

        return attack

    def trim(client: redis.Redis) -> None:
        for key in client.keys("workledger:*:events"):
            client.xtrim(key, maxlen=10, approximate=False)

    def delete(client: redis.Redis) -> None:
        client.delete(chance.choice(client.keys("workledger:*") or [b"none"]))

    return [restart, restart, lose(lambda client: client.flushall()), lose(trim), lose(delete)]


def attacks_on_sentinels(pair: SentinelPair, chance: random.Random) -> list[Attack]:
    def fail_over() -> None:
        """The master dies; the replica that follows it has all, or lacks the end, or is empty."""
        lack = chance.choice(["nothing", "the end", "everything"])
        if lack != "nothing":
            pair.cut()
        if lack == "everything":
            with pair.replica.client as replica:
                replica.config_set("replica-read-only", "no")
                replica.flushall()
        time.sleep(chance.uniform(0, 0.5))
        pair.fail_over()
        time.sleep(chance.uniform(0, 1))
        pair.mend()

    return [fail_over]


def attacks_on_kafka(broker: KafkaBroker, chance: random.Random) -> list[Attack]:
    def restart() -> None:
        broker.kill()
        time.sleep(chance.uniform(0, 0.5))
        broker.start()

    return [restart]


def attacks_on_postgres(server: EmbeddedPostgres) -> list[Attack]:
    return [lambda how=how: attack_postgres(server, how) for how in (kill_postmaster, stop_immediately, kill_a_backend)]


class Troubled(Faulty):
    """One that can lose the server behind it, too."""

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()


class Bucket:
    """SeaweedFS behind a gateway that fails now and then. Killed, it comes back on the same port with the same data."""

    def __init__(self, directory: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory, self._stack, self._port = directory, stack, free_port()
        self._server = self._start()
        self.cloud, _ = self._server.enter_context(weed_server(directory, port=self._port))
        use(self.cloud, monkeypatch)
        self.name = self.cloud.new_bucket()
        monkeypatch.setattr(Troubled, "rate", 0.05)
        gateway = stack.enter_context(Gateway(Troubled, self.cloud.endpoint))
        self.troubled = Cloud(scheme="s3", endpoint=gateway.url).url(self.name, format="jsonl")
        self.sound = self.cloud.url(self.name, format="jsonl")

    def restart(self) -> None:
        self._server.close()
        self._server = self._start()
        self._server.enter_context(weed_server(self._directory, port=self._port))

    def _start(self) -> ExitStack:
        return self._stack.enter_context(ExitStack())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = time.time_ns()
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize(
    ("road", "rounds"),
    [
        *(pytest.param(road, 3, id=f"{road}-short") for road in ("redis", "postgres")),
        *(
            pytest.param(road, ROUNDS, id=f"{road}-long", marks=[pytest.mark.chaos, pytest.mark.timeout(7200)])
            for road in ("redis", "redis-forgetful-partitions", "sentinel", "kafka", "postgres", "postgres-bucket")
        ),
    ],
)
def test_each_position_lands_once_whatever_is_killed(
    road: str,
    rounds: int,
    postgres: EmbeddedPostgres,
    request: pytest.FixtureRequest,
    stack: ExitStack,
    chance: random.Random,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = postgres.ensure_running()
    training_url = sound_url = f"file:{tmp_path}/training?format=jsonl,csv"
    synapse_url, attacks = "postgres:", list[Attack]()
    if road.startswith("redis"):
        options = ("--appendonly", "no" if "forgetful" in road else "yes", "--save", "")
        server = RedisServer(tmp_path / "redis", *options)
        stack.callback(server.kill)
        server.start()
        synapse_url = f"{server.url}?partitions=3" if "partitions" in road else server.url
        attacks = attacks_on_redis(server, chance)
    elif road == "sentinel":
        pair = request.getfixturevalue("sentinel")
        synapse_url, attacks = pair.url, attacks_on_sentinels(pair, chance)
    elif road == "kafka":
        synapse_url = request.getfixturevalue("kafka_url")
        attacks = attacks_on_kafka(request.getfixturevalue("kafka"), chance)
    elif road == "postgres-bucket":
        bucket = Bucket(tmp_path / "seaweedfs", stack, monkeypatch)
        training_url, sound_url = bucket.troubled, bucket.sound
        attacks = [bucket.restart]
    load = Load(url)
    carriers = Carriers(url, tmp_path / "home", synapse_url, training_url, chance=chance, stack=stack)
    load.start()
    choices = [*attacks, *attacks_on_postgres(postgres), *[carriers.kill_one] * 4]
    carriers.await_newest()
    store = open_store(sound_url)
    wait_until(lambda: store.position() > 0, timeout_s=60)
    for _ in range(rounds):
        time.sleep(chance.uniform(0.05, 0.5))
        chance.choice(choices)()
    time.sleep(1)
    load.stop()
    carriers.end()
    attack_postgres(postgres, lambda _: None)  # it is there again
    monkeypatch.setattr(compaction, "GRACE_S", 0)  # nobody writes any more
    assert_each_position_is_there_once(url, sound_url, load.acknowledged, tmp_path)


def assert_each_position_is_there_once(url: str, training_url: str, acknowledged: set[str], tmp_path: Path) -> None:
    """Verified against the log, once remains are swept; and the same bytes as a store that was written undisturbed."""

    def connecting():
        return connect(url, schema=SCHEMA)

    with connecting() as connection, closing(PostgresBus(DatabaseTail(connect=connecting, schema=SCHEMA))) as bus:
        head = bring_up_to_date(connection, schema=SCHEMA)
        there = {row[0] for row in connection.execute("SELECT event_id::text FROM events")}
        assert acknowledged <= there
        assert len(there) == head
        store = open_store(training_url)
        assert land_once(connection, bus=bus, store=store, schema=SCHEMA, shard_rows=BLOCK) == head
        undisturbed = open_store(f"file:{tmp_path}/undisturbed?format={','.join(each.name for each in store.formats)}")
        land_once(connection, bus=bus, store=undisturbed, schema=SCHEMA, shard_rows=BLOCK)
        for each in (store, undisturbed):
            compact(each, block_rows=BLOCK, whole=True, grace_s=0)
        report = verify_training(connection, store)
        assert report.ok, report.findings
    assert shards(store) == shards(undisturbed)


def shards(store: Any) -> dict[str, bytes]:
    """The data in a store, and its summary."""
    found = tree(store.folder) if hasattr(store, "folder") else contents(store)
    return {path: data for path, data in found.items() if path.partition("/")[0] in {*RECORD_TYPES, "latest.json"}}


RECORD_TYPES = ("events", "tasks", "tool_executions", "workflows")
