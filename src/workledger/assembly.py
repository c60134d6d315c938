"""The composition root: settings in, wired parts out. The only module that knows every backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workledger.errors import ConfigurationError, SchemaError, SynapseUnavailable
from workledger.model.clock import Clock, SystemClock
from workledger.postgres.archive_access import give_access
from workledger.postgres.connection import Connection, connect, plan_for_reading
from workledger.postgres.migrate import migrate, pending
from workledger.postgres.pool import ConnectionPool
from workledger.settings import Settings, load_settings
from workledger.training.archive_access import FileAccess
from workledger.training.archive_files import archive_root

if TYPE_CHECKING:
    from workledger.flows.archive import ArchiveReport
    from workledger.flows.mount import Mount
    from workledger.flows.up import Loop, Step
    from workledger.flows.verify import Check
    from workledger.log.keys import Signer
    from workledger.log.seal_checkpoints import CheckpointStore
    from workledger.sdk.ledger import Ledger
    from workledger.synapse.bus import Bus
    from workledger.training_stores import TrainingStores

# What records is imported where it is made: a command that only reads starts in half the time without it.
# ruff: noqa: PLC0415

__all__ = [
    "LOOPS",
    "archive",
    "archive_url",
    "checkpoints_of",
    "connect_to",
    "has_bus",
    "make_loops",
    "metrics_urls",
    "open",
    "open_bus",
    "open_connection",
    "open_ledger",
    "prepare_schema",
    "resolve_database_url",
    "seal_everything",
    "signer_of",
    "training_stores",
    "verify",
    "wait_for_consumers",
]


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
    from workledger.flows.record import Recorder
    from workledger.operational.prices import load_prices
    from workledger.sdk.ledger import Ledger
    from workledger.sdk.scribe import Scribe
    from workledger.sdk.spool import make_spool

    prices = load_prices(Path(settings.prices_file).expanduser() if settings.prices_file else None)
    url = resolve_database_url(settings)
    prepare_schema(settings, url)
    recorder = Recorder(
        partial(connect_to, settings, url=url, recording=True),
        delay_s=settings.buffer_s,
        timeout_s=settings.record_timeout_s,
    )
    pool = ConnectionPool(partial(connect_to, settings, url=url))
    scribe = Scribe(
        recorder, project=settings.project, spool=make_spool(settings), buffered=settings.durability == "buffered"
    )
    return Ledger(scribe=scribe, recorder=recorder, pool=pool, clock=clock, lease_s=settings.lease_s, prices=prices)


def archive_url(settings: Settings) -> str:
    """Where the archive of these settings is: beside the training store, unless it is said."""
    return settings.archive_url or archive_root(settings.training_url)


def resolve_database_url(settings: Settings) -> str:
    """The database to use; starts the embedded server when none is named."""
    if settings.database_url:
        return settings.database_url
    from workledger.postgres.embedded import EmbeddedPostgres

    return EmbeddedPostgres(settings.home / "postgres").ensure_running()


def connect_to(settings: Settings, *, url: str | None = None, recording: bool = False) -> Connection:
    """A connection to the project's schema."""
    connection = connect(
        url or resolve_database_url(settings),
        schema=settings.project,
        recording=recording,
        prepared=not settings.pooled,
        timeout_s=settings.record_timeout_s if recording else 10.0,
    )
    give_access(connection, FileAccess(partial(archive_url, settings)))
    return connection


def open_connection(settings: Settings) -> Connection:
    """A connection to read with; the schema is created where there is none, and refused where it is incomplete."""
    connection = connect_to(settings)
    try:
        _complete_schema(settings, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare_schema(settings: Settings, url: str) -> None:
    """Create the schema where there is none; refuse one that lacks migrations (that is `workledger migrate`'s)."""
    with connect_to(settings, url=url) as connection:
        _complete_schema(settings, connection)


def _complete_schema(settings: Settings, connection: Connection) -> None:
    missing = pending(connection)
    if not missing:
        return
    if missing[0].version == 1 or not settings.database_url:
        migrate(connection, schema=settings.project)
        return
    names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in missing)
    raise SchemaError(f"the schema {settings.project!r} lacks {names}; run `workledger migrate`")


# -- checking -----------------------------------------------------------------------------------------------------


def verify(
    settings: Settings,
    *,
    names: Sequence[str] = (),
    keys: Sequence[str] = (),
    checkpoints: str | None = None,
    repair: bool = False,
    on_progress: Callable[[str, int], None] | None = None,
) -> Iterator[Check]:
    """Check the stores against the log: those that are named, or all; see `flows.verify`.

    With `repair`, training stores are refilled with what they lack. `keys` are the public keys to trust for seals
    (none: those that the database lists), `checkpoints` is where checkpoints were kept, when it is not where the
    settings say.
    """
    from workledger.flows import verify as checks

    def tell(name: str) -> Callable[[int], None] | None:
        return None if on_progress is None else partial(on_progress, name)

    open_connection(settings).close()  # before anything is checked, the schema has to be the one we know
    with connect_to(settings, recording=True) as connection, _mounted_for(connection, names) as mount:
        if not names and mount is not None and mount.files:
            yield checks.check_archives(connection, mount, on_progress=tell("archives"))
        of_database = [name for name in checks.DATABASE_CHECKS if not names or name in names]
        yield from checks.check_database(
            connection, schema=settings.project, names=of_database, on_progress=on_progress
        )
        plan_for_reading(connection)
        if not names or "training" in names:
            for store in training_stores(settings).open_all():
                yield checks.check_training(connection, store, repair=repair, on_progress=tell("training"))
        if not names or "metrics" in names:
            yield checks.check_metrics(connection)
        if not names or "seals" in names:
            kept = checkpoints_of(settings, checkpoints)
            yield checks.check_seals(connection, keys=keys, checkpoints=kept, on_progress=tell("seals"))


