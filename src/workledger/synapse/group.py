"""A consumer group on the streams of a project, and beside each the pieces of the log that the stream has lost.

    workledger:{PROJECT}:events            what the publisher writes; {PROJECT:0} … where there are several streams
    workledger:{PROJECT}:pieces:GROUP      ranges of positions that the group has to read from the log, for each stream
    workledger:{PROJECT}:dead:GROUP        what could not be dealt with, after the last try

Redis 6.2 is enough. Each step is a script (`scripts/*.lua`): what is found missing is on record in the same instant,
so that no consumer's death makes it forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from workledger.errors import SynapseUnavailable
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes, key_of
from workledger.synapse.redis import stream_key
from workledger.synapse.redis_partitions import Published, partition_of, published, published_key
from workledger.synapse.redis_servers import Command, Script, Servers, target_of

__all__ = ["Entry", "Group", "GroupGone", "Piece", "dead_key"]

_FORGET_CONSUMERS_AFTER_MS: Final = 3_600_000
_NOTHING: Final = Published(0, 0, {})


class Entry(NamedTuple):
    """An entry of a stream, and how often it was given to somebody."""

    stream: int
    entry_id: bytes
    event: BusEvent
    attempt: int


class Piece(NamedTuple):
    """A stream's positions in `first` to `last`, to be read from the log; `tries` were made before it was cut so."""

    stream: int
    entry_id: bytes
    first: int
    last: int
    attempt: int
    tries: int


class GroupGone(SynapseUnavailable):
    """The group is not there: it never was, or the server was emptied."""


def dead_key(project: str, group: str) -> str:
    """Give the name of the stream that holds what a group could not deal with."""
    return f"workledger:{{{project}}}:dead:{group}"


class _Place(NamedTuple):
    """The keys of one stream."""

    stream: str
    pieces: str


