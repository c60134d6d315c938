"""What pages show that is not in the database's tables: the training store's manifest, and the metrics page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from workledger.errors import MissingExtra
from workledger.postgres.pool import ConnectionPool
from workledger.server.views import TrainingFacts, TrainingShards
from workledger.training.manifest import Entry

__all__ = ["ListedStore", "metrics_page", "training_facts"]


class ListedStore(Protocol):
    """A training store that can list its manifest. An entry, once there, never changes."""

    @property
    def name(self) -> str:
        """Where the store is."""
        ...

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges of positions that count, in order."""
        ...

    def entry(self, first: int, last: int) -> Entry:
        """What the manifest says about a range."""
        ...


def training_facts(store: ListedStore) -> Callable[[], TrainingFacts]:
    """The shards of a training store, for `create_app`; each entry of the manifest is read once."""
    known: dict[tuple[int, int], Entry] = {}

    def facts() -> TrainingFacts:
        ranges = store.ranges()
        entries = [known.setdefault(one, known.get(one) or store.entry(*one)) for one in ranges]
        return TrainingFacts(
            location=store.name, position=ranges[-1][1] if ranges else 0, shards=tuple(_totals(entries))
        )

    return facts


def _totals(entries: list[Entry]) -> list[TrainingShards]:
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for file in (file for entry in entries for file in entry.files):
        total = totals[file.record_type, file.format]
        for index, amount in enumerate((1, file.rows, file.bytes)):
            total[index] += amount
    return [
        TrainingShards(record_type=str(kind), format=form, shards=shards, rows=rows, size_bytes=size_bytes)
        for (kind, form), (shards, rows, size_bytes) in sorted(totals.items())
    ]


def metrics_page(pool: ConnectionPool) -> Callable[[], tuple[str, bytes]] | None:
    """The page of `/metrics` for `create_app`; None where the extra `metrics` is not installed."""
    try:
        from workledger.metrics import prometheus  # noqa: PLC0415  an extra of its own
    except MissingExtra:
        return None

    def page() -> tuple[str, bytes]:
        with pool.connection() as connection:
            return prometheus.CONTENT_TYPE, prometheus.render(connection)

    return page
