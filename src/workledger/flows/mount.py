"""The arrow from the archive back: archived rows in temporary tables, to be read like those of the database.

Who verifies, or makes something again from the whole log, reads events, large values and state by the same SQL as
ever: temporary views of the same names show what is in the database and what is archived as one. They are this
session's own and go with it, whatever ends it. While it lasts no partition is dropped.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, LiteralString

from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.log import archive_index
from workledger.model.archived import ArchiveFile
from workledger.postgres.archive_access import is_mounted, set_mounted
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["Mount", "mounted", "mounted_if_behind"]

#: The kinds of rows that SQL of ours reads, apart from the rows of one workflow.
_KINDS: Final = frozenset({"events", "payloads", "workflows", "task_executions"})


@dataclass(slots=True, kw_only=True)
class Mount:
    """What is mounted: how many files and events, and the files that cannot be read, with what is wrong with each."""

    files: int = 0
    events: int = 0
    faults: list[tuple[ArchiveFile, StoreCorrupted]] = field(default_factory=list[tuple[ArchiveFile, StoreCorrupted]])


@contextmanager
def mounted(connection: Connection, *, after: int = 0) -> Generator[Mount]:
    """Have archived rows stand among those of the database for this connection, for the block.

    Of events, only the files that go beyond position `after` are loaded. The connection must be in autocommit, and a
    session of its own that can read archives. Needs room for the rows in PostgreSQL's temporary files. Without an
    archive it costs a look, and where it is mounted already, nothing.
    """
    mount = Mount()
    if is_mounted(connection):
        yield mount
        return
    if connection.prepare_threshold is None:
        _refuse_pooled(connection)
        yield mount
        return
    _run(connection, "hold_mounted")
    try:
        if files := [file for file in archive_index.files(connection) if _is_needed(file, after)]:
            _load(connection, files, mount)
            set_mounted(connection, mounted=True)
        yield mount
    finally:
        set_mounted(connection, mounted=False)
        if not connection.closed and not connection.broken:
            if mount.files:
                _unload(connection)
            _run(connection, "release_mounted")


@contextmanager
def mounted_if_behind(
    connection: Connection, position: int, *, with_state: bool = False, only_after: bool = False
) -> Generator[int]:
    """The same, for who has read up to a position, and only when something after it is archived.

    `with_state` is for who asks the state about events: there it counts, too, that a workflow has left the state
    while its events are still there. `only_after` is for who looks at nothing before the position. Gives the last
    archived position; 0 when there is none after that position, and nothing is mounted.
    """
    last_of = archive_index.last_left if with_state else archive_index.last_archived
    last = last_of(connection)
    if last <= position:
        yield 0
        return
    with mounted(connection, after=position if only_after else 0) as mount:
        if mount.faults:
            raise mount.faults[0][1]
        yield last_of(connection)


def _refuse_pooled(connection: Connection) -> None:
    """Behind a pooler there are no temporary tables to mount anything in."""
    if archive_index.files(connection, kind="events"):
        raise ConfigurationError(
            "what is archived can be read as a whole only in a session of its own, which PgBouncer in transaction mode "
            "does not give; name the server itself in WORKLEDGER_DATABASE_URL, and leave WORKLEDGER_POOLED out",
            setting="pooled",
            value=True,
        )


def _is_needed(file: ArchiveFile, after: int) -> bool:
    """Say whether rows of a file may have left the database. Events do so all at once; other rows one by one."""
    if file.kind == "events":
        return file.removed_at is not None and (file.last_position or 0) > after
    return file.kind in _KINDS


def _load(connection: Connection, files: list[ArchiveFile], mount: Mount) -> None:
    from workledger.flows.mount_loading import Loader  # noqa: PLC0415  needs an extra, and only archives do

    mount.files = len(files)
    loader = Loader(connection)
    loader.load(files)
    mount.events, mount.faults = loader.events, loader.faults


def _unload(connection: Connection) -> None:
    from workledger.flows.mount_loading import unload  # noqa: PLC0415  as above

    unload(connection)


def _run(connection: Connection, name: LiteralString) -> None:
    with translate_errors():
        connection.execute(load("workledger.flows", name))
