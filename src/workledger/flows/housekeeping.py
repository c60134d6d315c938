"""The loops that keep the log in order: seals, checkpoints, partitions, the archive, values nothing refers to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from workledger.errors import Unavailable
from workledger.flows.up import Loop, Step
from workledger.model.clock import Clock
from workledger.postgres.connection import Connection
from workledger.settings import Settings

# Each loop brings what it needs when it is opened.
# ruff: noqa: PLC0415

if TYPE_CHECKING:
    from workledger.log.keys import Signer

__all__ = ["loops"]

_EVERY_S: Final = 3600.0
_COLLECTOR_LOOKS_S: Final = 60.0

Connect = Callable[[], Connection]


def loops(
    settings: Settings,
    *,
    connect: Connect,
    signer_of: Callable[[Connection], Signer | None],
    archive: Callable[[datetime], object],
    clock: Clock,
) -> list[Loop]:
    """The loops that these settings ask for; `archive` archives what was finished before a time."""

    @contextmanager
    def sealing(_stop: threading.Event) -> Generator[Step]:
        with connect() as connection:
            yield lambda: _seal(connection, settings, signer_of(connection))

    @contextmanager
    def keeping_checkpoints(_stop: threading.Event) -> Generator[Step]:
        yield _Checkpoints(settings, connect).step

    @contextmanager
    def making_partitions(_stop: threading.Event) -> Generator[Step]:
        yield lambda: _make_partitions(connect)

    @contextmanager
    def archiving(_stop: threading.Event) -> Generator[Step]:
        age = timedelta(days=settings.archive_after_days)
        yield lambda: _archive(archive, clock.now() - age)

    @contextmanager
    def collecting(_stop: threading.Event) -> Generator[Step]:
        from workledger.flows.collect import CollectingLoop

        every = timedelta(days=settings.collect_every_days)
        yield CollectingLoop(connect, schema=settings.project, every=every, clock=clock).step

    found = [Loop(name="sealer", open=sealing, pause_s=1.0)]
    if settings.checkpoints_url:
        found.append(Loop(name="checkpoints", open=keeping_checkpoints, pause_s=1.0))
    found.append(Loop(name="partitions", open=making_partitions, pause_s=_EVERY_S))
    if settings.archive_after_days > 0:
        found.append(Loop(name="archiver", open=archiving, pause_s=_EVERY_S))
    if settings.collect_every_days > 0:
        found.append(Loop(name="collector", open=collecting, pause_s=_COLLECTOR_LOOKS_S))
    return found


def _seal(connection: Connection, settings: Settings, signer: Signer | None) -> int:
    from workledger.flows.seal import seal_once

    max_age = timedelta(seconds=settings.seal_after_s)
    return 0 if seal_once(connection, schema=settings.project, signer=signer, max_age=max_age) is None else 1


class _Checkpoints:
    """Keeps a checkpoint when it is time, and the first one as soon as there is a seal."""

    def __init__(self, settings: Settings, connect: Connect) -> None:
        from workledger.flows.checkpoints import open_checkpoints

        self._store = open_checkpoints(settings.checkpoints_url)
        self._every_s = settings.checkpoint_every_s
        self._connect = connect
        self._due_at_s = 0.0

    def step(self) -> int:
        from workledger.flows.checkpoints import keep_newest

        if time.monotonic() >= self._due_at_s:
            with self._connect() as connection:
                if keep_newest(connection, self._store) is not None:
                    self._due_at_s = time.monotonic() + self._every_s
        return 0


def _make_partitions(connect: Connect) -> int:
    from workledger.log.partitions import make_ahead

    with connect() as connection:
        make_ahead(connection)
    return 0


def _archive(archive: Callable[[datetime], object], before: datetime) -> int:
    try:
        archive(before)
    except Unavailable as error:
        if not error.details.get("is_busy"):  # by another copy of this loop: then it is being done
            raise
    return 0
