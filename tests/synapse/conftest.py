from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from training.journal import SCHEMA, Journal
from workledger.flows.log_to_synapse import DatabaseTail, publish_once
from workledger.synapse.bus import Bus
from workledger.synapse.kafka import KafkaBus
from workledger.synapse.kurrentdb import KurrentBus
from workledger.synapse.postgres import PostgresBus
from workledger.synapse.redis import RedisBus
from workledger.synapse.urls import open_bus


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    journal = Journal(database_url)
    yield journal
    journal.close()


class Road:
    """A log and a bus that carries it."""

    def __init__(self, journal: Journal, another: Callable[[], Bus]) -> None:
        self.journal = journal
        self.another = another
        self.bus = another()

    def record(self, count: int) -> None:
        self.journal.events(count)
        self.publish()

    def publish(self) -> int:
        return publish_once(self.journal.connection, bus=self.bus, schema=SCHEMA)


def _bus_url(request: pytest.FixtureRequest) -> str:
    name, _, options = request.param.partition("?")
    if name == "postgres":
        return ""
    found = request.getfixturevalue(name)
    url = found if isinstance(found, str) else found.url
    return f"{url}?{options}" if options else url


@pytest.fixture(
    params=[
        *("redis7_url", "valkey_url", "sentinel", "cluster", "redis7_url?partitions=5", "cluster?partitions=5"),
        *("kafka_url", "kurrentdb_url", "postgres"),
    ],
    ids=[
        *("redis-7", "valkey-9", "sentinel", "cluster", "redis-7-partitions", "cluster-partitions"),
        *("kafka", "kurrentdb", "postgres"),
    ],
)
def road(request: pytest.FixtureRequest, journal: Journal) -> Iterator[Road]:
    url = _bus_url(request)
    stream = f"workledger-{uuid.uuid4().hex}"

    def another() -> Bus:
        if url.startswith("kafka:"):
            return KafkaBus(url, project=SCHEMA)
        if url.startswith(("kurrentdb", "esdb")):
            return KurrentBus(url, project=SCHEMA, stream=stream)
        if url:
            return open_bus(url, project=SCHEMA, home=Path(), log=list)
        return PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))

    road = Road(journal, another)
    yield road
    road.bus.close()


@pytest.fixture
def redis_road(any_redis_url: str, journal: Journal) -> Iterator[Road]:
    road = Road(journal, lambda: RedisBus(any_redis_url, project=SCHEMA))
    yield road
    road.bus.close()
