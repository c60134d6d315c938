from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from training.journal import SCHEMA, Journal
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.synapse_to_training import land_once
from workledger.synapse.postgres import PostgresBus
from workledger.training.store import LocalStore, open_store


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    journal = Journal(database_url)
    yield journal
    journal.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(f"file:{tmp_path}/training?format=jsonl,csv")


@pytest.fixture
def land(journal: Journal, store: LocalStore) -> Iterator[Callable[..., int]]:
    """Land what the log has, straight from PostgreSQL."""
    bus = PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))

    def land(into: LocalStore = store, **options: int) -> int:
        return land_once(journal.connection, bus=bus, store=into, schema=SCHEMA, **options)

    yield land
    bus.close()
