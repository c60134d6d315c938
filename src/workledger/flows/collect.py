"""Collecting payloads that nothing refers to: what erasure, archiving and refused changes leave behind.

First everything is read to find out which digests are in use; that takes as long as reading the events does, and holds
nobody up. Then what is left is removed in small transactions. Each holds the lock that recording shares, looks at
what was committed since, and removes what is still unused: a payload that is being recorded again at this moment
is either seen to be in use, or stored again after it was removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final

import psycopg

from workledger.errors import InvalidInput
from workledger.log import reader
from workledger.log.sequencer import sequence
from workledger.model.clock import Clock
from workledger.operational import garbage
from workledger.postgres.connection import Connection, translated

__all__ = ["Collected", "CollectingLoop", "collect_payloads"]

logger = logging.getLogger(__name__)

#: Payloads looked at in one pass over the events; a digest takes about 100 bytes of memory.
_PAGE: Final = 500_000
_BATCH: Final = 200
_ROUNDS: Final = 3
_FIRST_S: Final = 3600.0
#: Recording waits so long at most for a collector that waits for a recorder.
_LOCK_TIMEOUT_MS: Final = 100


@dataclass(slots=True, kw_only=True)
class Collected:
    """What a collection did. `unused` counts what nothing refers to; `busy` of them were locked all the time."""

    looked_at: int = 0
    unused: int = 0
    removed: int = 0
    removed_bytes: int = 0
    busy: int = 0


def collect_payloads(
    connection: Connection,
    *,
    schema: str,
    min_age: timedelta = timedelta(days=1),
    dry_run: bool = False,
    on_progress: Callable[[Collected], None] | None = None,
) -> Collected:
    """Remove stored payloads of at least `min_age` that no event and no state row refers to.

    Takes an autocommit connection of the owner of the tables. Safe while others record, and in several copies.
    `dry_run=True` only counts.
    """
    if min_age < timedelta(0):
        raise InvalidInput(f"min_age = {min_age} is negative", field="min_age", value=min_age, limit="0 s")
    collector = _Collector(connection, schema=schema, min_age_s=min_age.total_seconds(), on_progress=on_progress)
    return collector.run(dry_run=dry_run)


class CollectingLoop:
    """Collects once in a while. The first time comes an hour after it began: collecting reads the whole log."""

    def __init__(self, connect: Callable[[], Connection], *, schema: str, every: timedelta, clock: Clock) -> None:
        self._connect = connect
        self._schema = schema
        self._every_s = every.total_seconds()
        self._clock = clock
        self._next_s = clock.monotonic_s() + min(self._every_s, _FIRST_S)

    def step(self) -> int:
        """Collect when it is time; returns 0, for there is never more to be done at once."""
        if self._clock.monotonic_s() >= self._next_s:
            with self._connect() as connection:
                done = collect_payloads(connection, schema=self._schema)
            self._next_s = self._clock.monotonic_s() + self._every_s
            logger.info("collect.done looked_at=%d removed=%d", done.looked_at, done.removed)
        return 0


class _Collector:
    """One collection. `_head` is the position up to which references have been taken out of `_unused`."""

    def __init__(
        self,
        connection: Connection,
        *,
        schema: str,
        min_age_s: float,
        on_progress: Callable[[Collected], None] | None,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._min_age_s = min_age_s
        self._tell = on_progress or _nobody
        self._done = Collected()
        self._head = 0
        self._unused: set[str] = set()

    def run(self, *, dry_run: bool) -> Collected:
        after = ""
        while page := garbage.old_payloads(self._connection, after=after, min_age_s=self._min_age_s, limit=_PAGE):
            after = max(page)
            self._find_unused(page)
            self._done.looked_at += len(page)
            self._done.unused += len(self._unused)
            if dry_run:
                self._done.removed_bytes += sum(page[digest] for digest in self._unused)
            else:
                self._remove()
            self._tell(self._done)
        return self._done

    def _find_unused(self, page: Iterable[str]) -> None:
        # The head is read first: what is committed after that is found again by its position.
        sequence(self._connection, schema=self._schema)
        self._head = reader.head(self._connection)[0]
        self._unused = set(page)
        for digest in garbage.used(self._connection, first=min(self._unused), last=max(self._unused)):
            self._unused.discard(digest)

    def _remove(self) -> None:
        left = sorted(self._unused)
        for _ in range(_ROUNDS):
            left = [digest for part in _parts(left) for digest in self._remove_part(part)]
        self._done.busy += len(left)

    def _remove_part(self, digests: Sequence[str]) -> list[str]:
        """Remove unused payloads of one part of the digests; returns those that were locked."""
        sequence(self._connection, schema=self._schema)  # keeps the look at what is new a short one
        for start in range(0, len(digests), _BATCH):
            try:
                self._remove_batch(digests[start : start + _BATCH])
            except psycopg.Error as error:
                if not garbage.is_busy(error):
                    raise translated(error) from error
                return list(digests[start:])
            self._tell(self._done)
        return []

    def _remove_batch(self, digests: Sequence[str]) -> None:
        with self._connection.transaction():
            garbage.lock_part(self._connection, int(digests[0][:2], 16), timeout_ms=_LOCK_TIMEOUT_MS)
            self._head, used = garbage.newly_used(self._connection, after_position=self._head)
            self._unused -= used
            unused = [digest for digest in digests if digest in self._unused]
            removed = garbage.delete(self._connection, unused, min_age_s=self._min_age_s)
        self._done.removed += len(removed)
        self._done.removed_bytes += sum(removed)
        logger.debug("collect.removed payloads=%d bytes=%d", len(removed), sum(removed))


def _parts(digests: Sequence[str]) -> list[list[str]]:
    """The digests by their first byte, which is what the lock is on."""
    return [list(part) for _, part in groupby(digests, key=lambda digest: digest[:2])]


def _nobody(_: Collected) -> None:
    """Hear of progress and do nothing."""
