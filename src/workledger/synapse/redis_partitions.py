"""The bus on several Redis Streams: an event goes to one of N by the CRC-32 of its workflow's id, or its entity's.

    workledger:{PROJECT:0}:events …   the streams; an entry's id is `<position>-0`, as on the bus of one stream
    workledger:{PROJECT}:published    one entry, whose id says up to where everything is in its stream
    workledger:{PROJECT}:tops         the last position that each stream got, and `since`: see below

Each stream is in a slot of its own, so that a cluster spreads them over its nodes. An entry says, in its field
`previous`, a position below its own between which and itself the log has no event for this stream: so whoever follows
a stream sees what it has lost. A publisher knows that of the events it has passed on itself; at its start it goes by
`tops`, where every event after `since` is accounted for.

Nothing is published in one step over several streams. So a publisher begins again behind the last position up to
which all of it is there, and a reader gives nothing above that. What a stream has lost though it had it (its node
failed over, or was emptied) shows in `tops`, and is published again.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from importlib import resources
from typing import Final, NamedTuple

from workledger.errors import ConfigurationError
from workledger.synapse.batches import batches
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes, key_of
from workledger.synapse.redis import (
    PIPELINE_BYTES,
    PIPELINE_EVENTS,
    check_added,
    event_of,
    fields_of,
    last_id,
    stream_key,
)
from workledger.synapse.redis_servers import Command, Script, Servers, target_of

__all__ = ["PartitionedRedisBus", "Published", "partition_of", "published", "published_key"]

_MIN_PAGE: Final = 16
_SINCE: Final = b"since"
_PUBLISHED: Final = Script(
    resources.files("workledger.synapse").joinpath("scripts", "published.lua").read_text("utf-8")
)


def partition_of(key: str, partitions: int) -> int:
    """Give the number of the stream that has the events with this key."""
    return zlib.crc32(key.encode()) % partitions


def published_key(project: str) -> str:
    """Give the name of the stream that says how far the others are."""
    return f"workledger:{{{project}}}:published"


class Published(NamedTuple):
    """How far the streams are: all have what they should up to a position, and the last that each got."""

    position: int
    since: int
    tops: dict[int, int]


def published(servers: Servers, project: str) -> Published:
    """Say how far the streams are; raises `ConfigurationError` when there are not as many as the URL says."""
    key = published_key(project)
    entries, flat = servers.ask(key, ("XREVRANGE", key, "+", "-", "COUNT", 1), ("HGETALL", _tops_key(project)))
    position = 0
    for entry_id, fields in servers.checked(entries, key=key):
        position, partitions = int(entry_id.partition(b"-")[0]), int(fields[1])
        if partitions != servers.target.partitions:
            raise ConfigurationError(
                f"Redis at {servers.place} has the log in {partitions} streams, and the URL says "
                f"partitions={servers.target.partitions}: set it to {partitions}, or delete the keys that begin with "
                f"'workledger:{{{project}' to have them made anew",
                setting="WORKLEDGER_SYNAPSE_URL",
                value=servers.target.partitions,
            )
    flat = servers.checked(flat, key=_tops_key(project))
    tops = {name: int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    since = tops.pop(_SINCE, 0)
    return Published(position, since, {int(number): top for number, top in tops.items()})


class PartitionedRedisBus:
    """Several streams in Redis or Valkey, read as one; see `Bus` for what it promises."""

    def __init__(self, url: str, *, project: str, max_block_s: float = 10.0) -> None:
        target = target_of(url)
        self._project = project
        self._source = f"urn:workledger:{project}"
        self._max_block_s = max_block_s
        self._servers = Servers(target, max_block_s=max_block_s)
        self._keys = [stream_key(project, number) for number in range(target.partitions)]
        #: Up to where this publisher has passed on everything since it began, and the last of each stream in that.
        self._upto: int | None = None
        self._previous: dict[int, int] = {}
        self._since = 0
        #: The streams that were found to have lost their ends, and up to where everything had been published then.
        self._lost: set[int] = set()
        self._lost_upto = 0
        self._pages = _Pages(self._servers, self._keys)

    def last_position(self) -> int:
        """Give the position up to which every stream has had all of its events, and has not lost its last ones."""
        known = published(self._servers, self._project)
        lasts = dict(enumerate(last_id(self._servers, self._keys)))
        self._lost = {number for number, top in known.tops.items() if lasts[number] < top}
        self._lost_upto = known.position if self._lost else 0
        return min([known.position, *(lasts[number] for number in self._lost)])

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Add events, a pipeline to each server at a time; then say that they are there."""
        for batch in batches(events, limit=PIPELINE_EVENTS, limit_bytes=PIPELINE_BYTES):
            if self._upto is None or batch[0].position != self._upto + 1:
                batch = self._begin(batch)  # noqa: PLW2901  what another has published meanwhile
            if not batch:
                continue
            self._upto, lost = None, self._lost
            tops: dict[int, int] = {}
            requests = [self._request(event, tops) for event in batch]
            check_added(self._servers, requests)
            arguments = [word for number, top in tops.items() for word in (number, top)]
            where = (published_key(self._project), _tops_key(self._project))
            last, partitions = batch[-1].position, len(self._keys)
            # Whether what was lost is published again to its end, nobody knows yet: up to there a stream may lack some.
            since = max(self._since, self._lost_upto)
            told = _PUBLISHED.ask(self._servers, where, last, partitions, since, len(lost), *lost, *arguments)
            self._servers.checked(told, key=where[0])
            self._upto, self._lost, self._lost_upto = last, set(), 0

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Give events above `after`, merged from the streams, as far as all of it is there."""
        deadline_s = time.monotonic() + block_s
        self._pages.go_to(after)
        while not (events := self._pages.take(limit)):
            upto = published(self._servers, self._project).position
            if self._pages.fetch(upto=upto, limit=limit):
                continue
            left_s = min(deadline_s - time.monotonic(), self._max_block_s)
            if left_s <= 0:
                break
            self._wait(after=max(upto, after), timeout_s=left_s)
        return events

    def trim(self, *, below: int) -> None:
        """Remove the entries with ids under `<below>-0` from every stream."""
        requests: list[tuple[str, Command]] = [(key, ("XTRIM", key, "MINID", f"{below}-0")) for key in self._keys]
        for key, answer in zip(self._keys, self._servers.ask_each(requests), strict=True):
            self._servers.checked(answer, key=key)

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    def _begin(self, batch: Sequence[BusEvent]) -> Sequence[BusEvent]:
        """Find out what is known of the events before these; give those of these that nobody has passed on."""
        known, self._upto = published(self._servers, self._project), None
        if not self._lost:
            batch = [event for event in batch if event.position > known.position]
        after = batch[0].position - 1 if batch else known.position
        self._previous, self._since = {}, after  # the streams may lack any of what is left out
        # The one key may be lost without the other: then what is known of the streams is ahead of what is published.
        is_sound = max([known.since, *known.tops.values()]) <= known.position
        if known.position == after and is_sound and not self._lost:
            self._previous, self._since = known.tops, known.since
        return batch

    def _request(self, event: BusEvent, tops: dict[int, int]) -> tuple[str, Command]:
        found = attributes(event.data, source=self._source)
        number = partition_of(key_of(found), len(self._keys))
        previous = max(self._previous.get(number, 0), self._since)
        self._previous[number] = tops[number] = event.position
        key = self._keys[number]
        fields = (*fields_of(found), "previous", previous, "data", event.data)
        return key, ("XADD", key, f"{event.position}-0", *fields)

    def _wait(self, *, after: int, timeout_s: float) -> None:
        key, block_ms = published_key(self._project), max(int(timeout_s * 1000), 1)
        self._servers.one(key, "XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", key, f"{after}-0")


class _Pages:
    """What was read from the streams and is not given yet."""

    def __init__(self, servers: Servers, keys: Sequence[str]) -> None:
        self._servers = servers
        self._keys = keys
        self._after = -1
        #: For each stream, how far it was read, and what is read of it and not ready; and what is ready, in order.
        self._cursors: list[int] = []
        self._waiting: list[list[BusEvent]] = []
        self._ready: list[BusEvent] = []

    def go_to(self, after: int) -> None:
        """Begin after a position; go on when that is where the last events ended."""
        if after != self._after:
            self._after, self._ready = after, []
            self._cursors, self._waiting = [after] * len(self._keys), [[] for _ in self._keys]

    def take(self, limit: int) -> list[BusEvent]:
        """Give what is ready."""
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        if taken:
            self._after = taken[-1].position
        return taken

    def fetch(self, *, upto: int, limit: int) -> bool:
        """Read on, as far as `upto` when every stream has all of its events to there; say whether anything is ready.

        A stream that gave a full page may have more: what the others have above its last is not ready.
        """
        if upto <= self._after:
            return False
        page = max(2 * limit // len(self._keys), _MIN_PAGE)
        wanted = [number for number, waiting in enumerate(self._waiting) if len(waiting) < page]
        found = self._read(wanted, page)
        horizon = min([upto, *(self._cursors[n] for n in range(len(self._keys)) if found.get(n, page) >= page)])
        for number, waiting in enumerate(self._waiting):
            # What is not above what was given already is there anew: it was lost before.
            self._ready += [event for event in waiting if self._after < event.position <= horizon]
            self._waiting[number] = [event for event in waiting if event.position > horizon]
        self._ready.sort()
        return bool(self._ready)

    def _read(self, numbers: Sequence[int], page: int) -> dict[int, int]:
        """Read a page of each of these streams; give how many events came from each."""
        requests: list[tuple[str, Command]] = [
            (self._keys[n], ("XREAD", "COUNT", page, "STREAMS", self._keys[n], f"{self._cursors[n]}-0"))
            for n in numbers
        ]
        found: dict[int, int] = {}
        for number, reply in zip(numbers, self._servers.ask_each(requests), strict=True):
            self._servers.checked(reply, key=self._keys[number])
            events = [event_of(entry_id, fields) for entry_id, fields in reply[0][1]] if reply else []
            if events:
                self._waiting[number] += events
                self._cursors[number] = events[-1].position
            found[number] = len(events)
        return found


def _tops_key(project: str) -> str:
    return f"workledger:{{{project}}}:tops"
