"""What pages show that is not in the database's tables: the training store's manifest, and the metrics page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from workledger.errors import MissingExtra
from workledger.postgres.pool import ConnectionPool
from workledger.server.views import TrainingFacts, TrainingShards
from workledger.training.manifest import Entry
from workledger.training.shard_store import ShardStore, ranges_of

__all__ = ["metrics_page", "training_facts"]


def training_facts(stores: Sequence[ShardStore]) -> Callable[[], TrainingFacts | None]:
    """The shards of the training stores, for `create_app`; each entry of a manifest is read once.

    Of several stores, the position is that which all have come to. None where there is no store that is made of files.
    """
    known: list[dict[tuple[int, int], Entry]] = [{} for _ in stores]

    def facts() -> TrainingFacts | None:
        entries: list[Entry] = []
        positions: list[int] = []
        for store, read in zip(stores, known, strict=True):
            ranges = ranges_of(store)
            positions.append(ranges[-1][1] if ranges else 0)
            entries += [read.setdefault(one, read.get(one) or store.entry(*one)) for one in ranges]
        if not stores:
            return None
        location = " ".join(store.name for store in stores)
        return TrainingFacts(location=location, position=min(positions), shards=tuple(_totals(entries)))

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
