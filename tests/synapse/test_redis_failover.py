"""Masters that die while the log is published: nothing is lost or doubled on disk, whatever their replicas lacked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis.crc import key_slot

from support import wait_until
from support.redis import RedisCluster, RedisServer, SentinelPair
from synapse.kafka_publisher import event
from training.journal import SCHEMA, Journal
from workledger.flows.log_to_synapse import Publisher
from workledger.flows.synapse_to_consumers import LogBehind
from workledger.flows.synapse_to_training import Landing, land_once
from workledger.flows.verify_training import verify_training
from workledger.synapse.bus import Bus
from workledger.synapse.redis import stream_key
from workledger.synapse.subscribe import Subscription
from workledger.synapse.urls import open_bus
from workledger.training.store import LocalStore, open_store

LONG = {"marks": pytest.mark.chaos, "id": "the-other"}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(f"file:{tmp_path}/training?format=jsonl")


def bus_at(url: str) -> Bus:
    return open_bus(url, project=SCHEMA, home=Path(), log=list)


@pytest.fixture
def road(journal: Journal, store: LocalStore) -> Iterator[Callable[[str], None]]:
    """Publish to a bus, land from it and follow it in a group, all in the background."""
    stop = threading.Event()
    with ExitStack() as stack:

        def begin(url: str) -> set[int]:
            buses = [stack.enter_context(closing(bus_at(url))) for _ in range(2)]
            publisher = Publisher(connect=journal.connect, bus=buses[0], schema=SCHEMA)
            landing = Landing(
                connect=journal.connect, bus=buses[1], store=store, schema=SCHEMA, shard_rows=100, flush_s=0.1
            )
            backing = LogBehind(journal.connect, group="g", schema=SCHEMA)
            # What a dying server was asked for may count as an attempt, any number of times.
            options = {"begin_after": 0, "claim_after_s": 0.5, "max_attempts": 1000}
            group = Subscription(url, backing=backing, group="g", **options)
            stack.enter_context(closing(group))
            got: set[int] = set()

            def follow() -> None:
                group.run(lambda delivery: got.add(delivery.position), stop=stop)

            threads = [
                threading.Thread(target=target, args=arguments, daemon=True)
                for target, arguments in ((publisher.run, (stop,)), (landing.run, (stop,)), (follow, ()))
            ]
            for thread in threads:
                thread.start()
                stack.callback(thread.join, 30)
            stack.callback(stop.set)
            return got

        yield begin


def record(journal: Journal, name: str, *, workflows: int = 8, events: int = 200) -> None:
    for n in range(workflows):
        journal.workflow(f"{name}-{n}")
    journal.events(events)


def assert_whole(journal: Journal, store: LocalStore, url: str, got: set[int]) -> None:
    """The group dealt with all of it, the bus has come to its end, and the files have each position once."""
    head = journal.sequence()
    wait_until(lambda: got >= set(range(1, head + 1)), timeout_s=120)
    wait_until(lambda: store.position() == head, timeout_s=120)
    with closing(bus_at(url)) as bus:
        wait_until(lambda: bus.last_position() == head, timeout_s=60)
        land_once(journal.connection, bus=bus, store=store, schema=SCHEMA)
    report = verify_training(journal.connection, store)
    assert report.ok, report.findings
    assert report.position == head


@pytest.mark.parametrize("options", [pytest.param("", id="one"), pytest.param("?partitions=3", **LONG)])
def test_a_replica_that_lacks_acknowledged_entries_takes_over_and_nothing_is_lost(
    sentinel: SentinelPair, journal: Journal, store: LocalStore, road, options: str
) -> None:
    got = road(sentinel.url + options)
    record(journal, "before")
    with closing(bus_at(sentinel.url + options)) as bus:
        wait_until(lambda: last_entry_of(sentinel.replica) == journal.sequence(), timeout_s=60)
        sentinel.cut()
        record(journal, "lost")
        wait_until(lambda: bus.last_position() == journal.sequence(), timeout_s=60)
    assert last_entry_of(sentinel.replica) < journal.sequence()
    sentinel.fail_over()
    record(journal, "after")
    assert_whole(journal, store, sentinel.url + options, got)


@pytest.mark.parametrize("options", [pytest.param("", **LONG), pytest.param("?partitions=6", id="partitions")])
def test_a_node_of_a_cluster_that_dies_with_what_only_it_had_loses_nothing(
    cluster: RedisCluster, journal: Journal, store: LocalStore, road, options: str
) -> None:
    got = road(cluster.url + options)
    record(journal, "before")
    with closing(bus_at(cluster.url + options)) as bus:
        wait_until(lambda: bus.last_position() == journal.sequence(), timeout_s=60)
        cluster.nodes[3].kill()
        record(journal, "lost")
        wait_until(lambda: bus.last_position() == journal.sequence(), timeout_s=60)
    cluster.nodes[0].kill()
    cluster.nodes[3].start()
    cluster.fail_over()
    record(journal, "after")
    assert_whole(journal, store, cluster.url + options, got)


def last_entry_of(server: RedisServer) -> int:
    with server.client as client:
        keys = [key for key in client.keys("workledger:*:events") if client.type(key) == b"stream"]
        return max((int(client.xinfo_stream(key)["last-generated-id"].split(b"-")[0]) for key in keys), default=0)


@pytest.mark.parametrize("options", ["", "?partitions=6"], ids=["one", "partitions"])
def test_a_stream_is_followed_from_node_to_node_while_its_slot_is_moved(cluster: RedisCluster, options: str) -> None:
    key = stream_key(SCHEMA, 2 if options else None)
    slot = key_slot(key.encode())
    with closing(bus_at(cluster.url + options)) as bus, closing(bus_at(cluster.url + options)) as reader:

        def publish(first: int, last: int) -> None:
            bus.publish([event(n) for n in range(first, last + 1)])
            assert [each.position for each in reader.read(after=0, limit=1000)] == list(range(1, last + 1))
            assert bus.last_position() == last

        publish(1, 100)
        source = next(node for node in cluster.nodes[:3] if key.encode() in set(node.client.scan_iter()))
        target = next(node for node in cluster.nodes[:3] if node is not source)
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", identity(source))
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", identity(target))
        publish(101, 150)
        source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        publish(151, 200)
        for node in (target, source, *cluster.nodes):
            if node.client.role()[0] == b"master":
                node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", identity(target))
        publish(201, 300)


def identity(node: RedisServer) -> bytes:
    return node.client.execute_command("CLUSTER MYID")
