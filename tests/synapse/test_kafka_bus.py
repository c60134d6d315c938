"""What may happen to a topic, and what other people's consumers see in it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from support import wait_until
from support.kafka import KafkaBroker
from synapse.conftest import Road
from synapse.kafka_publisher import event
from training.journal import SCHEMA, Journal
from workledger.errors import ConfigurationError, SynapseUnavailable
from workledger.flows.log_to_synapse import publish_once
from workledger.synapse.bus import BusEvent
from workledger.synapse.kafka import KafkaBus
from workledger.synapse.kafka_topic import Client, Topic, close_within, target_of

PROGRAM = Path(__file__).with_name("kafka_publisher.py")


@pytest.fixture
def topic(kafka_url: str) -> str:
    return urlsplit(kafka_url).path.strip("/")


@pytest.fixture
def admin(kafka: KafkaBroker) -> AdminClient:
    return AdminClient(kafka.configuration)


@pytest.fixture
def bus(kafka_url: str) -> Iterator[KafkaBus]:
    with closing(KafkaBus(kafka_url, project=SCHEMA, trim_every_s=0)) as bus:
        yield bus


@pytest.fixture
def kafka_road(kafka_url: str, journal: Journal) -> Iterator[Road]:
    road = Road(journal, lambda: KafkaBus(kafka_url, project=SCHEMA))
    yield road
    road.bus.close()


def messages(broker: KafkaBroker, topic: str) -> dict[int, list[Message]]:
    """Every committed message of a topic by partition, as somebody else's consumer gets them."""
    consumer = Consumer(
        {**broker.configuration, "group.id": "test", "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    # A transaction that was just committed shows when it is marked so in every partition.
    place = Topic(Client(target_of(f"{broker.url}/{topic}", project=SCHEMA)))
    # One that a dead publisher had begun is open until its time is over, or until somebody takes over.
    wait_until(lambda: place.ends(committed=True) == place.ends(committed=False), timeout_s=90)
    place.close()
    numbers = list(consumer.list_topics(topic, timeout=60).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    found: dict[int, list[Message]] = defaultdict(list)
    ended = set()
    deadline = time.monotonic() + 120
    while len(ended) < len(numbers):
        assert time.monotonic() < deadline
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error() is None:
            found[message.partition()].append(message)
        else:
            assert message.error().code() == KafkaError._PARTITION_EOF
            ended.add(message.partition())
    assert close_within(consumer.close)
    return found


def positions(found: dict[int, list[Message]]) -> dict[int, list[int]]:
    return {number: [orjson.loads(each.value())["position"] for each in all_] for number, all_ in found.items()}


def assert_each_once(found: dict[int, list[Message]], count: int) -> None:
    by_partition = positions(found)
    assert all(listed == sorted(listed) for listed in by_partition.values())
    assert sorted(n for listed in by_partition.values() for n in listed) == list(range(1, count + 1))


def read_all(bus: KafkaBus, after: int = 0) -> list[int]:
    found: list[int] = []
    while page := bus.read(after=found[-1] if found else after, limit=1000):
        found += [each.position for each in page]
    return found


def publish(bus: KafkaBus, first: int, last: int) -> None:
    bus.publish([event(n) for n in range(first, last + 1)])


# -- what is in a topic -----------------------------------------------------------------------------------------


def test_a_message_is_a_cloudevent_with_its_workflow_as_key(kafka_road: Road, kafka: KafkaBroker, topic: str) -> None:
    kafka_road.journal.start("wf-1")
    kafka_road.journal.event({"n": 1})
    kafka_road.publish()
    by_key = {each.key().decode(): each for all_ in messages(kafka, topic).values() for each in all_}
    assert set(by_key) == {"wf-1", "c-1"}
    data = orjson.loads(by_key["wf-1"].value())
    assert data["payload"]["name"] == "research"
    assert {name: value.decode() for name, value in by_key["wf-1"].headers()} == {
        "ce_specversion": "1.0",
        "ce_id": data["event_id"],
        "ce_source": "urn:workledger:workledger",
        "ce_type": "workflow.started",
        "ce_subject": "workflow/wf-1",
        "ce_time": data["created_at"],
        "ce_partitionkey": "wf-1",
        "content-type": "application/json",
    }


def test_the_events_of_a_workflow_are_in_one_partition_in_their_order(
    bus: KafkaBus, kafka: KafkaBroker, topic: str
) -> None:
    publish(bus, 1, 500)
    found = messages(kafka, topic)
    assert len(found) == 3
    partition_of = defaultdict(set)
    for number, all_ in found.items():
        for each in all_:
            partition_of[each.key()].add(number)
    assert {len(numbers) for numbers in partition_of.values()} == {1}
    assert_each_once(found, 500)


def test_what_the_topic_is_made_with_keeps_everything_and_takes_large_events(
    bus: KafkaBus, admin: AdminClient, topic: str
) -> None:
    publish(bus, 1, 1)
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    config = {name: entry.value for name, entry in future.result(60).items()}
    assert (config["retention.ms"], config["cleanup.policy"]) == ("-1", "delete")
    assert int(config["max.message.bytes"]) > 16 * 1024 * 1024


def test_large_events_go_through(kafka_road: Road) -> None:
    for n in range(3):
        kafka_road.journal.start(f"wf-{n}", metadata={"text": "x" * 3_000_000})
    publish_once(kafka_road.journal.connection, bus=kafka_road.bus, schema=SCHEMA)
    for n in range(3):
        (first, *_) = kafka_road.bus.read(after=n, limit=9)
        assert (first.position, len(first.data) > 3_000_000) == (n + 1, True)


# -- publishers that die or meet --------------------------------------------------------------------------------


def test_what_a_dead_publisher_had_begun_is_not_there_and_is_published_once(
    bus: KafkaBus, kafka: KafkaBroker, topic: str, kafka_url: str
) -> None:
    publish(bus, 1, 10)
    dead = Producer({**kafka.configuration, "transactional.id": topic})
    dead.init_transactions(60)
    dead.begin_transaction()
    for n in range(11, 31):
        dead.produce(topic, event(n).data, key=f"k{n}".encode())
    assert dead.flush(60) == 0
    with closing(KafkaBus(kafka_url, project=SCHEMA)) as another:
        assert another.last_position() == 10
        assert another.read(after=10, limit=9, block_s=0.3) == []
        publish(another, 11, 30)
        assert read_all(another) == list(range(1, 31))
    assert_each_once(messages(kafka, topic), 30)


def test_publishers_that_take_turns_leave_each_event_once(
    bus: KafkaBus, kafka: KafkaBroker, topic: str, kafka_url: str
) -> None:
    with closing(KafkaBus(kafka_url, project=SCHEMA)) as another:
        for n in range(3):
            publish(bus, 1, 20 * n + 10)
            publish(another, 1, 20 * n + 20)
        assert bus.last_position() == another.last_position() == 60
    assert_each_once(messages(kafka, topic), 60)


def test_events_too_large_for_the_topic_are_named_and_block_nothing_once_it_takes_them(
    bus: KafkaBus, admin: AdminClient, kafka: KafkaBroker, topic: str
) -> None:
    # A topic that was there before; for a new limit holds only from when the broker has heard of it.
    (made,) = admin.create_topics([NewTopic(topic, 3, 1, config={"max.message.bytes": "50000"})]).values()
    made.result(60)
    publish(bus, 1, 1)
    line = orjson.loads(event(2).data)
    line["payload"] = {"text": random.Random(1).randbytes(60_000).hex()}
    events = [BusEvent(2, "cache.hit", orjson.dumps(line)), event(3)]
    with pytest.raises(ConfigurationError, match="max.message.bytes"):
        bus.publish(events)
    assert bus.last_position() == 1
    entry = ConfigEntry("max.message.bytes", "10000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    (altered,) = admin.incremental_alter_configs([resource]).values()
    altered.result(60)
    wait_until(lambda: _publishes(bus, events), timeout_s=60)
    assert_each_once(messages(kafka, topic), 3)


def _publishes(bus: KafkaBus, events: list[BusEvent]) -> bool:
    try:
        bus.publish(events)
    except ConfigurationError:  # the broker has not heard of the new limit
        return False
    return True


# -- topics that change under a reader --------------------------------------------------------------------------


def test_a_topic_that_was_deleted_begins_anew(bus: KafkaBus, admin: AdminClient, kafka_url: str, topic: str) -> None:
    publish(bus, 1, 40)
    assert read_all(bus) == list(range(1, 41))
    admin.delete_topics([topic])[topic].result(60)
    wait_until(lambda: _position(bus) == 0, timeout_s=60)
    publish(bus, 36, 50)
    assert bus.last_position() == 50
    assert read_all(bus, after=40) == list(range(41, 51))
    assert read_all(bus) == list(range(36, 51))


def test_partitions_that_are_added_are_read_too(bus: KafkaBus, admin: AdminClient, topic: str, kafka_url: str) -> None:
    publish(bus, 1, 50)
    assert len(bus.read(after=0, limit=1000)) > 0
    admin.create_partitions([NewPartitions(topic, 6)])[topic].result(60)
    with closing(KafkaBus(kafka_url, project=SCHEMA)) as another:
        publish(another, 51, 300)
    assert read_all(bus) == list(range(1, 301))


def test_a_gap_is_shown_as_a_gap_and_what_follows_comes(
    bus: KafkaBus, admin: AdminClient, kafka: KafkaBroker, topic: str
) -> None:
    publish(bus, 1, 300)
    lost = positions(messages(kafka, topic))[1]
    admin.delete_records([TopicPartition(topic, 1, -1)])[TopicPartition(topic, 1)].result(60)
    publish(bus, 301, 330)
    left = sorted({*range(1, 331)} - set(lost))
    assert read_all(bus) == left


def test_a_reader_that_was_overtaken_by_the_cut_sees_the_gap(bus: KafkaBus, kafka_url: str) -> None:
    publish(bus, 1, 30)
    with closing(KafkaBus(kafka_url, project=SCHEMA)) as reader:
        assert [each.position for each in reader.read(after=0, limit=5)] == [1, 2, 3, 4, 5]
        publish(bus, 31, 60)
        bus.trim(below=51)
        found = read_all(reader, after=5)
        assert found == sorted(set(found))
        assert found[-10:] == list(range(51, 61))


def test_what_is_trimmed_is_deleted_but_the_last_of_each_partition(
    bus: KafkaBus, kafka: KafkaBroker, topic: str, kafka_url: str
) -> None:
    publish(bus, 1, 200)
    before = positions(messages(kafka, topic))
    bus.trim(below=151)
    assert positions(messages(kafka, topic)) == {
        number: [n for n in listed if n > 150 or n == listed[-1]] for number, listed in before.items()
    }
    bus.trim(below=201)
    assert positions(messages(kafka, topic)) == {number: listed[-1:] for number, listed in before.items()}
    with closing(KafkaBus(kafka_url, project=SCHEMA)) as another:
        assert another.last_position() == 200


def test_a_topic_in_which_somebody_else_writes_is_named(bus: KafkaBus, kafka: KafkaBroker, topic: str) -> None:
    publish(bus, 1, 3)
    stranger = Producer(kafka.configuration)
    stranger.produce(topic, b"hello", partition=0)
    assert stranger.flush(60) == 0
    with pytest.raises(ConfigurationError, match="is not an event"):
        read_all(bus)
    with pytest.raises(ConfigurationError, match=topic):
        bus.last_position()


# -- brokers that are away --------------------------------------------------------------------------------------


def test_a_cluster_that_is_away_is_reported_without_its_password(capfd: pytest.CaptureFixture[str]) -> None:
    url = "kafka://user:secret@127.0.0.1:1/events?security.protocol=SASL_PLAINTEXT"
    with closing(KafkaBus(url, project=SCHEMA)) as bus, pytest.raises(SynapseUnavailable, match="postgres:") as caught:
        bus.last_position()
    assert "secret" not in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("kafka://", "names its servers"),
        ("kafka:///events", "names its servers"),
        ("kafka://h:1/?partitions=none", "partitions=none"),
        ("kafka://h:1/?replication=0", "replication=0"),
        ("kafka://h:1/?isolation.level=read_uncommitted", "isolation.level is not to be set"),
        ("kafka://h:1/?no.such.option=1", "no.such.option"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        KafkaBus(url, project=SCHEMA)


def test_a_url_gives_servers_topic_and_options() -> None:
    target = target_of("kafka://ann:p%40ss@a:9092,b:9093?partitions=12&ssl.ca.location=/ca.pem", project="ours")
    assert (target.servers, target.topic) == ("a:9092,b:9093", "workledger.ours.events")
    assert (target.partitions, target.replication) == (12, -1)
    assert target.options == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "ann",
        "sasl.password": "p@ss",
        "ssl.ca.location": "/ca.pem",
    }
    assert "p@ss" not in repr(target)


def test_everything_goes_on_after_a_restart_of_the_broker(bus: KafkaBus, kafka: KafkaBroker, topic: str) -> None:
    publish(bus, 1, 100)
    assert read_all(bus) == list(range(1, 101))
    kafka.stop()
    with pytest.raises(SynapseUnavailable):
        publish(bus, 101, 200)
    with pytest.raises(SynapseUnavailable):
        bus.read(after=100, limit=10)
    kafka.start()
    wait_until(lambda: _reached(bus, 100), timeout_s=60)
    publish(bus, bus.last_position() + 1, 200)
    assert read_all(bus, after=100) == list(range(101, 201))
    assert_each_once(messages(kafka, topic), 200)


# -- attacks ----------------------------------------------------------------------------------------------------


@contextmanager
def publishing(url: str, total: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    process = subprocess.Popen([sys.executable, PROGRAM, url, str(total)], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def attack(broker: KafkaBroker, url: str, topic: str, *, rounds: int, per_round: int, seed: int) -> None:
    """Kill publishers and the broker at random moments while two publish and one reads; then count."""
    chance = random.Random(seed)
    total = 0
    with closing(KafkaBus(url, project=SCHEMA)) as reader:
        last = 0
        for number in range(rounds):
            total += per_round
            with publishing(url, total) as one, publishing(url, total):
                # The moments are those of the work: Python takes its time to start, and machines differ.
                moment = last + chance.randint(1, per_round // 2)
                wait_until(partial(_reached, reader, moment), timeout_s=60)
                if number % 2:
                    broker.kill()
                    if chance.random() < 0.5:
                        one.send_signal(signal.SIGKILL)
                    broker.start()
                else:
                    one.send_signal(signal.SIGKILL)
                last = _read_to(reader, last, total)
    assert_each_once(messages(broker, topic), total)


def _reached(bus: KafkaBus, position: int) -> bool:
    return _position(bus) >= position


def _position(bus: KafkaBus) -> int:
    """Give how far the log is published; -1 while the broker cannot say."""
    try:
        return bus.last_position()
    except SynapseUnavailable:
        return -1


def _read_to(reader: KafkaBus, last: int, total: int) -> int:
    deadline, reason = time.monotonic() + 120, None
    while last < total:
        assert time.monotonic() < deadline, f"at {last} of {total}: {reason}"
        try:
            page, reason = reader.read(after=last, limit=1000, block_s=1), None
        except SynapseUnavailable as error:
            reason = error
            continue
        assert [each.position for each in page] == list(range(last + 1, last + 1 + len(page)))
        last += len(page)
    return last


def test_publishers_and_broker_killed_lose_nothing_and_repeat_nothing(
    kafka: KafkaBroker, kafka_url: str, topic: str
) -> None:
    attack(kafka, kafka_url, topic, rounds=2, per_round=8_000, seed=int(time.time()))


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_forty_rounds_of_killing_publishers_and_broker_lose_nothing_and_repeat_nothing(
    kafka: KafkaBroker, kafka_url: str, topic: str
) -> None:
    attack(kafka, kafka_url, topic, rounds=40, per_round=10_000, seed=int(time.time()))
