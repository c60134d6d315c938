"""Several streams as one: what they hold, what they may lose, and who notices."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import orjson
import pytest
import redis

from support import wait_until
from synapse.conftest import Road
from synapse.kafka_publisher import event
from training.journal import SCHEMA, Journal
from workledger.errors import ConfigurationError, SynapseUnavailable
from workledger.flows.log_to_synapse import publish_once
from workledger.flows.synapse_to_consumers import LogBehind
from workledger.log import consumers
from workledger.synapse.bus import BusEvent
from workledger.synapse.redis import stream_key
from workledger.synapse.redis_partitions import PartitionedRedisBus, published_key
from workledger.synapse.redis_servers import target_of
from workledger.synapse.subscribe import Delivery, Subscription
from workledger.training.log_lines import LogLines

COUNT = 4
KEYS = [stream_key(SCHEMA, number) for number in range(COUNT)]


@pytest.fixture
def url(any_redis_url: str) -> str:
    return f"{any_redis_url}?partitions={COUNT}"


@pytest.fixture
def client(any_redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(any_redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def bus(url: str) -> Iterator[PartitionedRedisBus]:
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as bus:
        yield bus


@pytest.fixture
def several_road(url: str, journal: Journal) -> Iterator[Road]:
    road = Road(journal, lambda: PartitionedRedisBus(url, project=SCHEMA))
    yield road
    road.bus.close()


def publish(bus: PartitionedRedisBus, first: int, last: int) -> None:
    bus.publish([event(n) for n in range(first, last + 1)])


def read_all(bus: PartitionedRedisBus, after: int = 0, limit: int = 7) -> list[int]:
    found: list[int] = []
    while page := bus.read(after=found[-1] if found else after, limit=limit):
        assert len(page) <= limit
        found += [each.position for each in page]
    return found


def entries(client: redis.Redis, number: int) -> list[tuple[int, int, bytes]]:
    """The position, the one said to come before, and the data of every entry of a stream."""
    return [
        (int(entry_id.split(b"-")[0]), int(fields[b"previous"]), fields[b"data"])
        for entry_id, fields in client.xrange(KEYS[number])
    ]


def assert_previous_is_true(client: redis.Redis, number: int, count: int) -> None:
    """Between an entry and what it says comes before it, the log has nothing for this stream."""
    ours = {n for n in range(1, count + 1) if zlib.crc32(key_of(n).encode()) % COUNT == number}
    for position, previous, _ in entries(client, number):
        assert previous < position
        assert not ours & set(range(previous + 1, position))


def key_of(position: int) -> str:
    return orjson.loads(event(position).data)["workflow_id"]


# -- what the streams hold --------------------------------------------------------------------------------------


def test_the_events_of_a_workflow_are_in_the_stream_of_its_crc32_in_their_order(
    bus: PartitionedRedisBus, client: redis.Redis
) -> None:
    publish(bus, 1, 2500)
    for number in range(COUNT):
        found = [position for position, _, _ in entries(client, number)]
        assert found == [n for n in range(1, 2501) if zlib.crc32(key_of(n).encode()) % COUNT == number]
        assert_previous_is_true(client, number, 2500)
    assert [entry_id for entry_id, _ in client.xrange(published_key(SCHEMA))] == [b"2500-0"]


def test_what_comes_before_an_entry_is_known_exactly_to_the_next_publisher_too(
    bus: PartitionedRedisBus, client: redis.Redis, url: str
) -> None:
    publish(bus, 1, 100)
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as another:
        publish(another, 101, 140)
    publish(bus, 141, 200)
    for number in range(COUNT):
        found = entries(client, number)
        assert [previous for _, previous, _ in found] == [0, *(position for position, _, _ in found)][:-1]


def test_a_publisher_that_leaves_something_out_says_so_in_every_stream(
    bus: PartitionedRedisBus, client: redis.Redis, url: str
) -> None:
    publish(bus, 1, 100)
    publish(bus, 121, 200)  # the rest is on disk already
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as another:
        publish(another, 201, 300)
    for number in range(COUNT):
        after = [previous for position, previous, _ in entries(client, number) if position > 120]
        assert after[0] == 120
    assert read_all(bus) == [*range(1, 101), *range(121, 301)]


def test_a_publisher_that_another_has_overtaken_knows_what_that_one_has_passed_on(
    bus: PartitionedRedisBus, client: redis.Redis, url: str
) -> None:
    publish(bus, 1, 100)
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as another:
        publish(another, 101, 150)
    publish(bus, 101, 200)  # as it would have, had it looked before the other one had published
    for number in range(COUNT):
        found = entries(client, number)
        assert [previous for _, previous, _ in found] == [0, *(position for position, _, _ in found)][:-1]


def test_another_number_of_streams_is_refused(bus: PartitionedRedisBus, any_redis_url: str) -> None:
    publish(bus, 1, 5)
    with closing(PartitionedRedisBus(f"{any_redis_url}?partitions=8", project=SCHEMA)) as other:
        with pytest.raises(ConfigurationError, match="in 4 streams, and the URL says partitions=8"):
            other.last_position()
        with pytest.raises(ConfigurationError, match="set it to 4"):
            other.read(after=0, limit=9)


# -- what they lose ---------------------------------------------------------------------------------------------


def test_what_is_not_in_every_stream_is_not_given_and_published_again(
    bus: PartitionedRedisBus, client: redis.Redis, url: str
) -> None:
    publish(bus, 1, 50)
    kept = client.dump(published_key(SCHEMA)), client.dump(f"workledger:{{{SCHEMA}}}:tops")
    publish(bus, 51, 90)
    for key, value in zip((published_key(SCHEMA), f"workledger:{{{SCHEMA}}}:tops"), kept, strict=True):
        client.restore(key, 0, value, replace=True)  # as when the publisher died before it could say so
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as another:
        assert read_all(another) == list(range(1, 51))
        assert another.last_position() == 50
        publish(another, 51, 120)
        assert read_all(another) == list(range(1, 121))
    for number in range(COUNT):
        assert_previous_is_true(client, number, 120)


def test_a_stream_that_was_lost_is_published_again_and_is_a_gap_until_then(
    bus: PartitionedRedisBus, client: redis.Redis
) -> None:
    publish(bus, 1, 100)
    lost = {position for position, _, _ in entries(client, 2)}
    client.delete(KEYS[2])
    assert read_all(bus) == sorted(set(range(1, 101)) - lost)
    assert bus.last_position() == 0
    publish(bus, 41, 100)  # what is below was landed meanwhile
    assert read_all(bus, after=40) == list(range(41, 101))
    assert bus.last_position() == 100
    assert entries(client, 2)[0][1] == 40


def test_a_stream_that_was_lost_after_all_of_it_was_landed_is_not_asked_for_for_ever(
    several_road: Road, client: redis.Redis
) -> None:
    several_road.record(50)
    client.delete(KEYS[1])
    consumers.save(several_road.journal.connection, "training:a", 50)
    several_road.record(1)
    assert several_road.publish() == 0
    assert several_road.bus.last_position() == 51


def test_a_stream_that_is_published_again_in_part_only_says_what_it_may_lack(
    several_road: Road, join, client: redis.Redis, url: str
) -> None:
    several_road.record(40)
    one = join()
    assert sorted(got_by(one)) == list(range(1, 41))
    several_road.journal.events(60)
    several_road.publish()
    lost = [position for position, _, _ in entries(client, 2)]
    kept = [position for position in lost if position <= 40]
    client.delete(KEYS[2])
    client.xgroup_create(KEYS[2], "g", id=f"{kept[-1]}-0", mkstream=True)  # as on a replica that lacks the end
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as dying:
        assert dying.last_position() == 0
        lines = LogLines(several_road.journal.connection).read(after=40, limit=30)
        dying.publish([BusEvent(*line) for line in lines])
    with closing(PartitionedRedisBus(url, project=SCHEMA)) as another:
        publish_once(several_road.journal.connection, bus=another, schema=SCHEMA)
    assert sorted(got_by(one)) == list(range(41, 101))


def test_streams_under_attack_invent_nothing_repeat_nothing_and_end_up_whole(url: str, client: redis.Redis) -> None:
    chance = random.Random(time.time_ns())
    log = 0
    with (
        closing(PartitionedRedisBus(url, project=SCHEMA)) as one,
        closing(PartitionedRedisBus(url, project=SCHEMA)) as two,
        closing(PartitionedRedisBus(url, project=SCHEMA)) as reader,
    ):
        for _ in range(60):
            log += chance.randint(1, 40)
            publisher = chance.choice((one, two))
            first = publisher.last_position() + 1
            if chance.random() < 0.3:  # it does not come to the end
                publish(publisher, first, chance.randint(first, log))
                publisher = chance.choice((one, two))
                first = publisher.last_position() + 1
            publish(publisher, first, log)
            match chance.randrange(8):
                case 0:
                    client.delete(chance.choice(KEYS))
                case 1:
                    client.delete(published_key(SCHEMA))
                case 2:
                    client.flushall()
                case 3:
                    one.trim(below=max(log - 5, 1))
                case 4:
                    client.xtrim(chance.choice(KEYS), maxlen=3, approximate=False)
            after = chance.randint(0, log)
            found = read_all(reader, after, limit=chance.randint(1, 50))
            assert found == sorted(set(found))
            assert all(after < position <= log for position in found)
            for number in range(COUNT):
                assert_previous_is_true(client, number, log)
        publish(one, one.last_position() + 1, log)
        client.flushall()
        publish(two, log - 30, log)
        assert read_all(reader) == list(range(log - 30, log + 1))


# -- groups -----------------------------------------------------------------------------------------------------


@pytest.fixture
def join(several_road: Road, url: str):
    opened: list[Subscription] = []

    def join(consumer: str = "one", **options) -> Subscription:
        backing = LogBehind(several_road.journal.connect, group="g", schema=SCHEMA)
        options = {"begin_after": 0, "claim_after_s": 0.3, **options}
        opened.append(Subscription(url, backing=backing, group="g", consumer=consumer, **options))
        return opened[-1]

    yield join
    for each in opened:
        each.close()


def got_by(subscription: Subscription, *, idle_s: float = 0.2) -> list[int]:
    got: list[int] = []
    subscription.run(lambda delivery: got.append(delivery.position), idle_s=idle_s)
    return got


def test_a_group_gets_every_event_once_and_each_workflow_in_its_order(several_road: Road, join) -> None:
    for n in range(6):
        several_road.journal.workflow(f"w{n}")
    several_road.journal.events(500)
    several_road.publish()
    got: list[Delivery] = []
    join().run(got.append, idle_s=0.2)
    assert sorted(each.position for each in got) == list(range(1, several_road.journal.sequence() + 1))
    for n in range(6):
        ours = [each.position for each in got if each.event["workflow_id"] == f"w{n}"]
        assert ours == sorted(ours)


def test_what_one_stream_lost_is_read_from_the_log_and_nothing_else(
    several_road: Road, join, client: redis.Redis
) -> None:
    one = join()
    several_road.record(100)
    assert sorted(got_by(one)) == list(range(1, 101))
    several_road.record(100)
    client.xtrim(KEYS[0], maxlen=0, approximate=False)
    client.xtrim(KEYS[3], maxlen=2, approximate=False)
    several_road.record(40)
    assert Counter(got_by(one)) == Counter(range(101, 241))


def test_what_was_landed_before_it_could_be_published_is_dealt_with_though_nothing_follows(
    several_road: Road, join
) -> None:
    several_road.record(50)
    one = join()
    assert sorted(got_by(one)) == list(range(1, 51))
    several_road.journal.events(30)
    several_road.journal.sequence()
    consumers.save(several_road.journal.connection, "training:a", 80)
    several_road.publish()
    assert sorted(got_by(one)) == list(range(51, 81))


def test_progress_goes_on_though_a_stream_is_idle(several_road: Road, join) -> None:
    connection = several_road.journal.connection
    with closing(join()) as one:
        several_road.journal.start("only")
        several_road.publish()
        for _ in range(3):
            several_road.journal.start(f"w-{time.time_ns()}")
            several_road.publish()
        got_by(one)
    assert consumers.position_of(connection, "group:g") == several_road.journal.sequence()


def test_consumers_die_and_streams_vanish_and_every_event_is_dealt_with(
    several_road: Road, join, client: redis.Redis
) -> None:
    chance, got, stop = random.Random(time.time_ns()), set[int](), threading.Event()
    threads = [
        threading.Thread(target=lambda each=each: each.run(lambda d: got.add(d.position), stop=stop), daemon=True)
        # A machine that stands still has them claim from each other, which counts as an attempt.
        for each in (join("one", max_attempts=1000), join("two", max_attempts=1000))
    ]
    for thread in threads:
        thread.start()
    total = 0
    for _ in range(12):
        several_road.record(chance.randint(5, 120))
        total = several_road.journal.sequence()
        match chance.randrange(5):
            case 0:
                client.flushall()
            case 1:
                client.delete(chance.choice(KEYS))
            case 2:
                client.delete(published_key(SCHEMA))
            case 3:
                client.xtrim(chance.choice(KEYS), maxlen=0, approximate=False)

    def is_done() -> bool:
        several_road.publish()
        return got == set(range(1, total + 1))

    try:
        wait_until(is_done, timeout_s=120)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


# -- where they are ---------------------------------------------------------------------------------------------


def test_a_url_says_where_and_how_many() -> None:
    target = target_of("redis+sentinel://ann:p%40ss@a,b:26380,[::1]:7/ledger?db=3&sentinel_password=s&partitions=8")
    assert (target.kind, target.master, target.partitions) == ("sentinel", "ledger", 8)
    assert target.addresses == [("a", 26379), ("b", 26380), ("::1", 7)]
    assert target.options == {"db": 3, "username": "ann", "password": "p@ss"}
    assert target.sentinel_options == {"password": "s"}
    assert "p%40ss" not in repr(target)
    cluster = target_of("rediss+cluster://a:1,b:2?ssl_ca_certs=/ca.pem")
    assert (cluster.kind, cluster.addresses, cluster.partitions) == ("cluster", [("a", 1), ("b", 2)], 1)
    assert cluster.options == {"ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert target_of("redis://h:1/2?partitions=3&socket_keepalive=yes").url == "redis://h:1/2?socket_keepalive=yes"


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ("redis://h:1/?partitions=0", "partitions=0"),
        ("redis://h:1/?partitions=many", "from 1 to 256"),
        ("redis+sentinel://h:1", "the name of their master"),
        ("redis+cluster://h:1/3", "only one database"),
        ("redis+cluster://h:1/?no_such=1", "no option no_such"),
        ("redis+cluster://", "is not HOST:PORT"),
        ("redis+sentinel://h:x/m", "'h:x' is not HOST:PORT"),
    ],
)
def test_a_url_that_means_nothing_is_refused(bad: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        target_of(bad)


@pytest.mark.parametrize(
    "where", ["redis+sentinel://u:secret@127.0.0.1:1/ledger", "redis+cluster://u:secret@127.0.0.1:1"]
)
def test_servers_that_are_away_are_reported_without_their_password(where: str) -> None:
    with closing(PartitionedRedisBus(f"{where}?partitions=2", project=SCHEMA)) as bus:
        with pytest.raises(SynapseUnavailable, match="postgres:") as caught:
            bus.last_position()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
