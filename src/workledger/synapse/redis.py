"""The bus on Redis Streams: any Redis from 6.2 on, and Valkey.

One stream a project, `workledger:{<project>}:events`. An entry's id is `<position>-0`, so that Redis itself refuses
a repetition, and the stream is its own cursor. Its fields follow the binary mode of the Kafka binding of CloudEvents:
`ce_specversion`, `ce_id`, `ce_source`, `ce_type`, `ce_subject`, `ce_time`, `ce_partitionkey`, `content-type`, `data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable, WorkledgerError
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise MissingExtra("a Redis bus needs the extra: pip install 'workledger[redis]'", extra="redis") from error

__all__ = ["RedisBus", "stream_key"]

T = TypeVar("T")

_PIPELINE_EVENTS: Final = 1000
_PIPELINE_BYTES: Final = 4 * 1024 * 1024
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 10.0


def stream_key(project: str) -> str:
    """Give the name of a project's stream. The braces keep everything of a project in one slot of a cluster."""
    return f"workledger:{{{project}}}:events"


class RedisBus:
    """A stream in one Redis or Valkey server; see `Bus` for what it promises."""

    def __init__(self, url: str, *, project: str, max_block_s: float = 10.0) -> None:
        self.key = stream_key(project)
        self._source = f"urn:workledger:{project}"
        self._where = _without_password(url)
        self._max_block_s = max_block_s
        self._client = _client(url, answer_within_s=max_block_s + _ANSWER_TIMEOUT_S)

    def last_position(self) -> int:
        """Give the last id the stream ever gave, whether or not its entry is still there."""
        try:
            reply = self._command("XINFO STREAM", self.key)
        except _NoStream:
            return 0
        return _position(dict(zip(reply[::2], reply[1::2], strict=True))[b"last-generated-id"])

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Add events, a pipeline at a time. Redis refuses an id that is not above its last: then it has the event."""
        for batch in _pipelines(events):
            for reply in self._ask(partial(self._send, batch)):
                if isinstance(reply, Exception) and "equal or smaller" not in str(reply):
                    raise self._translated(reply) from reply

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Give the entries with ids above `<after>-0`."""
        block_ms = int(min(block_s, self._max_block_s) * 1000)
        blocking = ("BLOCK", block_ms) if block_ms > 0 else ()
        command = ("XREAD", "COUNT", limit, *blocking, "STREAMS", self.key, f"{after}-0")
        reply = self._command(*command)
        return [_event(entry_id, fields) for entry_id, fields in reply[0][1]] if reply else []

    def trim(self, *, below: int) -> None:
        """Remove the entries with ids under `<below>-0`."""
        self._command("XTRIM", self.key, "MINID", f"{below}-0")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _command(self, *words: str | int) -> Any:
        def send() -> Any:
            return self._client.execute_command(*words)

        return self._ask(send)

    def _send(self, events: Sequence[BusEvent]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for position, _, data in events:
            fields: list[str | bytes] = []
            for name, value in attributes(data, source=self._source):
                fields += (f"ce_{name}", value)
            pipeline.execute_command(
                "XADD", self.key, f"{position}-0", *fields, "content-type", "application/json", "data", data
            )
        return pipeline.execute(raise_on_error=False)

    def _ask(self, command: Callable[[], T]) -> T:
        """Run a command; once more when the connection turns out to be dead, because every command may be repeated."""
        try:
            try:
                return command()
            except redis.TimeoutError:
                raise
            except redis.ConnectionError:
                return command()
        except redis.RedisError as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> WorkledgerError:
        text = str(error) or type(error).__name__
        if "no such key" in text:
            return _NoStream(text)
        if "WRONGTYPE" in text:
            return ConfigurationError(
                f"the key {self.key} in Redis at {self._where} is not a stream; delete it, or choose another project",
                setting="WORKLEDGER_PROJECT",
                value=self.key,
            )
        if "OOM" in text or "maxmemory" in text:
            return SynapseUnavailable(
                f"Redis at {self._where} is full: {text}. Give it more memory; the log keeps everything meanwhile"
            )
        return SynapseUnavailable(
            f"Redis at {self._where} cannot be used: {text}. Check WORKLEDGER_SYNAPSE_URL, "
            "or set it to postgres: to do without a bus"
        )


class _NoStream(SynapseUnavailable):
    """Nothing was published since the server was last emptied."""


def _client(url: str, *, answer_within_s: float) -> redis.Redis:
    # The client's own retries would send an XADD twice without a word, and make one blocked read out of eleven.
    try:
        client = redis.Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=answer_within_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{_without_password(url)} is not the URL of a Redis server: {error}",
            setting="WORKLEDGER_SYNAPSE_URL",
            value=_without_password(url),
        ) from error
    # What arrives is taken as it is: the shapes that callbacks make differ between versions of the client.
    for name in ("XREAD", "XINFO STREAM"):
        client.set_response_callback(name, _as_it_is)
    return client


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def _pipelines(events: Sequence[BusEvent]) -> Iterator[Sequence[BusEvent]]:
    start, size_bytes = 0, 0
    for n, event in enumerate(events):
        if n > start and (n - start >= _PIPELINE_EVENTS or size_bytes + len(event.data) > _PIPELINE_BYTES):
            yield events[start:n]
            start, size_bytes = n, 0
        size_bytes += len(event.data)
    if start < len(events):
        yield events[start:]


def _event(entry_id: bytes, fields: list[bytes]) -> BusEvent:
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


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}"))
