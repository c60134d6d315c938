from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from training.journal import SCHEMA, Journal
from workledger.flows.log_to_synapse import DatabaseTail, publish_once
from workledger.synapse.bus import Bus
from workledger.synapse.postgres import PostgresBus
from workledger.synapse.redis import RedisBus


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


@pytest.fixture(params=["redis7_url", "valkey_url", "postgres"], ids=["redis-7", "valkey-9", "postgres"])
def road(request: pytest.FixtureRequest, journal: Journal) -> Iterator[Road]:
    url = "" if request.param == "postgres" else request.getfixturevalue(request.param)

    def another() -> Bus:
        if url:
            return RedisBus(url, project=SCHEMA)
        return PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))

    road = Road(journal, another)
    yield road
    road.bus.close()


@pytest.fixture
def redis_road(any_redis_url: str, journal: Journal) -> Iterator[Road]:
    road = Road(journal, lambda: RedisBus(any_redis_url, project=SCHEMA))
    yield road
    road.bus.close()
