"""Reading a topic's partitions as the one log they are parts of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import Consumer, Message, TopicPartition

from workledger.errors import SynapseUnavailable
from workledger.synapse.bus import BusEvent
from workledger.synapse.kafka_topic import Client, Moved, Topic, close_within, is_end, read_event
from workledger.synapse.merge import Merge

__all__ = ["Reader"]

_BATCH: Final = 5000
#: What waits for an event before it may not grow without bound: partitions that are ahead of it pause.
_MANY_WAITING: Final = 50_000
#: When nothing has come for so long and something waits, what is before it may have been lost.
_SILENCE_S: Final = 0.05
_POLL_S: Final = 0.02
_ANSWER_TIMEOUT_S: Final = 10.0
_SETTLE_S: Final = 2.0
#: A transaction shows a moment after it is committed, when it was marked so in every partition.
_MARKS_S: Final = 0.25
_NO_TOPIC_POLL_S: Final = 0.2
_ATTEMPTS: Final = 5


class Reader:
    """Gives the events of a topic in the order of the log, from any position on.

    Within a partition positions ascend, and a transaction shows all its records or none. So when position p is
    seen, everything below p that will ever be there is already in its partition, though the mark that commits it
    may still be on its way. A gap is believed only when every partition was read as far as it reached after p was
    seen, committed or not.
    """

    def __init__(self, client: Client, topic: Topic) -> None:
        self._client = client
        self._topic = topic
        self._name = client.target.topic
        self._consumer: Consumer = client.make(
            Consumer,
            group__id=self._name,
            enable__auto__commit=False,
            enable__partition__eof=True,
            isolation__level="read_committed",
            auto__offset__reset="error",
            fetch__wait__max__ms=25,
            fetch__message__max__bytes=256 * 1024,
            queued__max__messages__kbytes=16 * 1024,
        )
        self._merge = Merge(after=-1)
        #: By partition: the offset up to which it was read, and the last position seen.
        self._read_upto: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._paused: set[int] = set()
        self._is_fresh = False

    def close(self) -> None:
        """Close the connection."""
        close_within(self._consumer.close)

    def read(self, *, after: int, limit: int, block_s: float) -> list[BusEvent]:
        """Give at most `limit` events above `after`, ascending; wait for the first, at most `block_s`."""
        deadline_s = time.monotonic() + block_s
        for _ in range(_ATTEMPTS):
            try:
                if after != self._merge.after or not self._read_upto:
                    self._seek(after)
                events = self._wait(limit, deadline_s)
            except Moved:
                self._read_upto = {}
                continue
            self._is_fresh = self._is_fresh and not events
            return events
        raise Moved(f"the {self._client.place} is being made anew or cut; try again")

    def _wait(self, limit: int, deadline_s: float) -> list[BusEvent]:
        """Give what comes until the deadline, or what is there when it has passed already."""
        while not (events := self._merge.take(limit)):
            left_s = max(deadline_s - time.monotonic(), 0)
            if not self._read_upto:
                if not left_s:
                    break
                time.sleep(min(left_s, _NO_TOPIC_POLL_S))
                self._seek(self._merge.after)
            elif self._poll(min(left_s, _SILENCE_S) if len(self._merge) else left_s):
                continue
            elif len(self._merge) or not left_s:
                events = self._settle(limit)
                if events or not left_s:
                    break
        return events

    def _settle(self, limit: int) -> list[BusEvent]:
        """Read what is there now to its end, and give what has its turn, be it that something before it was lost."""
        if not len(self._merge):
            ends = self._topic.ends(committed=True)
            events = self._read_to(ends, limit, within_s=_ANSWER_TIMEOUT_S)
            if not events and not len(self._merge) and not self._has_read(ends):
                raise SynapseUnavailable(f"Kafka does not give what it has of the {self._client.place}; try again")
            events = events or self._read_to(self._topic.ends(committed=False), limit, within_s=_MARKS_S)
            if events or not len(self._merge):
                return events
        if not self._is_fresh:  # before a loss is believed, make sure that nothing was passed over
            self._seek(self._merge.after)
        ends = self._topic.ends(committed=False)
        events = self._read_to(ends, limit, within_s=_SETTLE_S)
        if events or not len(self._merge) or not self._has_read(ends):
            return events
        self._merge.settle(min((self._seen[n] for n, end in ends.items() if self._read_upto[n] < end), default=None))
        return self._merge.take(limit)

    def _read_to(self, ends: dict[int, int], limit: int, *, within_s: float) -> list[BusEvent]:
        """Read every partition to its end, unless something gets its turn, or somebody's open transaction forbids."""
        if ends.keys() != self._read_upto.keys() or any(self._read_upto[n] > end for n, end in ends.items()):
            raise Moved(f"the {self._client.place} is not the one it was before")
        deadline_s = time.monotonic() + within_s
        while not (events := self._merge.take(limit)):
            if self._has_read(ends) or time.monotonic() > deadline_s:
                break
            self._poll(_POLL_S)
        return events

    def _has_read(self, ends: dict[int, int]) -> bool:
        """Say whether every partition was read to its end, or past the event that is waited for."""
        after = self._merge.after
        return all(self._read_upto[n] >= end or self._seen.get(n, 0) > after for n, end in ends.items())

    def _poll(self, timeout_s: float) -> bool:
        """Take what has come, waiting for the first; say whether anything has."""
        self._hold_back()
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        with self._client.explained():
            self._merge.add(self._events([first, *self._consumer.consume(_BATCH, 0)]))
        return True

    def _events(self, messages: list[Message[Any, Any]]) -> Iterator[BusEvent]:
        read_upto, seen, place = self._read_upto, self._seen, self._client.place
        for message in messages:
            number, offset = message.partition() or 0, message.offset() or 0
            if message.error() is None:
                event = read_event(message, place=place)
                read_upto[number], seen[number] = offset + 1, event.position
                yield event
            elif is_end(message):
                read_upto[number] = max(read_upto.get(number, 0), offset)

    def _hold_back(self) -> None:
        """Pause the partitions that are past what is waited for, while too much waits."""
        if len(self._merge) > _MANY_WAITING:
            after = self._merge.after
            ahead = {number for number, position in self._seen.items() if position > after} - self._paused
            self._consumer.pause(self._places(ahead))
            self._paused |= ahead
        elif self._paused:
            self._consumer.resume(self._places(self._paused))
            self._paused.clear()

    def _seek(self, after: int) -> None:
        """Go to what comes after a position, in every partition there is."""
        self._merge = Merge(after=after)
        self._seen, self._paused, self._is_fresh = {}, set(), True
        with self._client.explained():
            self._consumer.unassign()
            self._read_upto = self._topic.offsets_after(after)
            # Without this the consumer finds out by itself where the partitions are, which takes it a second.
            self._consumer.list_topics(self._name, timeout=_ANSWER_TIMEOUT_S)
            self._consumer.assign([TopicPartition(self._name, n, o) for n, o in self._read_upto.items()])

    def _places(self, numbers: set[int]) -> list[TopicPartition]:
        return [TopicPartition(self._name, number) for number in sorted(numbers)]
