from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from training.journal import SCHEMA, Journal
from workledger.flows.log_to_synapse import DatabaseTail, publish_once
from workledger.flows.synapse_to_training import land_once
from workledger.synapse.bus import Bus
from workledger.synapse.postgres import PostgresBus
from workledger.synapse.redis import RedisBus
from workledger.training.store import LocalStore, open_store


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    journal = Journal(database_url)
    yield journal
    journal.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(f"file:{tmp_path}/training?format=jsonl,csv")


class Road:
    """From the log over a bus into a store."""

    def __init__(self, journal: Journal, store: LocalStore, another_bus: Callable[[], Bus], url: str) -> None:
        self.journal = journal
        self.store = store
        self.another_bus = another_bus
        self.bus = another_bus()
        self.url = url

    def publish(self) -> int:
        return publish_once(self.journal.connection, bus=self.bus, schema=SCHEMA)

    def land(self, **options: int) -> int:
        return land_once(self.journal.connection, bus=self.bus, store=self.store, schema=SCHEMA, **options)


def open_road(journal: Journal, store: LocalStore, url: str) -> Iterator[Road]:
    def another_bus() -> Bus:
        if url:
            return RedisBus(url, project=SCHEMA)
        return PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))

    road = Road(journal, store, another_bus, url)
    yield road
    road.bus.close()


@pytest.fixture(params=["redis7_url", "valkey_url", "postgres"], ids=["redis-7", "valkey-9", "postgres"])
def road(request: pytest.FixtureRequest, journal: Journal, store: LocalStore) -> Iterator[Road]:
    url = "" if request.param == "postgres" else request.getfixturevalue(request.param)
    yield from open_road(journal, store, url)


@pytest.fixture
def redis_road(valkey_url: str, journal: Journal, store: LocalStore) -> Iterator[Road]:
    yield from open_road(journal, store, valkey_url)
