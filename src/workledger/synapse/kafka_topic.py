"""One topic of a Kafka cluster: where it is, what it holds, and what the client's errors mean."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable, WorkledgerError
from workledger.synapse.bus import BusEvent

try:
    from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
    from confluent_kafka.admin import (
        AdminClient,
        NewTopic,  # pyright: ignore[reportPrivateImportUsage]
        OffsetSpec,  # pyright: ignore[reportPrivateImportUsage]  its documented place
    )
except ImportError as error:
    raise MissingExtra("a Kafka bus needs the extra: pip install 'workledger[kafka]'", extra="kafka") from error

__all__ = ["Client", "KafkaTarget", "Moved", "Record", "Topic", "close_within", "is_end", "read_event", "target_of"]

#: The partition number and an offset in each.
Offsets = dict[int, int]

_SETTING: Final = "WORKLEDGER_SYNAPSE_URL"
_LOOK_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 10.0
#: The client answers its own requests when their time is over; this is for when even that does not happen.
_HUNG_S: Final = 30.0
_CLOSE_S: Final = 15.0
_ELECTION_S: Final = 3.0
#: The largest event there can be, in a payload of 16 MiB, and what surrounds it.
_MAX_MESSAGE_BYTES: Final = 24 * 1024 * 1024
_OURS: Final = frozenset({
    "bootstrap.servers", "transactional.id", "enable.idempotence", "acks", "isolation.level", "group.id",
    "enable.auto.commit", "enable.partition.eof", "auto.offset.reset", "partitioner", "log_level",
})  # fmt: skip
_CREDENTIALS: Final = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL"})
_RIGHTS: Final = frozenset({
    "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
})  # fmt: skip
_STALE: Final = frozenset({
    "_UNKNOWN_PARTITION", "_UNKNOWN_TOPIC", "_NOENT", "UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH", "UNKNOWN_TOPIC_ID",
})  # fmt: skip
_TOO_LARGE: Final = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_MSG_SIZE", "RECORD_LIST_TOO_LARGE"})
_VAGUE: Final = frozenset({"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "REQUEST_TIMED_OUT", "_TIMED_OUT_QUEUE"})
# librdkafka would write to stderr at every attempt to connect. What it complains of is in our errors.
_SILENT: Final = logging.Logger("librdkafka", level=logging.CRITICAL + 1)  # noqa: LOG001  of no use to anybody's handlers


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTarget:
    """A topic on a cluster. `place` names it without its secrets; `options` are librdkafka's."""

    servers: str
    topic: str
    source: str
    partitions: int
    replication: int
    options: Mapping[str, str] = field(repr=False)

    @property
    def place(self) -> str:
        """The topic and its cluster, for messages."""
        return f"topic {self.topic} on {self.servers}"


def target_of(url: str, *, project: str) -> KafkaTarget:
    """Read `kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][/TOPIC][?partitions=6&replication=3&OPTION=VALUE…]`.

    Whatever option librdkafka knows may be given, such as `security.protocol` and `ssl.ca.location`. A user is
    announced by SASL/PLAIN over TLS unless the options say otherwise.
    """
    parts = urlsplit(url)
    credentials, _, servers = parts.netloc.rpartition("@")
    given = dict(parse_qsl(parts.query))
    if not servers or any(not server.strip() for server in servers.split(",")):
        raise ConfigurationError("a Kafka URL names its servers: kafka://HOST:9092", setting=_SETTING, value=servers)
    options: dict[str, str] = {}
    if credentials:
        user, _, password = credentials.partition(":")
        options = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN"}
        options |= {"sasl.username": unquote(user), "sasl.password": unquote(password)}
    partitions, replication = _number(given, "partitions", 6), _number(given, "replication", -1)
    if taken := sorted(given.keys() & _OURS):
        raise ConfigurationError(
            f"{taken[0]} is not to be set: what the bus promises rests on it", setting=_SETTING, value=taken[0]
        )
    return KafkaTarget(
        servers=servers,
        topic=unquote(parts.path.strip("/")) or f"workledger.{project}.events",
        source=f"urn:workledger:{project}",
        partitions=partitions,
        replication=replication,
        options=options | given,
    )


def _number(given: dict[str, str], name: str, default: int) -> int:
    text = given.pop(name, str(default))
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1 and number != default:
        raise ConfigurationError(f"{name}={text} in a Kafka URL is a number from 1", setting=_SETTING, value=text)
    return number


class Record(NamedTuple):
    """An event where it lies."""

    partition: int
    offset: int
    event: BusEvent


class _Line(msgspec.Struct, frozen=True, gc=False):
    position: int
    event_type: str


_decode = msgspec.json.Decoder(_Line).decode


