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
    from workledger.training.compaction import Compacted
    from workledger.training.lake import LakeStore, LakeTable, Maintained
    from workledger.training.records import RecordType
    from workledger.training.store import TrainingStore

# A command that only reads starts sooner without what lands.
# ruff: noqa: PLC0415

__all__ = ["KEEP_VERSIONS", "TrainingStores"]

#: A commit to a lake writes several files into each table: it is worth waiting for more rows.
_LAKE_FLUSH_S: Final = 30.0
#: Maintenance of a lake commits to its tables, and looks at all of their files: it is done so much more rarely.
_LAKE_RESTS: Final = 10
_ATTEMPTS: Final = 5
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

    def chosen_shard_stores(self, chosen: str | None = None) -> list[ShardStore]:
        """Open the stores that are made of files, or the one that is chosen by its URL if it is one of those."""
        return [urls.open_shard_store(url) for url in self._chosen(chosen) if not urls.is_lake(url)]

    def chosen_lakes(self, chosen: str | None = None) -> list[LakeStore]:
        """Open the stores that are tables of a lake, or the one that is chosen by its URL if it is one of those."""
        return [cast("LakeStore", self.open(url)) for url in self._chosen(chosen) if urls.is_lake(url)]

    def compact(
        self, store: ShardStore, *, whole: bool = False, on_joined: Callable[[int], None] = lambda _ranges: None
    ) -> Compacted:
        """Join small adjacent ranges of a store; `on_joined` hears how many have been joined."""
        from workledger.training.compaction import compact

        return compact(store, block_rows=self.settings.shard_rows, whole=whole, on_joined=on_joined)

    def maintain(
        self, store: LakeStore, *, keep: timedelta = KEEP_VERSIONS, on_table: Callable[[int], None] = lambda _done: None
    ) -> dict[RecordType, Maintained]:
        """Join small files of each table, and throw away what is older than `keep`.

        Whoever lands meanwhile is first: what it outran is tried again a few times, and else left for the next time.
        """
        from workledger.training.records import RecordType

        done: dict[RecordType, Maintained] = {}
        for number, record_type in enumerate(RecordType, start=1):
            done[record_type] = _maintained(store.table(record_type), keep)
            on_table(number)
        return done

    def rebuild(
        self, to: str, *, first: int = 1, like: str | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Make a new store from the log, with ranges that end where those of an old one end; gives its position."""
        from workledger.flows.log_to_synapse import bring_up_to_date
        from workledger.flows.rebuild_training import boundaries, copy_ranges, rebuild
        from workledger.training.shard_store import ranges_of

        old = next(iter(self.chosen_shard_stores(like)), None)
        new = self.open(urls.with_formats(to, [form.name for form in old.formats] if old else []))
        self._check_new(new, old, to, first)
        if old is not None and has_shards(new) and first > 1:
            copy_ranges(old, new, before=first)
        with self.connect() as connection:
            head = bring_up_to_date(connection, schema=self.settings.project)
            ranges = ranges_of(old) if old is not None and has_shards(new) else ()
            ends = boundaries(head, block_rows=self.settings.shard_rows, like=ranges)
            return rebuild(connection, new, ends=ends, on_progress=on_progress)

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
                self.compact(store)
            else:
                self.maintain(cast("LakeStore", store))
            return 0

        yield step

    def _chosen(self, chosen: str | None) -> list[str]:
        found = [url for url in self.addresses if chosen is None or _place(url) == _place(chosen)]
        if not found:
            known = ", ".join(_place(url) for url in self.addresses)
            raise ConfigurationError(
                f"{chosen!r} is none of the training stores: {known}", setting="WORKLEDGER_TRAINING_URL", value=chosen
            )
        return found

    def _check_new(self, new: TrainingStore, old: ShardStore | None, to: str, first: int) -> None:
        if new.name in {store.name for store in self.open_all()}:
            raise ConfigurationError(
                f"{_place(to)} is a training store that is in use; name a new place", setting="to", value=to
            )
        if first > 1 and (old is None or not has_shards(new)):
            raise ConfigurationError(
                "what lies before --from can be copied only from files to files; leave it out",
                setting="from",
                value=first,
            )

    def _rest_s(self, url: str) -> float:
        return self.settings.maintain_s * (_LAKE_RESTS if urls.is_lake(url) else 1)

    def _flush_s(self, url: str) -> float:
        default_s = max(self.settings.flush_s, _LAKE_FLUSH_S) if urls.is_lake(url) else self.settings.flush_s
        return urls.flush_s_of(url) or default_s


def _maintained(table: LakeTable, keep: timedelta) -> Maintained:
    for _ in range(_ATTEMPTS - 1):
        try:
            return table.maintain(keep=keep)
        except Unavailable as error:
            if not error.details.get("outrun"):
                raise
    return table.maintain(keep=keep)


def _place(url: str) -> str:
    """Give a URL without its options, which may hold what is nobody else's business."""
    return url.partition("?")[0]