def checkpoints_of(settings: Settings, place: str | None = None) -> CheckpointStore | None:
    """Where checkpoints are kept: the place that is given, or that of the settings; None when there is none."""
    from workledger.flows.checkpoints import open_checkpoints

    place = place or settings.checkpoints_url
    return open_checkpoints(place) if place else None


@contextmanager
def _mounted_for(connection: Connection, names: Sequence[str]) -> Generator[Mount | None]:
    """Have archived rows among the others for the checks that are named; a replay reads archives by itself."""
    from workledger.flows.mount import mounted

    if set(names) == {"state"}:
        yield None
        return
    with mounted(connection) as mount:
        yield mount


def wait_for_consumers(settings: Settings, *, on_progress: Callable[[str, int], None] | None = None) -> int:
    """Bring bus, training store, metrics and seals up to the head of the log as it is now, and return that head.

    Does the work itself; where `workledger up` is doing it too, the two share it.
    """
    from workledger.flows import log_to_metrics
    from workledger.flows.log_to_synapse import publish_once

    def tell(done: int, _total: int) -> None:
        if on_progress is not None:
            on_progress("training", done)

    with open_connection(settings) as connection, closing(open_bus(settings)) as bus:
        if has_bus(settings):
            # Without the bus nothing is lost, only slower: what it does not have is read from the log.
            with suppress(SynapseUnavailable):
                publish_once(connection, bus=bus, schema=settings.project)
        head = training_stores(settings).land(connection, on_progress=tell)
        log_to_metrics.catch_up_with_archive(connection)
        log_to_metrics.catch_up(connection)
        seal_everything(settings, connection)
        return head


# -- archiving ----------------------------------------------------------------------------------------------------


def archive(
    settings: Settings,
    *,
    before: datetime,
    to: str | None = None,
    dry_run: bool = False,
    clock: Clock | None = None,
    on_step: Callable[[str, str], None] = lambda _step, _what: None,
) -> ArchiveReport:
    """Archive what was finished before a time, to `to` or where the settings say; see `flows.archive`."""
    from workledger.flows.archive import archive as run
    from workledger.training.archive_files import open_files

    if settings.pooled:
        raise ConfigurationError(
            "archiving needs a session of its own, which PgBouncer in transaction mode does not give; name the "
            "server itself in WORKLEDGER_DATABASE_URL, and leave WORKLEDGER_POOLED out",
            setting="pooled",
            value=True,
        )
    files = open_files(to or archive_url(settings))
    with open_connection(settings) as connection:
        return run(
            connection,
            connect=partial(connect_to, settings),
            files=files,
            clock=clock or SystemClock(),
            cutoff=before,
            dry_run=dry_run,
            on_step=on_step,
        )


# -- what loops ---------------------------------------------------------------------------------------------------

#: The loops that `make_loops` can make, in the order in which data moves through them.
LOOPS: Final = (
    "sequencer",
    "synapse",
    "training",
    "maintenance",
    "metrics",
    "influx",
    "prometheus",
    "webhooks",
    "reaper",
    "sealer",
    "checkpoints",
    "partitions",
    "archiver",
    "collector",
)
_GAUGES_EVERY_S: Final = 15.0


def open_bus(settings: Settings) -> Bus:
    """The bus of these settings; the caller closes it."""
    from workledger.flows.log_to_synapse import DatabaseTail
    from workledger.synapse import urls

    connect_here = partial(connect_to, settings)
    tail = partial(DatabaseTail, connect=connect_here, schema=settings.project, listen=not settings.pooled)
    return urls.open_bus(settings.synapse_url, project=settings.project, home=settings.home, log=tail)


def training_stores(settings: Settings) -> TrainingStores:
    """The training stores of these settings; nothing is made or read yet."""
    from workledger.training_stores import TrainingStores

    return TrainingStores(
        settings=settings,
        connect=partial(connect_to, settings),
        open_bus=partial(open_bus, settings),
        database_url=partial(resolve_database_url, settings),
    )


def seal_everything(settings: Settings, connection: Connection) -> int:
    """Seal every position that waits, with this machine's key where there is one; returns how many seals were made."""
    from workledger.flows.seal import seal_all

    return seal_all(connection, schema=settings.project, signer=signer_of(settings, connection))


