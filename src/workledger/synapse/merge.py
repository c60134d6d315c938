"""One order out of several partitions, each of which is in order by itself."""

from __future__ import annotations

from collections.abc import Iterable

from workledger.synapse.bus import BusEvent

__all__ = ["Merge"]


class Merge:
    """Holds what came from the partitions until it is its turn: position after position, each once.

    Positions are dense, so an event's turn has come when the one before it was given. No partition needs to be
    waited for, and what comes twice is known by its position. Where the bus has lost something its turn never
    comes; whoever has made sure of that calls `settle`.
    """

    def __init__(self, *, after: int) -> None:
        self.after = after
        self._waiting: dict[int, BusEvent] = {}
        self._settled = 0

    def __len__(self) -> int:
        """Tell how many events wait."""
        return len(self._waiting)

    def add(self, events: Iterable[BusEvent]) -> None:
        """Take events from any partitions; those whose turn is over are dropped."""
        after, waiting = self.after, self._waiting
        for event in events:
            if event.position > after:
                waiting[event.position] = event

    def take(self, limit: int) -> list[BusEvent]:
        """Give the events whose turn has come, at most `limit`."""
        taken: list[BusEvent] = []
        pop, position = self._waiting.pop, self.after
        while len(taken) < limit:
            event = pop(position + 1, None)
            if event is not None:
                taken.append(event)
                position += 1
            elif position < self._settled and self._waiting:
                position = min(min(self._waiting) - 1, self._settled)
            else:
                break
        self.after = taken[-1].position if taken else self.after
        return taken

    def settle(self, upto: int | None = None) -> None:
        """Believe that what is missing before the events that wait is lost; as far as `upto`, when that is given."""
        last = max(self._waiting, default=0)
        self._settled = last if upto is None else min(last, upto)
