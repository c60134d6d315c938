"""No bus: whoever follows the log reads the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Protocol

from workledger.synapse.bus import BusEvent

__all__ = ["LogTail", "PostgresBus"]

#: The log is looked at so often even when no notification comes: one may be lost, or a proxy may carry none.
POLL_S: Final = 0.5


class LogTail(Protocol):
    """What this bus needs to know of the log, which is not its to reach into (`flows.log_to_synapse` has it)."""

    def head(self) -> int:
        """Give the last position of the log."""
        ...

    def read(self, *, after: int, limit: int) -> list[BusEvent]:
        """Give the events at the positions after `after`, at most `limit`; at least one unless there is none."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when the log has grown, or when the time is over; a wake-up may be lost, or come for nothing."""
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...


class PostgresBus:
    """The log itself, as a bus: it has everything from the moment it is sequenced, and loses nothing."""

    def __init__(self, log: LogTail) -> None:
        self._log = log

    def last_position(self) -> int:
        """Give the head of the log."""
        return self._log.head()

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Do nothing: the log has them."""

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Read the log; while there is nothing new, wait for news and read again."""
        deadline = time.monotonic() + block_s
        while not (events := self._log.read(after=after, limit=limit)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            self._log.wait(min(left_s, POLL_S))
        return events

    def trim(self, *, below: int) -> None:
        """Do nothing: the log is not the bus's to cut."""

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
