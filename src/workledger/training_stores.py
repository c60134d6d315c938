"""The training stores of the settings: each opened by its URL, with a writer and a caretaker of its own.

Stores do not know of each other. What one of them cannot do, for want of room or of a network, the others do all
the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from workledger.errors import ConfigurationError, Unavailable
from workledger.postgres.connection import Connection
from workledger.settings import Settings
from workledger.training import urls
from workledger.training.shard_store import ShardStore, has_shards

if TYPE_CHECKING:
    from workledger.flows.up import Loop, Step
    from workledger.synapse.bus import Bus
    from workledger.training.lake import LakeStore, Maintained
    from workledger.training.records import RecordType
    from workledger.training.store import TrainingStore

# A command that only reads starts sooner without what lands.
# ruff: noqa: PLC0415

__all__ = ["KEEP_VERSIONS", "TrainingStores", "maintain_lake"]

#: A commit to a lake writes several files into each table: it is worth waiting for more rows.
_LAKE_FLUSH_S: Final = 30.0
#: Maintenance of a lake commits to its tables, and looks at all of their files: it is done so much more rarely.
_LAKE_RESTS: Final = 10
#: So long what a lake had is kept for those who read an older version.
KEEP_VERSIONS: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStores:
    """The stores of these settings. `database_url` is asked for only by a catalogue that is kept there."""

    settings: Settings
    connect: Callable[[], Connection]
    open_bus: Callable[[], Bus]
    database_url: Callable[[], str]

    @property
    def addresses(self) -> list[str]:
        """The URLs in the settings. Raises `ConfigurationError` when there is none, or one is named twice."""
        found = urls.split_urls(self.settings.training_url)
        places = [_place(url) for url in found]
        if not found or len(set(places)) < len(places):
            what = "names the same store twice" if found else "names no store"
            raise ConfigurationError(
                f"training_url = {self.settings.training_url!r} {what}",
                setting="WORKLEDGER_TRAINING_URL",
                value=self.settings.training_url,
            )
        return found

    def open(self, url: str) -> TrainingStore:
        """Open a store by its URL; nothing is made or read yet."""
        return urls.open_store(url, database_url=self.database_url, project=self.settings.project)

    def open_all(self) -> list[TrainingStore]:
        """Open every store."""
        return [self.open(url) for url in self.addresses]

    def open_shard_stores(self) -> list[ShardStore]:
        """Open the stores that are made of files."""
        return [urls.open_shard_store(url) for url in self.addresses if not urls.is_lake(url)]

    def land(self, connection: Connection, *, on_progress: Callable[[int, int], None] | None = None) -> int:
        """Bring every store up to the head of the log; gives the position that all have come to."""
        from workledger.flows.synapse_to_training import land_once

        reached: list[int] = []
        for store in self.open_all():
            with closing(self.open_bus()) as bus:
                reached.append(
                    land_once(
                        connection,
                        bus=bus,
                        store=store,
                        schema=self.settings.project,
                        shard_rows=self.settings.shard_rows,
                        on_progress=on_progress,
                    )
                )
        return min(reached)

    def loops(self) -> list[Loop]:
        """Give a loop that lands for each store, and one that keeps it in order."""
        from workledger.flows.up import Loop

        found = self.addresses
        names = {url: _place(url) if len(found) > 1 else "" for url in found}
        landing = [Loop(name="training", of=names[url], open=partial(self._landing, url), pause_s=0.0) for url in found]
        maintaining = [
            Loop(name="maintenance", of=names[url], open=partial(self._maintaining, url), pause_s=self._rest_s(url))
            for url in found
            if self.settings.maintain_s > 0
        ]
        return [*landing, *maintaining]

    @contextmanager
    def _landing(self, url: str, stop: threading.Event) -> Generator[Step]:
        from workledger.flows.synapse_to_training import Landing

        with closing(self.open_bus()) as bus:
            landing = Landing(
                connect=self.connect,
                bus=bus,
                store=self.open(url),
                schema=self.settings.project,
                shard_rows=self.settings.shard_rows,
                flush_s=self._flush_s(url),
            )

            def run() -> int:
                landing.run(stop)
                return 0

            yield run

    @contextmanager
    def _maintaining(self, url: str, _stop: threading.Event) -> Generator[Step]:
        store = self.open(url)

        def step() -> int:
            if has_shards(store):
                from workledger.training.compaction import compact

                compact(store, block_rows=self.settings.shard_rows)
            else:
                maintain_lake(cast("LakeStore", store), keep=KEEP_VERSIONS)
            return 0

        yield step

    def _rest_s(self, url: str) -> float:
        return self.settings.maintain_s * (_LAKE_RESTS if urls.is_lake(url) else 1)

    def _flush_s(self, url: str) -> float:
        default_s = max(self.settings.flush_s, _LAKE_FLUSH_S) if urls.is_lake(url) else self.settings.flush_s
        return urls.flush_s_of(url) or default_s


def maintain_lake(
    store: LakeStore, *, keep: timedelta, attempts: int = 5, on_table: Callable[[int], None] = lambda _done: None
) -> dict[RecordType, Maintained]:
    """Join small files of each table, and throw away what is older than `keep`.

    Whoever lands meanwhile is first: what it outran is tried again a few times, and else left for the next time.
    """
    from workledger.training.records import RecordType

    done: dict[RecordType, Maintained] = {}
    for number, record_type in enumerate(RecordType, start=1):
        for attempt in range(attempts):
            try:
                done[record_type] = store.table(record_type).maintain(keep=keep)
                break
            except Unavailable as error:
                if not error.details.get("outrun") or attempt + 1 == attempts:
                    raise
        on_table(number)
    return done


def _place(url: str) -> str:
    """Give a URL without its options, which may hold what is nobody else's business."""
    return url.partition("?")[0]
