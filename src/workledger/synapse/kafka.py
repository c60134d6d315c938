"""The bus on Kafka: one topic a project, its partitions keyed by workflow, each batch of events one transaction.

The topic is its own cursor: the highest position among the last records of the partitions is the last one published,
because a transaction is there in all its partitions or in none. Whoever publishes takes over the transactional id of
the topic first, which ends what another publisher had begun, and looks only then where the log stands. So no event
is there twice for readers of committed records, whatever dies and however many publish.

A message is a CloudEvent in binary mode: headers `ce_*` and `content-type`, the event's JSON line as its value, and
the workflow's id, or else the entity's, as its key.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from workledger.errors import SynapseUnavailable
from workledger.synapse.batches import batches
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes, key_of
from workledger.synapse.kafka_reader import Reader
from workledger.synapse.kafka_topic import Client, Moved, Record, Topic, target_of

__all__ = ["KafkaBus"]

_TRANSACTION_EVENTS: Final = 10_000
_TRANSACTION_BYTES: Final = 8 * 1024 * 1024
#: Whoever looks for a position reads whole batches.
_BATCH_BYTES: Final = 128 * 1024
_TRANSACTION_TIMEOUT_S: Final = 20.0
_COMMIT_TIMEOUT_S: Final = 10.0
_TAKEOVERS: Final = 8
_MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
#: Finding where to cut takes a look at every partition; segments go only whole in any case.
_TRIM_EVERY_S: Final = 20.0
#: A transaction shows a moment after it is committed. One that stays open for longer may be a dead publisher's.
_MARKS_S: Final = 0.25
_OWN_MARKS_S: Final = 3.0
_POLL_S: Final = 0.005
#: What a publisher hears, of its own transaction, when another has taken over. "Unknown" is what a broker says that
#: was just then at it.
_FENCED: Final = frozenset({
    "_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING", "UNKNOWN_PRODUCER_ID",
    "INVALID_TXN_STATE", "CONCURRENT_TRANSACTIONS", "_STATE", "_FATAL", "UNKNOWN",
})  # fmt: skip


class KafkaBus:
    """A topic in one cluster; see `Bus` for what it promises."""

    def __init__(self, url: str, *, project: str, trim_every_s: float = _TRIM_EVERY_S) -> None:
        self._client = Client(target_of(url, project=project))
        self._topic = Topic(self._client)
        self._tops = _Tops(self._topic)
        self._writer = _Writer(self._client, self._topic, self._tops)
        self._reader: Reader | None = None
        self._trim_every_s = trim_every_s
        self._trimmed_at_s = float("-inf")

    def last_position(self) -> int:
        """Give the highest position among the last records of the partitions."""
        with self._client.explained():
            top = self._tops.look()
        if self._tops.has_shrunk:
            self._writer.let_go()
        return max(top, self._writer.top)

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Add events, a transaction for each batch. Makes the topic when there is none."""
        reason = ""
        for attempt in range(_TAKEOVERS):
            try:
                self._writer.publish(events)
            except _Fenced as error:
                reason = str(error)
                # Somebody else publishes the same. They get the time to finish, and we look at what is left.
                time.sleep(random.uniform(0.02, 0.1) * 2**attempt)
                if not events or self.last_position() >= events[-1].position:
                    return
            else:
                return
        raise SynapseUnavailable(f"other publishers keep taking over the {self._client.place}; try again ({reason})")

    def read(self, *, after: int, limit: int, block_s: float = 0.0) -> list[BusEvent]:
        """Give events above `after`, merged from the partitions."""
        if self._reader is None:
            self._reader = Reader(self._client, self._topic)
        return self._reader.read(after=after, limit=limit, block_s=block_s)

    def trim(self, *, below: int) -> None:
        """Delete the records with positions under `below`, but the last of each partition, which knows where it was.

        Does nothing when it did so a moment ago.
        """
        if time.monotonic() - self._trimmed_at_s < self._trim_every_s:
            return
        with self._client.explained():
            try:
                self._tops.look()
                cuts = self._topic.offsets_after(below - 1)
            except Moved:
                return
            lasts = self._tops.records
            self._topic.forget_before({n: min(cut, lasts[n].offset) for n, cut in cuts.items() if n in lasts})
        self._trimmed_at_s = time.monotonic()

    def close(self) -> None:
        """Close the connections."""
        self._writer.let_go()
        if self._reader is not None:
            self._reader.close()
        self._topic.close()