def read_event(message: Message[Any, Any], *, place: str) -> BusEvent:
    """Give the event in a message; raises `ConfigurationError` when somebody else wrote it."""
    value = message.value() or b""
    try:
        line = _decode(value)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"offset {message.offset()} of partition {message.partition()} of the {place} is not an event: somebody "
            "else writes to the topic. Name another in the URL",
            setting=_SETTING,
            value=place,
        ) from error
    return BusEvent(line.position, line.event_type, value)


class Moved(SynapseUnavailable):
    """What was to be read is not there any more: cut off, or the topic was made anew."""


class Client:
    """What all connections of one bus share: the configuration, and what the cluster last complained of."""

    def __init__(self, target: KafkaTarget) -> None:
        self.target = target
        self.place = target.place
        self._complaint: KafkaError | None = None

    def configuration(self, **special: Any) -> dict[str, Any]:
        """Give a configuration; in names, `__` stands for a dot."""
        return {
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "retry.backoff.ms": 20,
            **self.target.options,
            "bootstrap.servers": self.target.servers,
            "log_level": 0,
            "error_cb": self._note,
            **{name.replace("__", "."): value for name, value in special.items()},
        }

    def make(self, kind: Callable[..., Any], **special: Any) -> Any:
        """Make a producer, a consumer or an admin client."""
        try:
            return kind(self.configuration(**special), logger=_SILENT)
        except KafkaException as error:  # of an unknown option, or a value that it cannot have
            raise ConfigurationError(
                f"an option in the Kafka URL is refused: {error.args[0].str()}", setting=_SETTING, value=self.place
            ) from error

    @contextmanager
    def explained(self) -> Generator[None]:
        """Turn the client's errors into ours."""
        try:
            yield
        except KafkaException as error:
            raise self.translated(error.args[0]) from error

    def translated(self, error: KafkaError) -> WorkledgerError:
        """Our error for one of the client's; with the reason it gave before when this one says only that it waited."""
        cause = self._complaint if error.name() in _VAGUE and self._complaint is not None else error
        self._complaint = None
        name, text = cause.name(), cause.str()
        if name in _CREDENTIALS or name in _RIGHTS:
            what = "refused the credentials" if name in _CREDENTIALS else "does not grant what the bus needs"
            return ConfigurationError(
                f"Kafka {what} for the {self.place}: {text}. Check the URL's user, password and security.protocol, and "
                f"the rights to read and write topic and transactional id {self.target.topic}",
                setting=_SETTING,
                value=self.place,
            )
        if name in _TOO_LARGE:
            return ConfigurationError(
                f"the {self.place} takes no message as large as an event is: {text}. Set the topic's max.message.bytes "
                f"to {_MAX_MESSAGE_BYTES}",
                setting=_SETTING,
                value=self.place,
            )
        return SynapseUnavailable(
            f"Kafka cannot be used for the {self.place}: {text}. Check {_SETTING}, or set it to postgres: to do "
            "without a bus"
        )

    def _note(self, error: KafkaError) -> None:
        # "All brokers down" comes last and says the least.
        if error.name() != "_ALL_BROKERS_DOWN" or self._complaint is None:
            self._complaint = error


