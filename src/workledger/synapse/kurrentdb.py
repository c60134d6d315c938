"""The bus on KurrentDB (EventStoreDB): one stream a project, `workledger-<project>`.

An event keeps its id, and is appended with the revision that is expected: KurrentDB itself refuses a second publisher
and a repetition. Positions ascend in the stream, so the revision of a position is found from the last record.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

import msgspec

from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable
from workledger.synapse.batches import batches
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes

try:
    from kurrentdbclient import KurrentDBClient, NewEvent, RecordedEvent, StreamState
    from kurrentdbclient import exceptions as refusals
except ImportError as error:
    raise MissingExtra(
        "a KurrentDB bus needs the extra: pip install 'workledger[kurrentdb]'", extra="kurrentdb"
    ) from error

__all__ = ["KurrentBus"]

_SETTING: Final = "WORKLEDGER_SYNAPSE_URL"
_ANSWER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_TRIM_EVERY_S: Final = 20.0
_ATTEMPTS: Final = 8
#: KurrentDB takes 1 MiB in one append unless it is told otherwise.
_APPEND_BYTES: Final = 512 * 1024
_APPEND_EVENTS: Final = 500
_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, frozen=True, gc=False):
    position: int


class _Place(NamedTuple):
    """The revision at which a position stands in the stream."""

    revision: int
    position: int


_decode = msgspec.json.Decoder(_Line).decode


class KurrentBus:
    """A stream in one KurrentDB server or cluster; see `Bus` for what it promises. Written to KurrentDB's contract."""

    def __init__(
        self, url: str, *, project: str, stream: str | None = None, trim_every_s: float = _TRIM_EVERY_S
    ) -> None:
        self.stream = stream or f"workledger-{project}"
        self._url = url
        self._source = f"urn:workledger:{project}"
        self._client: KurrentDBClient | None = None
        #: Where the next read goes on, when it asks for what comes after this position.
        self._next = _Place(revision=0, position=0)
        self._trim_every_s = trim_every_s
        self._trimmed_at_s = float("-inf")

    def last_position(self) -> int:
        """Give the position of the last event of the stream."""
        last = self._last()
        return last.position if last else 0

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Append what is not there; when another publisher was faster, look again at what is left."""
        for _ in range(_ATTEMPTS):
            last = self._last()
            missing = [event for event in events if last is None or event.position > last.position]
            with suppress(refusals.WrongCurrentVersionError), self._explained() as client:
                revision = last.revision if last else -1
                for batch in batches(missing, limit=_APPEND_EVENTS, limit_bytes=_APPEND_BYTES):
                    client.append_to_stream(
                        self.stream,
                        events=[self._new_event(event) for event in batch],
                        current_version=revision if revision >= 0 else StreamState.NO_STREAM,
                        timeout=_ANSWER_TIMEOUT_S,
                    )
                    revision += len(batch)
                return
        raise SynapseUnavailable(f"other publishers keep appending to the stream {self.stream}; try again")

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Read on from the revision where the last read ended, or look for the one to begin at."""
        deadline_s = time.monotonic() + block_s
        while not (events := self._read(after, limit)):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(left_s, _POLL_S))
        return events

    def trim(self, *, below: int) -> None:
        """Have the server forget what is under `below`, but the last event, which knows where the stream is.

        Does nothing when it did so a moment ago.
        """
        last = self._last()
        if last is None or time.monotonic() - self._trimmed_at_s < self._trim_every_s:
            return
        first_kept = min(self._revision_after(below - 1, last), last.revision)
        with self._explained() as client:
            metadata, version = client.get_stream_metadata(self.stream, timeout=_ANSWER_TIMEOUT_S)
            if metadata.get("$tb", 0) < first_kept:
                client.set_stream_metadata(
                    self.stream,
                    metadata={**metadata, "$tb": first_kept},
                    current_version=version,
                    timeout=_ANSWER_TIMEOUT_S,
                )
        self._trimmed_at_s = time.monotonic()

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- the stream -------------------------------------------------------------------------------------------

    def _read(self, after: int, limit: int) -> list[BusEvent]:
        last = self._last()
        if last is None or last.position <= after:
            return []
        revision = self._next.revision if self._next.position == after else self._revision_after(after, last)
        records = self._records(revision, limit)
        if not records or records[0].stream_position != revision or records[-1].stream_position > last.revision:
            # The stream was cut meanwhile, or made anew: what was known of it does not hold.
            records = self._records(self._revision_after(after, last), limit)
        events = [BusEvent(_place(r).position, r.type, r.data) for r in records]
        events = [event for event in events if event.position > after]
        if events:
            self._next = _Place(records[-1].stream_position + 1, events[-1].position)
        return events

    def _revision_after(self, position: int, last: _Place) -> int:
        """Give the revision of the first event above a position.

        Positions ascend by at least one from revision to revision. So counting back from the last event leads to it,
        or to a place before it when positions were left out: then it lies between.
        """
        low, high = max(last.revision - (last.position - position - 1), 0), last.revision + 1
        middle = low
        while low < high:
            records = self._records(middle, 1)
            place = _place(records[0]) if records else None
            if place is None or place.position > position:
                high = middle
            else:
                low = place.revision + 1
            middle = (low + high) // 2
        return low

    def _last(self) -> _Place | None:
        records = self._records(None, 1, backwards=True)
        return _place(records[0]) if records else None

    def _records(self, revision: int | None, limit: int, *, backwards: bool = False) -> Sequence[RecordedEvent]:
        with suppress(refusals.NotFoundError), self._explained() as client:
            return client.get_stream(
                self.stream,
                stream_position=revision,
                backwards=backwards,
                limit=limit,
                timeout=_ANSWER_TIMEOUT_S,
            )
        return ()

    def _new_event(self, event: BusEvent) -> NewEvent:
        found = dict(attributes(event.data, source=self._source))
        return NewEvent(
            type=event.event_type,
            data=event.data,
            metadata=_encode(found),
            content_type="application/json",
            id=uuid.UUID(found["id"]),
        )

    @contextmanager
    def _explained(self) -> Generator[KurrentDBClient]:
        """Give the client; turn its errors into ours, but those that answer a question."""
        try:
            if self._client is None:
                self._client = KurrentDBClient(self._url)
            yield self._client
        except (refusals.WrongCurrentVersionError, refusals.NotFoundError):
            raise
        except (refusals.UnauthenticatedError, refusals.AccessDeniedError) as error:
            raise ConfigurationError(
                f"KurrentDB refused the credentials for the stream {self.stream}: {error}; check {_SETTING}",
                setting=_SETTING,
                value=self.stream,
            ) from error
        except (
            refusals.MaximumAppendSizeExceededError,
            refusals.RecordMaxSizeExceededError,
            refusals.TransactionMaxSizeExceededError,
        ) as error:
            raise ConfigurationError(
                f"KurrentDB takes no event as large as one is: {error}; raise its MaxAppendSize to 24 MiB",
                setting=_SETTING,
                value=self.stream,
            ) from error
        except (refusals.StreamIsDeletedError, refusals.StreamTombstonedError) as error:
            raise ConfigurationError(
                f"the stream {self.stream} was deleted for good: {error}; choose another project",
                setting="WORKLEDGER_PROJECT",
                value=self.stream,
            ) from error
        except (ValueError, refusals.ProgrammingError) as error:  # of the URL, and quoting it with its password
            said = str(error).replace(self._url, "it").rstrip(": ")
            raise ConfigurationError(
                f"this is not the URL of a KurrentDB server: {said}", setting=_SETTING, value=self.stream
            ) from None
        except refusals.KurrentDBClientError as error:
            self.close()
            raise SynapseUnavailable(
                f"KurrentDB cannot be used for the stream {self.stream}: {str(error) or type(error).__name__}. Check "
                f"{_SETTING}, or set it to postgres: to do without a bus"
            ) from error


def _place(record: RecordedEvent) -> _Place:
    try:
        return _Place(revision=record.stream_position, position=_decode(record.data).position)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"revision {record.stream_position} of the stream {record.stream_name} is no event of ours: somebody else "
            "writes to it",
            setting="WORKLEDGER_PROJECT",
            value=record.stream_name,
        ) from error
