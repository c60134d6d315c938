"""A recorded project and its dashboard, served by a real uvicorn on a port of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workledger
from server.recorded import Dashboard, record_everything
from support.postgres import fresh_database
from workledger import Ledger
from workledger.log.sequencer import sequence
from workledger.server.app import create_app
from workledger.server.serve import DashboardServer


@pytest.fixture(scope="session")
def dashboard(postgres18_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """The dashboard of a project in which one of everything was recorded. Only to be read."""
    home = tmp_path_factory.mktemp("dashboard")
    with fresh_database(postgres18_url) as url, workledger.open(url, home=home) as ledger:
        record_everything(ledger)
        with ledger.pool.connection() as connection:
            sequence(connection, schema="workledger")
        with DashboardServer(create_app(ledger, refresh_s=0.2), port=0) as base:
            yield Dashboard(base, ledger)


@pytest.fixture
def own_ledger(database_url: str, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger on an empty database, to be changed at will."""
    with workledger.open(database_url, home=tmp_path / "home", lease_s=600) as ledger:
        yield ledger


@pytest.fixture
def serve_app() -> Iterator[Callable[..., Dashboard]]:
    """Serves applications over ledgers until the test ends."""
    servers: list[DashboardServer] = []

    def serve(ledger: Ledger, **options: Any) -> Dashboard:
        server = DashboardServer(create_app(ledger, **{"refresh_s": 0.2, **options}), port=0)
        servers.append(server)
        return Dashboard(server.start(), ledger)

    yield serve
    for server in servers:
        server.stop()
