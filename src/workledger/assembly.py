"""The composition root: settings in, wired parts out. The only module that knows every backend."""

from __future__ import annotations

from functools import partial
from typing import Any

from workledger.errors import SchemaError
from workledger.flows.record import Recorder
from workledger.model.clock import Clock
from workledger.postgres.connection import Connection, connect
from workledger.postgres.migrate import migrate, pending
from workledger.postgres.pool import ConnectionPool
from workledger.sdk.ledger import Ledger
from workledger.sdk.scribe import Scribe
from workledger.sdk.spool import Spool
from workledger.settings import Settings, load_settings

__all__ = ["connect_to", "open", "open_ledger", "prepare_schema", "resolve_database_url"]


def open(  # noqa: A001  the word users type: workledger.open()
    database_url: str | None = None, *, project: str | None = None, clock: Clock | None = None, **given: Any
) -> Ledger:
    """Open the ledger: the database of `WORKLEDGER_DATABASE_URL`, or an embedded PostgreSQL under `./.workledger`.

    Creates the schema when the database has none. Keyword arguments are settings (see `Settings`) and take
    precedence over the environment. Close it, or use it as a context manager.
    """
    settings = load_settings(database_url=database_url, project=project, **given)
    return open_ledger(settings, clock=clock)


def open_ledger(settings: Settings, *, clock: Clock | None = None) -> Ledger:
    """Open the ledger of these settings."""
    url = resolve_database_url(settings)
    prepare_schema(settings, url)
    recorder = Recorder(partial(connect_to, settings, url=url, recording=True), delay_s=settings.buffer_s)
    pool = ConnectionPool(partial(connect_to, settings, url=url))
    scribe = Scribe(
        recorder, project=settings.project, spool=make_spool(settings), buffered=settings.durability == "buffered"
    )
    return Ledger(scribe=scribe, recorder=recorder, pool=pool, clock=clock, lease_s=settings.lease_s)


def make_spool(settings: Settings) -> Spool | None:
    """The spool of these settings: one file per project in the home folder; None when it is turned off."""
    if settings.spool_limit_bytes <= 0:
        return None
    return Spool(settings.home / "spool" / f"{settings.project}.sqlite", limit_bytes=settings.spool_limit_bytes)


def resolve_database_url(settings: Settings) -> str:
    """The database to use; starts the embedded server when none is named."""
    if settings.database_url:
        return settings.database_url
    from workledger.postgres.embedded import EmbeddedPostgres  # noqa: PLC0415  only when it is used

    return EmbeddedPostgres(settings.home / "postgres").ensure_running()


def connect_to(settings: Settings, *, url: str | None = None, recording: bool = False) -> Connection:
    """A connection to the project's schema."""
    return connect(
        url or resolve_database_url(settings),
        schema=settings.project,
        recording=recording,
        prepared=not settings.pooled,
    )


def prepare_schema(settings: Settings, url: str) -> None:
    """Create the schema where there is none; refuse one that lacks migrations (that is `workledger migrate`'s)."""
    with connect_to(settings, url=url) as connection:
        missing = pending(connection)
        if not missing:
            return
        if missing[0].version == 1 or not settings.database_url:
            migrate(connection, schema=settings.project)
            return
    names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in missing)
    raise SchemaError(f"the schema {settings.project!r} lacks {names}; run `workledger migrate`")
