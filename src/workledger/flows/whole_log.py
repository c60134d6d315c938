"""The lines of the log for who may begin far back: what is archived is mounted for as long as it is read."""

from __future__ import annotations

from contextlib import ExitStack

from workledger.flows.mount import mounted_if_behind
from workledger.postgres.connection import Connection
from workledger.training.log_lines import Line, LogLines

__all__ = ["WholeLog"]


class WholeLog:
    """Reads the log over somebody's connection, which can read archives. Nothing is skipped, wherever it begins.

    While it is behind what is archived, no partition is dropped; `close` lets go of that.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lines = LogLines(connection)
        self._mount = ExitStack()
        self._archived = 0

    def read(self, *, after: int, limit: int) -> list[Line]:
        """Give the lines after a position, in order; see `LogLines.read`. None is left out that is archived.

        Raises `StoreCorrupted` when an archive that is needed cannot be read.
        """
        if self._archived and after >= self._archived:
            self.close()
        lines = self._lines.read(after=after, limit=limit)
        if not self._archived and _skips(lines, after):
            self._archived = self._mount.enter_context(mounted_if_behind(self._connection, after, only_after=True))
            if not self._archived:
                self._mount.close()
                return lines
            lines = self._lines.read(after=after, limit=limit)
        return lines

    def close(self) -> None:
        """Let go of what is mounted."""
        self._archived = 0
        self._mount.close()


def _skips(lines: list[Line], after: int) -> bool:
    """Say whether a position is left out; whether there is more after the last one, nobody knows."""
    return not lines or lines[-1][0] - after != len(lines)