class _Tops:
    """The last record of each partition, looked up again only where something was added."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._ends: dict[int, int] = {}
        self.records: dict[int, Record] = {}
        self.has_shrunk = False

    def look(self) -> int:
        """Give the highest position that is committed; 0 when nothing is."""
        ends = self.await_marks(within_s=_MARKS_S)
        # A topic that is shorter than before was made anew, or has lost its end: nothing known of it holds.
        self.has_shrunk = any(ends.get(number, -1) < end for number, end in self._ends.items())
        if self.has_shrunk:
            self._ends, self.records = {}, {}
        grown = {number: end for number, end in ends.items() if end != self._ends.get(number)}
        self.records |= self._topic.last_records(grown)
        self._ends = ends
        return max((record.event.position for record in self.records.values()), default=0)

    def await_marks(self, *, within_s: float) -> dict[int, int]:
        """Give where the committed records end, once what was committed a moment ago is marked so."""
        reached = self._topic.ends(committed=False)
        deadline_s = time.monotonic() + within_s
        while True:
            ends = self._topic.ends(committed=True)
            if all(ends.get(number, 0) >= end for number, end in reached.items()) or time.monotonic() > deadline_s:
                return ends
            time.sleep(_POLL_S)


class _Fenced(Exception):
    """Another publisher has taken over."""


class _Writer:
    """Holds the transactional id of the topic, from the first event to publish until somebody else takes it."""

    def __init__(self, client: Client, topic: Topic, tops: _Tops) -> None:
        self._client = client
        self._topic = topic
        self._tops = tops
        self._producer: Producer | None = None
        #: The last position published, as far as this writer is the one who publishes.
        self.top = 0
        self._failure: KafkaError | None = None

    def publish(self, events: Sequence[BusEvent]) -> None:
        """Add what is not there; raises `_Fenced` when another publisher has taken over."""
        try:
            with self._client.explained():
                producer = self._producer or self._take_over()
                missing = [event for event in events if event.position > self.top]
                for batch in batches(missing, limit=_TRANSACTION_EVENTS, limit_bytes=_TRANSACTION_BYTES):
                    self._send(producer, batch)
                    self.top = batch[-1].position
                if missing:
                    self._tops.await_marks(within_s=_OWN_MARKS_S)
        except BaseException as error:
            # Whether the last batch is there is for the next look to say. Taking over ends what is half done.
            self.let_go()
            cause = error.__cause__
            if isinstance(error, SynapseUnavailable) and isinstance(cause, KafkaException) and _is_over(cause.args[0]):
                raise _Fenced(cause.args[0].str()) from error
            raise

    def let_go(self) -> None:
        """Give the connection up; the next call takes the transactional id again."""
        self._producer, self.top = None, 0

    def _take_over(self) -> Producer:
        self._topic.create()
        producer: Producer = self._client.make(
            Producer,
            transactional__id=self._client.target.topic,
            transaction__timeout__ms=int(_TRANSACTION_TIMEOUT_S * 1000),
            acks="all",
            linger__ms=2,
            batch__size=_BATCH_BYTES,
            compression__type="lz4",
            partitioner="murmur2_random",  # what clients in Java do
            message__max__bytes=_MAX_MESSAGE_BYTES,
            delivery__report__only__error=True,
            on_delivery=self._note,
        )
        producer.init_transactions(_TRANSACTION_TIMEOUT_S)
        # Nothing is under way any more, so what is committed now is all there is.
        self.top = self._tops.look()
        self._producer = producer
        return producer

    def _send(self, producer: Producer, events: Sequence[BusEvent]) -> None:
        source, name = self._client.target.source, self._client.target.topic
        self._failure = None
        producer.begin_transaction()
        for event in events:
            found = attributes(event.data, source=source)
            headers: list[tuple[str, str | bytes | None]] = [(f"ce_{name}", value) for name, value in found]
            headers.append(("content-type", "application/json"))
            producer.produce(name, event.data, key=key_of(found).encode(), headers=headers)
        try:
            producer.commit_transaction(_COMMIT_TIMEOUT_S)
        except KafkaException as error:
            if self._failure is not None and error.args[0].name() not in _FENCED:
                raise KafkaException(self._failure) from error
            raise

    def _note(self, error: KafkaError | None, _message: Message[Any, Any]) -> None:
        # What was still on its way when another message failed is purged; the first is the reason.
        if error is not None and self._failure is None and not error.name().startswith("_PURGE"):
            self._failure = error


def _is_over(error: KafkaError) -> bool:
    """Say whether an error is the end of a transaction or of its producer, rather than of the connection."""
    return error.name() in _FENCED or error.fatal() or error.txn_requires_abort()
