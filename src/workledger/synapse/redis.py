"""The bus on Redis Streams: any Redis from 6.2 on, and Valkey; one server, a master under Sentinels, or a cluster.

One stream a project, `workledger:{<project>}:events`. An entry's id is `<position>-0`, so that Redis itself refuses
a repetition, and the stream is its own cursor. Its fields follow the binary mode of the Kafka binding of CloudEvents:
`ce_specversion`, `ce_id`, `ce_source`, `ce_type`, `ce_subject`, `ce_time`, `ce_partitionkey`, `content-type`, `data`.
`redis_partitions` has the bus of several streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from workledger.errors import ConfigurationError
from workledger.synapse.batches import batches
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes
from workledger.synapse.redis_servers import Command, Servers, target_of

__all__ = [
    "PIPELINE_BYTES",
    "PIPELINE_EVENTS",
    "RedisBus",
    "check_added",
    "event_of",
    "fields_of",
    "last_id",
    "stream_key",
]

PIPELINE_EVENTS: Final = 1000
PIPELINE_BYTES: Final = 4 * 1024 * 1024


def stream_key(project: str, partition: int | None = None) -> str:
    """Give the name of a project's stream, or of one of its streams.

    The braces keep what belongs to a stream in one slot of a cluster, and several streams in several.
    """
    tag = project if partition is None else f"{project}:{partition}"
    return f"workledger:{{{tag}}}:events"


class RedisBus:
    """A stream in Redis or Valkey; see `Bus` for what it promises."""

    def __init__(self, url: str, *, project: str, max_block_s: float = 10.0) -> None:
        self.key = stream_key(project)
        self._source = f"urn:workledger:{project}"
        self._max_block_s = max_block_s
        self._servers = Servers(target_of(url), max_block_s=max_block_s)

    def last_position(self) -> int:
        """Give the last id the stream ever gave, whether or not its entry is still there."""
        return last_id(self._servers, [self.key])[0]

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Add events, a pipeline at a time. Redis refuses an id that is not above its last: then it has the event."""
        for batch in batches(events, limit=PIPELINE_EVENTS, limit_bytes=PIPELINE_BYTES):
            commands = [self._command(event) for event in batch]
            check_added(self._servers, [(self.key, command) for command in commands])

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Give the entries with ids above `<after>-0`."""
        block_ms = int(min(block_s, self._max_block_s) * 1000)
        blocking = ("BLOCK", block_ms) if block_ms > 0 else ()
        reply = self._servers.one(self.key, "XREAD", "COUNT", limit, *blocking, "STREAMS", self.key, f"{after}-0")
        return [event_of(entry_id, fields) for entry_id, fields in reply[0][1]] if reply else []

    def trim(self, *, below: int) -> None:
        """Remove the entries with ids under `<below>-0`."""
        self._servers.one(self.key, "XTRIM", self.key, "MINID", f"{below}-0")

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    def _command(self, event: BusEvent) -> Command:
        fields = fields_of(attributes(event.data, source=self._source))
        return ("XADD", self.key, f"{event.position}-0", *fields, "data", event.data)


def fields_of(found: Sequence[tuple[str, str]]) -> list[str]:
    """Give the fields of an entry that say what is in `data`."""
    fields = [word for name, value in found for word in (f"ce_{name}", value)]
    return [*fields, "content-type", "application/json"]


def check_added(servers: Servers, requests: Sequence[tuple[str, Command]]) -> None:
    """Add entries; raises what keeps one from being added, unless it is there."""
    for (key, _), answer in zip(requests, servers.ask_each(requests), strict=True):
        if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
            raise servers.translated(answer, key=key) from answer


def last_id(servers: Servers, keys: Sequence[str]) -> list[int]:
    """Give the position of the last id that each of these streams ever gave; 0 where there is no stream."""
    found: list[int] = []
    for key, reply in zip(keys, servers.ask_each([(key, ("XINFO STREAM", key)) for key in keys]), strict=True):
        if isinstance(reply, Exception):
            if "no such key" not in str(reply):
                raise servers.translated(reply, key=key) from reply
            found.append(0)
        else:
            found.append(_position(dict(zip(reply[::2], reply[1::2], strict=True))[b"last-generated-id"]))
    return found


def event_of(entry_id: bytes, fields: Sequence[bytes]) -> BusEvent:
    """Give the event in an entry; raises `ConfigurationError` when somebody else wrote it."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return BusEvent(_position(entry_id), found[b"ce_type"].decode(), found[b"data"])
    except KeyError as error:
        raise ConfigurationError(
            f"entry {entry_id.decode()} of the stream has no field {error}: somebody else writes to it",
            setting="WORKLEDGER_PROJECT",
            value=entry_id.decode(),
        ) from error


def _position(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
