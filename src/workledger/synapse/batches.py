"""Events in batches that a server takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workledger.synapse.bus import BusEvent

__all__ = ["batches"]


def batches(events: Sequence[BusEvent], *, limit: int, limit_bytes: int) -> Iterator[Sequence[BusEvent]]:
    """Give the events in order, in batches of at most so many and so many bytes; an event that is larger goes alone."""
    start, size_bytes = 0, 0
    for n, event in enumerate(events):
        if n > start and (n - start >= limit or size_bytes + len(event.data) > limit_bytes):
            yield events[start:n]
            start, size_bytes = n, 0
        size_bytes += len(event.data)
    if start < len(events):
        yield events[start:]
