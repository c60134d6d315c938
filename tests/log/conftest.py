"""A log to attack: a migrated schema, with ways to record, sequence, seal, and to do what a superuser can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from support import changes
from workledger.errors import WorkledgerError
from workledger.flows import seal as sealing
from workledger.log import reader
from workledger.log.keys import KeyFolder
from workledger.log.sequencer import sequence
from workledger.operational.apply import apply_in_transaction, make_partitions
from workledger.postgres.connection import Connection, connect
from workledger.postgres.migrate import migrate


def own_event(event_type: str = "cache.hit", *, entity_id: str = "c1", **fields):
    """An event of the application's own."""
    return changes.make("record_event", event_type=event_type, entity_type="cache", entity_id=entity_id, **fields)


class Log:
    """One project's log, with all the rights of a superuser."""

    own_event = staticmethod(own_event)

    def __init__(self, url: str, keys: KeyFolder, *, schema: str = "workledger") -> None:
        self.url = url
        self.schema = schema
        self.keys = keys
        self.connection = self.connect()

    def connect(self, url: str | None = None) -> Connection:
        return connect(url or self.url, schema=self.schema)

    def record(self, *many) -> None:
        make_partitions(self.connection, many)
        for outcome in apply_in_transaction(self.connection, many):
            if isinstance(outcome, WorkledgerError):
                raise outcome

    def fill(self, events: int = 40) -> None:
        """Record at least so many events, and give them positions."""
        while sum(reader.head(self.connection)) < events:
            self.record(*changes.whole_workflow(), own_event(payload={"key": "värde", "n": 1.5}))
        self.sequence()

    def sequence(self) -> int:
        return sequence(self.connection, schema=self.schema)

    @property
    def head(self) -> int:
        return reader.head(self.connection)[0]

    def make_key(self):
        return sealing.make_key(self.connection, schema=self.schema, folder=self.keys)

    def seal(self, *, size: int | None = None, sign: bool = True) -> list:
        """Seal everything, `size` events in a seal."""
        signer = self.keys.active_signer(self.connection) if sign else None
        made = []
        due = {"max_age": timedelta(0)} | ({} if size is None else {"max_events": size})
        while (one := sealing.seal_once(self.connection, schema=self.schema, signer=signer, **due)) is not None:
            made.append(one)
        return made

    def verify(self, **options):
        return sealing.verify_seals(self.connection, **options)

    def kinds(self, **options) -> list[tuple[str, str]]:
        return [(finding.kind, finding.location) for finding in self.verify(**options).findings]

    @contextmanager
    def attack(self) -> Iterator[Connection]:
        """What a superuser can do: for a while, nothing is refused; afterwards everything looks as before."""
        execute = self.connection.execute
        (guard,) = execute("SELECT pg_get_functiondef('refuse_change'::regproc)").fetchone()
        execute(
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$"
        )
        try:
            yield self.connection
        finally:
            execute(guard)

    def alter(self, statement: str, *parameters: object) -> None:
        with self.attack() as connection:
            assert connection.execute(statement, parameters).rowcount != 0, "the alteration altered nothing"


@pytest.fixture
def log(database_url: str, tmp_path: Path) -> Iterator[Log]:
    yield from make_log(database_url, tmp_path)


@pytest.fixture
def any_log(any_postgres_url: str, tmp_path: Path) -> Iterator[Log]:
    """A log, the test running once on each PostgreSQL."""
    yield from make_log(any_postgres_url, tmp_path)


@pytest.fixture
def log15(database15_url: str, tmp_path: Path) -> Iterator[Log]:
    """A log on PostgreSQL 15."""
    yield from make_log(database15_url, tmp_path)


def make_log(url: str, folder: Path) -> Iterator[Log]:
    with connect(url) as connection:
        migrate(connection, schema="workledger")
    log = Log(url, KeyFolder(folder / "keys"))
    yield log
    log.connection.close()
