"""A consumer group on the stream of a project, and beside it the pieces of the log that the stream has lost.

    workledger:{PROJECT}:events            what the publisher writes
    workledger:{PROJECT}:pieces:GROUP      ranges of positions that the group has to read from the log
    workledger:{PROJECT}:dead:GROUP        what could not be dealt with, after the last try

Redis 6.2 is enough. Each step is a script (`scripts/*.lua`): what is found missing is on record in the same instant,
so that no consumer's death makes it forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from typing import Any, Final, NamedTuple

from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable
from workledger.synapse.bus import BusEvent
from workledger.synapse.redis import stream_key

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise MissingExtra("subscribing needs the extra: pip install 'workledger[redis]'", extra="redis") from error

__all__ = ["Entry", "Group", "GroupGone", "Piece", "dead_key"]

_ANSWER_TIMEOUT_S: Final = 10.0
_FORGET_CONSUMERS_AFTER_MS: Final = 3_600_000


class Entry(NamedTuple):
    """An entry of the stream, and how often it was given to somebody."""

    entry_id: bytes
    event: BusEvent
    attempt: int


class Piece(NamedTuple):
    """Positions `first` to `last`, to be read from the log; `tries` were made before it was cut to this size."""

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


class Group:
    """One consumer's place in a group. Every method raises `SynapseUnavailable`, and `GroupGone` until it is made."""

    def __init__(self, url: str, *, project: str, name: str, consumer: str, max_block_s: float = 5.0) -> None:
        self._stream = stream_key(project)
        self._pieces = f"workledger:{{{project}}}:pieces:{name}"
        self._dead = dead_key(project, name)
        self._name = name
        self._consumer = consumer
        self._max_block_s = max_block_s
        try:
            self._client: redis.Redis = redis.Redis.from_url(
                url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=max_block_s + _ANSWER_TIMEOUT_S
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"this is not the URL of a Redis server: {error}", setting="WORKLEDGER_SYNAPSE_URL", value=None
            ) from error
        for command in ("XREAD", "XCLAIM"):  # what they answer is not looked at
            self._client.set_response_callback(command, _nothing)
        self._scripts = {name: self._client.register_script(_script(name)) for name in _SCRIPTS}

    def make(self, *, progress: int, head: int) -> bool:
        """Make the group unless it is there: it begins above `progress`, and what is up to `head` comes as a piece."""
        return bool(self._run("make_group", progress, head))

    def read(self, count: int, *, only_pieces: bool = False) -> tuple[list[Piece], list[Entry], int]:
        """Give the next pieces, which come before the next entries, and the position up to which entries were given."""
        what = "pieces" if only_pieces else "all"
        pieces, entries, top = self._run("read_group", self._consumer, count, what)
        return [_piece(*piece) for piece in pieces], [_entry(*entry) for entry in entries], int(top)

    def wait(self, *, after: int, timeout_s: float) -> None:
        """Return when an entry above a position has come, at the latest after `timeout_s`."""
        block_ms = max(int(min(timeout_s, self._max_block_s) * 1000), 1)
        self._ask("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", self._stream, f"{after}-0")

    def claim(self, count: int, *, idle_s: float) -> tuple[list[Piece], list[Entry]]:
        """Take over what others were given and have not dealt with for `idle_s`."""
        pieces, entries = self._run("claim_group", self._consumer, int(idle_s * 1000), count)
        return [_piece(*piece) for piece in pieces], [_entry(*entry) for entry in entries]

    def hold_entries(self, entry_ids: Sequence[bytes]) -> set[bytes]:
        """Say that these are still being dealt with; give those that are ours."""
        return set(self._run("hold_entries", self._consumer, *entry_ids, keys=(self._stream,)))

    def hold_piece(self, entry_id: bytes) -> bool:
        """Say that this piece is still being dealt with; give whether it is ours."""
        return bool(self._run("hold_entries", self._consumer, entry_id, keys=(self._pieces,)))

    def release(self, entries: Sequence[Entry], *, after_s: float) -> None:
        """Let others claim these at once."""
        ids = [entry.entry_id for entry in entries]
        idle = ("IDLE", int(after_s * 1000) + 1, "JUSTID")
        self._ask("XCLAIM", self._stream, self._name, self._consumer, 0, *ids, *idle)

    def acknowledge(self, entry_ids: Sequence[bytes]) -> None:
        """These entries are dealt with."""
        if entry_ids:
            self._ask("XACK", self._stream, self._name, *entry_ids)

    def replace(self, piece: Piece, parts: Sequence[tuple[int, int, int]] = ()) -> None:
        """This piece is dealt with, but for these parts: first and last position, and how often each was tried."""
        commands: list[tuple[Any, ...]] = [
            ("XADD", self._pieces, "*", "from", first, "to", last, "attempts", tries) for first, last, tries in parts
        ]
        commands += [("XACK", self._pieces, self._name, piece.entry_id), ("XDEL", self._pieces, piece.entry_id)]
        self._together(commands)

    def bury(self, event: BusEvent, *, attempts: int, reason: str) -> None:
        """Put an event with the dead letters."""
        fields = ("ce_type", event.event_type, "data", event.data, "attempts", attempts, "reason", reason)
        self._ask("XADD", self._dead, "*", "position", event.position, *fields)

    def progress(self) -> int:
        """Give a position up to which the group has dealt with everything."""
        return int(self._run("group_progress"))

    def tidy(self, *, leaving: bool = False) -> None:
        """Forget consumers that are long gone; this one too when it is leaving, unless it has something in hand."""
        self._run("leave_group", _FORGET_CONSUMERS_AFTER_MS, self._consumer if leaving else "")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _run(self, script: str, *arguments: Any, keys: tuple[str, ...] = ()) -> Any:
        def ask() -> Any:
            return self._scripts[script](keys=keys or (self._stream, self._pieces), args=(self._name, *arguments))

        return self._explained(ask)

    def _ask(self, *words: Any) -> Any:
        return self._explained(partial(self._client.execute_command, *words))

    def _together(self, commands: Sequence[tuple[Any, ...]]) -> None:
        pipeline = self._client.pipeline(transaction=True)
        for command in commands:
            pipeline.execute_command(*command)
        self._explained(pipeline.execute)

    def _explained(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except redis.RedisError as error:
            text = str(error) or type(error).__name__
            if any(sign in text for sign in ("NOGROUP", "no such key", "requires the key to exist")):
                raise GroupGone(f"the group {self._name} is not there: {text}") from error
            raise SynapseUnavailable(f"Redis cannot be used by the group {self._name}: {text}") from error


_SCRIPTS: Final = ("make_group", "read_group", "claim_group", "hold_entries", "group_progress", "leave_group")


@cache
def _script(name: str) -> str:
    return resources.files("workledger.synapse").joinpath("scripts", f"{name}.lua").read_text("utf-8")


def _nothing(_reply: Any, **_: Any) -> None:
    return None


def _fields(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entry(entry_id: bytes, flat: Sequence[bytes], attempt: int = 1) -> Entry:
    fields = _fields(flat)
    position = int(entry_id.partition(b"-")[0])
    return Entry(entry_id, BusEvent(position, fields[b"ce_type"].decode(), fields[b"data"]), attempt)


def _piece(entry_id: bytes, flat: Sequence[bytes], attempt: int = 1) -> Piece:
    fields = _fields(flat)
    return Piece(entry_id, int(fields[b"from"]), int(fields[b"to"]), attempt, int(fields.get(b"attempts", 0)))