class Topic:
    """What a topic holds, looked up when asked. Creates it when told to."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = client.target.topic
        self._admin: AdminClient = client.make(AdminClient)
        # A short wait: this consumer looks at single places, and nothing new is expected there.
        self._consumer: Consumer = client.make(
            Consumer,
            group__id=self._name,
            enable__auto__commit=False,
            enable__partition__eof=True,
            isolation__level="read_committed",
            auto__offset__reset="error",
            fetch__wait__max__ms=1,
            fetch__message__max__bytes=64 * 1024,
        )

    def close(self) -> None:
        """Close the connections."""
        close_within(self._consumer.close)

    # -- whole partitions -------------------------------------------------------------------------------------

    def partitions(self) -> list[int]:
        """Give the numbers of the partitions; none when there is no topic."""
        with self._client.explained():
            try:
                metadata = self._consumer.list_topics(self._name, timeout=_LOOK_TIMEOUT_S)
            except KafkaException:
                self._consumer.poll(0)  # has the client say why
                self._admin.poll(0)
                raise
            topic = metadata.topics[self._name]
            if topic.error is not None:
                if topic.error.name() == "UNKNOWN_TOPIC_OR_PART":
                    return []
                raise KafkaException(topic.error)
            return sorted(topic.partitions)

    def create(self) -> None:
        """Create the topic unless it is there. It keeps everything until it is told to forget."""
        if self.partitions():
            return
        target = self._client.target
        config = {
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "max.message.bytes": str(_MAX_MESSAGE_BYTES),
        }
        topic = NewTopic(self._name, target.partitions, target.replication, config=config)
        with self._client.explained():
            (future,) = self._admin.create_topics([topic], request_timeout=_ANSWER_TIMEOUT_S).values()
            try:
                _answer(future)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise
        deadline_s = time.monotonic() + _ELECTION_S
        while not self.ends(committed=True) and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def starts(self) -> Offsets:
        """Give the first offset of each partition."""
        return self._offsets(latest=False, committed=True)

    def ends(self, *, committed: bool) -> Offsets:
        """Give the offset that comes next in each partition: after what is committed, or after whatever there is."""
        return self._offsets(latest=True, committed=committed)

    def forget_before(self, offsets: Mapping[int, int]) -> None:
        """Delete the records before these offsets."""
        places = [TopicPartition(self._name, partition, offset) for partition, offset in offsets.items()]
        with self._client.explained():
            futures = self._admin.delete_records(places, request_timeout=_ANSWER_TIMEOUT_S)
            for future in futures.values():
                _answer(future)

    def _offsets(self, *, latest: bool, committed: bool) -> Offsets:
        deadline_s = time.monotonic() + _ELECTION_S
        with self._client.explained():
            while True:
                try:
                    return self._ask_offsets(latest=latest, committed=committed)
                except KafkaException as error:
                    if error.args[0].name() not in _STALE or time.monotonic() > deadline_s:
                        raise
                # Partitions were just made, or their leaders change. The client goes by what it knew of them until it
                # is told to ask; and asking for all topics makes none.
                self._admin.list_topics(timeout=_LOOK_TIMEOUT_S)
                time.sleep(0.05)

    def _ask_offsets(self, *, latest: bool, committed: bool) -> Offsets:
        spec: Any = OffsetSpec.latest() if latest else OffsetSpec.earliest()
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {TopicPartition(self._name, number): spec for number in self.partitions()}
        if not wanted:
            return {}
        futures = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=_ANSWER_TIMEOUT_S)
        return {place.partition: _answer(future).offset for place, future in futures.items()}

    # -- single records ---------------------------------------------------------------------------------------

    def last_records(self, ends: Mapping[int, int]) -> dict[int, Record]:
        """Give the last record before each of these ends, by partition. What marks a transaction is no record."""
        found: dict[int, Record] = {}
        starts, window = self.starts(), 2
        missing = {number: end for number, end in ends.items() if starts.get(number, end) < end}
        while missing:
            begins = {number: max(starts[number], end - window) for number, end in missing.items()}
            for record in self._between(begins, missing, only_first=False):
                found[record.partition] = record
            missing = {n: end for n, end in missing.items() if n not in found and begins[n] > starts[n]}
            window *= 8
        return found

    def offsets_after(self, position: int) -> Offsets:
        """Give, for each partition, an offset before which no position is above `position`, and after which all are."""
        lows, highs = self.starts(), self.ends(committed=True)
        while between := {n: (low + highs[n]) // 2 for n, low in lows.items() if low < highs[n]}:
            firsts = {record.partition: record for record in self._between(between, highs, only_first=True)}
            for number, middle in between.items():
                record = firsts.get(number)
                if record is None or record.event.position > position:
                    highs[number] = middle
                else:
                    lows[number] = record.offset + 1
        return lows

    def _between(self, begins: Mapping[int, int], ends: Mapping[int, int], *, only_first: bool) -> Sequence[Record]:
        """Give the committed records from `begins` up to `ends`, or the first of each partition."""
        pending, records = set(begins), list[Record]()
        with self._client.explained():
            self._consumer.assign([TopicPartition(self._name, number, begins[number]) for number in begins])
            try:
                while pending:
                    message = self._consumer.poll(_ANSWER_TIMEOUT_S)
                    if message is None:
                        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001  its public name
                    number, offset = message.partition() or 0, message.offset() or 0
                    if is_end(message):
                        pending.discard(number)
                    elif number in pending and offset < ends[number]:
                        records.append(Record(number, offset, read_event(message, place=self._client.place)))
                    if number in pending and (only_first or offset + 1 >= ends[number]):
                        pending.discard(number)
                    if number not in pending:  # no need to fetch the rest
                        self._consumer.incremental_unassign([TopicPartition(self._name, number)])
            finally:
                self._consumer.unassign()
        return records


def is_end(message: Message[Any, Any]) -> bool:
    """Say whether this is the news that a partition's end was reached; raises any other news."""
    error = message.error()
    if error is None:
        return False
    if error.name() == "_PARTITION_EOF":
        return True
    if error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_PARTITION"}:
        raise Moved(f"the records asked for are gone: {error.str()}")
    raise KafkaException(error)


def close_within(close: Callable[[], object], *, timeout_s: float = _CLOSE_S) -> bool:
    """Close a client of librdkafka; give up after a while, for it waits without bound. Says whether it was closed."""
    thread = threading.Thread(target=close, name="workledger-kafka-close", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result(_HUNG_S)
    except TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001  its public name