class Group:
    """One consumer's place in a group. Every method raises `SynapseUnavailable`, and `GroupGone` until it is made."""

    def __init__(self, url: str, *, project: str, name: str, consumer: str, max_block_s: float = 5.0) -> None:
        target = target_of(url)
        self._servers = Servers(target, max_block_s=max_block_s)
        numbers = [None] if target.partitions == 1 else range(target.partitions)
        streams = [stream_key(project, number) for number in numbers]
        self._places = [_Place(key, f"{key.removesuffix('events')}pieces:{name}") for key in streams]
        self._dead = dead_key(project, name)
        self._project = project
        self._name = name
        self._consumer = consumer
        self._max_block_s = max_block_s
        self._next = 0

    def make(self, *, progress: int, head: int) -> bool:
        """Make the group unless it is there: it begins above `progress`, and what is up to `head` comes as pieces."""
        made = [self._run("make_group", number, progress, head) for number in range(len(self._places))]
        return any(made)

    def read(self, count: int, *, only_pieces: bool = False) -> tuple[list[Piece], list[Entry], int]:
        """Give the next pieces, which come before the next entries, and the position up to which entries were given.

        Where there are several streams it is the turn of one after the other.
        """
        what, several, top = ("pieces" if only_pieces else "all"), len(self._places) > 1, 0
        known = published(self._servers, self._project) if several and not only_pieces else _NOTHING
        for _ in self._places:
            number, self._next = self._next, (self._next + 1) % len(self._places)
            pieces, entries, top = self._run("read_group", number, self._consumer, count, what, known.since)
            if pieces or entries:
                if only_pieces:
                    self._next = number
                return [_piece(number, *each) for each in pieces], [_entry(number, *each) for each in entries], int(top)
        return [], [], known.position if several else int(top)

    def wait(self, *, after: int, timeout_s: float) -> None:
        """Return when an entry above a position has come, at the latest after `timeout_s`."""
        key = self._places[0].stream if len(self._places) == 1 else published_key(self._project)
        block_ms = max(int(min(timeout_s, self._max_block_s) * 1000), 1)
        self._ask(key, ("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", key, f"{after}-0"))

    def claim(self, count: int, *, idle_s: float) -> tuple[list[Piece], list[Entry]]:
        """Take over what others were given and have not dealt with for `idle_s`."""
        pieces: list[Piece] = []
        entries: list[Entry] = []
        for number in range(len(self._places)):
            flat = self._run("claim_group", number, self._consumer, int(idle_s * 1000), count)
            pieces += [_piece(number, *each) for each in flat[0]]
            entries += [_entry(number, *each) for each in flat[1]]
        return pieces, entries

    def hold_entries(self, entries: Sequence[Entry]) -> list[Entry]:
        """Say that these are still being dealt with; give those that are ours."""
        held: set[tuple[int, bytes]] = set()
        for number, ids in _by_stream(entries).items():
            held |= {(number, entry_id) for entry_id in self._hold(number, self._places[number].stream, ids)}
        return [entry for entry in entries if entry[:2] in held]

    def hold_piece(self, piece: Piece) -> bool:
        """Say that this piece is still being dealt with; give whether it is ours."""
        return bool(self._hold(piece.stream, self._places[piece.stream].pieces, [piece.entry_id]))

    def release(self, entries: Sequence[Entry], *, after_s: float) -> None:
        """Let others claim these at once."""
        idle = ("IDLE", int(after_s * 1000) + 1, "JUSTID")
        for number, ids in _by_stream(entries).items():
            stream = self._places[number].stream
            self._ask(stream, ("XCLAIM", stream, self._name, self._consumer, 0, *ids, *idle))

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """These entries are dealt with."""
        for number, ids in _by_stream(entries).items():
            stream = self._places[number].stream
            self._ask(stream, ("XACK", stream, self._name, *ids))

    def replace(self, piece: Piece, parts: Sequence[tuple[int, int, int]] = ()) -> None:
        """This piece is dealt with, but for these parts: first and last position, and how often each was tried."""
        key = self._places[piece.stream].pieces
        commands: list[Command] = [
            ("XADD", key, "*", "from", first, "to", last, "attempts", tries) for first, last, tries in parts
        ]
        commands += [("XACK", key, self._name, piece.entry_id), ("XDEL", key, piece.entry_id)]
        self._ask(key, ("MULTI",), *commands, ("EXEC",))

    def has(self, piece: Piece, event: BusEvent) -> bool:
        """Say whether an event of the log is one of the stream that a piece is of."""
        count = len(self._places)
        return count == 1 or partition_of(key_of(attributes(event.data, source="")), count) == piece.stream

    def bury(self, event: BusEvent, *, attempts: int, reason: str) -> None:
        """Put an event with the dead letters."""
        fields = ("ce_type", event.event_type, "data", event.data, "attempts", attempts, "reason", reason)
        self._ask(self._dead, ("XADD", self._dead, "*", "position", event.position, *fields))

    def progress(self) -> int:
        """Give a position up to which the group has dealt with everything."""
        known = published(self._servers, self._project) if len(self._places) > 1 else _NOTHING
        reached = [
            int(self._run("group_progress", number, known.position, max(known.tops.get(number, 0), known.since)))
            for number in range(len(self._places))
        ]
        return min(reached)

    def tidy(self, *, leaving: bool = False) -> None:
        """Forget consumers that are long gone; this one too when it is leaving, unless it has something in hand."""
        for number in range(len(self._places)):
            self._run("leave_group", number, _FORGET_CONSUMERS_AFTER_MS, self._consumer if leaving else "")

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    def _hold(self, number: int, key: str, ids: Sequence[bytes]) -> list[bytes]:
        return self._run("hold_entries", number, self._consumer, *ids, keys=(key,))

    def _run(self, script: str, number: int, *arguments: str | int | bytes, keys: Sequence[str] = ()) -> Any:
        answer = _script(script).ask(self._servers, keys or self._places[number], self._name, *arguments)
        return self._checked(answer, self._places[number].stream)

    def _ask(self, key: str, *commands: Command) -> Any:
        for answer in self._servers.ask(key, *commands):
            self._checked(answer, key)

    def _checked(self, answer: Any, key: str) -> Any:
        text = str(answer) if isinstance(answer, Exception) else ""
        if any(sign in text for sign in ("NOGROUP", "no such key", "requires the key to exist")):
            raise GroupGone(f"the group {self._name} is not there: {text}") from answer
        return self._servers.checked(answer, key=key)


@cache
def _script(name: str) -> Script:
    return Script(resources.files("workledger.synapse").joinpath("scripts", f"{name}.lua").read_text("utf-8"))


def _by_stream(entries: Sequence[Entry]) -> dict[int, list[bytes]]:
    found: defaultdict[int, list[bytes]] = defaultdict(list)
    for entry in entries:
        found[entry.stream].append(entry.entry_id)
    return found


def _fields(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entry(stream: int, entry_id: bytes, flat: Sequence[bytes], attempt: int = 1) -> Entry:
    fields = _fields(flat)
    position = int(entry_id.partition(b"-")[0])
    return Entry(stream, entry_id, BusEvent(position, fields[b"ce_type"].decode(), fields[b"data"]), attempt)


def _piece(stream: int, entry_id: bytes, flat: Sequence[bytes], attempt: int = 1) -> Piece:
    fields = _fields(flat)
    tries = int(fields.get(b"attempts", 0))
    return Piece(stream, entry_id, int(fields[b"from"]), int(fields[b"to"]), attempt, tries)
