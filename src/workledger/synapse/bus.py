"""The bus: events on their way to whoever follows the log, in the order of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Bus", "BusEvent"]


class BusEvent(NamedTuple):
    """One event on the bus. A tuple, because hundreds of thousands a second are made of rows and of stream entries.

    `data` is the event as one line of JSON: position, event_id, event_type, entity_type, entity_id, workflow_id,
    severity, created_at, recorded_at, schema_version and payload. Large values in the payload are references into
    PostgreSQL (`model.payload.reference_of`).
    """

    position: int
    event_type: str
    data: bytes


class Bus(Protocol):
    """Carries the log from one publisher at a time to any number of readers. PostgreSQL is the truth, the bus is not.

    A bus may lose its beginning (trimmed), its end (failed over) or everything (flushed) at any moment; it never
    invents, repeats or reorders. So a reader that asks for what comes after N gets positions above N, ascending,
    and must compare the first with N + 1: what is missing between them it reads from the log itself.

    Whoever opens a bus closes it. One object serves one thread. Every method raises `SynapseUnavailable` when
    the bus cannot be reached; every method can be called again.
    """

    def last_position(self) -> int:
        """Give the highest position that was ever published here; 0 when nothing was, or all was lost."""
        ...

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Add events in ascending order of position. What is there already is left as it is, and is no error."""
        ...

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Give at most `limit` events with positions above `after`; wait up to `block_s` seconds for the first."""
        ...

    def trim(self, *, below: int) -> None:
        """Forget the events with positions under `below`, and none other."""
        ...

    def close(self) -> None:
        """Let go of connections; the events stay."""
        ...