def signer_of(settings: Settings, connection: Connection) -> Signer | None:
    """The key of this machine that signs the log; None when there is none, or signing is not installed."""
    folder = settings.home / "keys"
    if not folder.is_dir() or find_spec("cryptography") is None:
        return None
    from workledger.log.keys import KeyFolder

    return KeyFolder(folder).active_signer(connection)


def has_bus(settings: Settings) -> bool:
    """Whether there is a bus apart from PostgreSQL."""
    from workledger.synapse.urls import default_url

    return not (settings.synapse_url or default_url()).startswith("postgres:")


def metrics_urls(settings: Settings, scheme: str) -> list[str]:
    """The addresses in `metrics_url` that begin with a scheme."""
    return [url for url in map(str.strip, settings.metrics_url.split(",")) if url.startswith(scheme)]


def make_loops(
    settings: Settings, ledger: Ledger, *, announce: Callable[[str, str], None] = lambda _name, _url: None
) -> list[Loop]:
    """Every loop that these settings ask for. `announce` hears where a loop that listens can be found."""
    from workledger.flows.up import Loop

    loops = [Loop(name="sequencer", open=partial(_sequencing, settings), pause_s=0.015)]
    if has_bus(settings):
        loops.append(Loop(name="synapse", open=partial(_publishing, settings), pause_s=0.03))
    loops += training_stores(settings).loops()
    loops.append(Loop(name="metrics", open=partial(_counting, settings), pause_s=0.5))
    loops += [
        Loop(name="influx", open=partial(_writing_points, settings, url), pause_s=1.0)
        for url in metrics_urls(settings, "influx+")
    ]
    loops += [
        Loop(name="prometheus", open=partial(_being_scraped, settings, url, announce), pause_s=1.0)
        for url in metrics_urls(settings, "prometheus:")
    ]
    loops.append(Loop(name="webhooks", open=partial(_delivering, settings), pause_s=1.0))
    loops.append(Loop(name="reaper", open=partial(_reaping, settings, ledger), pause_s=min(settings.lease_s / 3, 5.0)))
    return [*loops, *_housekeeping(settings, ledger)]


def _housekeeping(settings: Settings, ledger: Ledger) -> list[Loop]:
    from workledger.flows import housekeeping

    return housekeeping.loops(
        settings,
        connect=partial(connect_to, settings),
        signer_of=partial(signer_of, settings),
        archive=lambda before: archive(settings, before=before, clock=ledger.clock),
        clock=ledger.clock,
    )


@contextmanager
def _sequencing(settings: Settings, _stop: threading.Event) -> Generator[Step]:
    from workledger.log.reader import head
    from workledger.log.sequencer import sequence

    with connect_to(settings) as connection:
        yield lambda: sequence(connection, schema=settings.project) if head(connection)[1] else 0


@contextmanager
def _publishing(settings: Settings, _stop: threading.Event) -> Generator[Step]:
    from workledger.flows.log_to_synapse import Publisher

    with closing(open_bus(settings)) as bus:
        publisher = Publisher(connect=partial(connect_to, settings), bus=bus, schema=settings.project)
        with closing(publisher):
            yield publisher.publish_once


@contextmanager
def _counting(settings: Settings, _stop: threading.Event) -> Generator[Step]:
    from workledger.flows import log_to_metrics

    with connect_to(settings) as connection:
        log_to_metrics.catch_up_with_archive(connection)
        yield lambda: log_to_metrics.catch_up(connection)


@contextmanager
def _writing_points(settings: Settings, url: str, _stop: threading.Event) -> Generator[Step]:
    from workledger.flows import log_to_influx
    from workledger.metrics.influx import InfluxWriter, target_of

    writer = InfluxWriter(target_of(url))
    next_gauges_s = 0.0

    with connect_to(settings) as connection:
        log_to_influx.catch_up_with_archive(connection, writer)

        def step() -> int:
            nonlocal next_gauges_s
            if time.monotonic() >= next_gauges_s:
                log_to_influx.write_gauges(connection, writer, at=datetime.now(UTC))
                next_gauges_s = time.monotonic() + _GAUGES_EVERY_S
            return log_to_influx.catch_up(connection, writer, attempts=1)

        yield step


@contextmanager
def _being_scraped(
    settings: Settings, url: str, announce: Callable[[str, str], None], _stop: threading.Event
) -> Generator[Step]:
    from workledger.metrics.prometheus import address_of, serve

    host, port = address_of(url)
    with serve(partial(connect_to, settings), host=host, port=port) as server:
        announce("metrics", server.url)
        yield lambda: 0


@contextmanager
def _delivering(settings: Settings, _stop: threading.Event) -> Generator[Step]:
    from workledger.flows.log_to_webhooks import Couriers

    couriers = Couriers(partial(connect_to, settings), schema=settings.project, listen=not settings.pooled)
    with closing(couriers):
        yield couriers.step


@contextmanager
def _reaping(settings: Settings, ledger: Ledger, _stop: threading.Event) -> Generator[Step]:
    from workledger.flows.reap import Reaper

    reaper = Reaper(ledger.recorder, clock=ledger.clock, pause_s=min(settings.lease_s / 3, 5.0))
    with connect_to(settings) as connection:
        yield lambda: reaper.reap_once(connection)
