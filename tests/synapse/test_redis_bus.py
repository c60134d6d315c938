"""What Redis may do to us, and what other people's consumers see in it."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import orjson
import pytest
import redis

from support import wait_until
from support.redis import RedisServer
from synapse.conftest import Road
from training.journal import SCHEMA, Journal
from workledger.errors import ConfigurationError, SynapseUnavailable
from workledger.flows import log_to_synapse
from workledger.flows.log_to_synapse import Publisher, durable_position, publish_once
from workledger.log import consumers
from workledger.synapse.bus import BusEvent
from workledger.synapse.redis import RedisBus, stream_key
from workledger.training.log_lines import LogLines

KEY = stream_key(SCHEMA)


@pytest.fixture
def client(any_redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(any_redis_url, protocol=2)


def ids(client: redis.Redis) -> list[int]:
    return [int(entry_id.split(b"-")[0]) for entry_id, _ in client.xrange(KEY)]


def test_an_entry_is_a_cloudevent(redis_road: Road, client: redis.Redis) -> None:
    redis_road.journal.start("wf-1")
    redis_road.publish()
    ((entry_id, fields),) = client.xrange(KEY)
    assert entry_id == b"1-0"
    data = orjson.loads(fields[b"data"])
    assert data["payload"]["name"] == "research"
    assert {name.decode(): value.decode() for name, value in fields.items() if name != b"data"} == {
        "ce_specversion": "1.0",
        "ce_id": data["event_id"],
        "ce_source": "urn:workledger:workledger",
        "ce_type": "workflow.started",
        "ce_subject": "workflow/wf-1",
        "ce_time": data["created_at"],
        "ce_partitionkey": "wf-1",
        "content-type": "application/json",
    }


def test_after_a_flush_the_stream_goes_on_from_where_every_store_has_landed(
    redis_road: Road, client: redis.Redis
) -> None:
    redis_road.record(20)
    consumers.save(redis_road.journal.connection, "training:a", 12)
    consumers.save(redis_road.journal.connection, "training:b", 15)
    client.flushall()
    redis_road.record(5)
    assert ids(client) == list(range(13, 26))


def test_after_a_flush_with_no_store_the_stream_begins_anew(redis_road: Road, client: redis.Redis) -> None:
    redis_road.record(3)
    client.flushall()
    assert redis_road.publish() == 3
    assert ids(client) == [1, 2, 3]


def test_the_stream_is_cut_only_below_the_lowest_store(redis_road: Road, client: redis.Redis) -> None:
    redis_road.record(20)
    consumers.save(redis_road.journal.connection, "training:a", 18)
    consumers.save(redis_road.journal.connection, "training:b", 7)
    consumers.save(redis_road.journal.connection, "metrics", 2)
    redis_road.record(1)
    assert ids(client) == list(range(8, 22))


def test_an_abandoned_store_does_not_keep_the_stream_for_ever(redis_road: Road) -> None:
    connection = redis_road.journal.connection
    consumers.save(connection, "training:a", 18)
    consumers.save(connection, "training:gone", 7)
    assert durable_position(connection) == 7
    connection.execute("UPDATE consumers SET updated_at = now() - interval '2 days' WHERE name = 'training:gone'")
    assert durable_position(connection) == 18


def test_an_empty_stream_is_not_filled_with_the_whole_past(
    redis_road: Road, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_to_synapse, "MAX_BACKLOG", 10)
    redis_road.record(25)
    assert ids(client) == list(range(16, 26))


def test_a_flush_leaves_a_gap_that_a_reader_can_see(redis_road: Road, client: redis.Redis) -> None:
    redis_road.record(10)
    client.flushall()
    redis_road.journal.events(1)
    redis_road.journal.sequence()
    (line,) = LogLines(redis_road.journal.connection).read(after=10, limit=1)
    redis_road.bus.publish([BusEvent(*line)])
    assert [event.position for event in redis_road.bus.read(after=4, limit=10)] == [11]


def test_the_stream_of_a_database_that_was_made_anew_is_refused(redis_road: Road, client: redis.Redis) -> None:
    redis_road.record(3)
    (data,) = [fields for _, fields in client.xrange(KEY, min="3-0")]
    data[b"data"] = data[b"data"].replace(b'"event_id":"0', b'"event_id":"1')
    client.delete(KEY)
    client.xadd(KEY, data, id="3-0")
    with pytest.raises(ConfigurationError, match="position 3 of another log"):
        redis_road.publish()
    client.delete(KEY)
    client.xadd(KEY, data, id="9-0")
    with pytest.raises(ConfigurationError, match="the log ends at 3"):
        redis_road.publish()


def test_a_key_that_is_no_stream_is_named(redis_road: Road, client: redis.Redis) -> None:
    client.set(KEY, "mine")
    redis_road.journal.events(1)
    with pytest.raises(ConfigurationError, match=r"workledger:\{workledger\}:events"):
        redis_road.publish()


def test_a_server_that_is_full_says_so_and_loses_nothing(redis_road: Road, client: redis.Redis) -> None:
    redis_road.record(5)
    client.config_set("maxmemory", 1)
    client.config_set("maxmemory-policy", "noeviction")
    try:
        redis_road.journal.events(5)
        with pytest.raises(SynapseUnavailable, match="full"):
            redis_road.publish()
    finally:
        client.config_set("maxmemory", 0)
    redis_road.publish()
    assert ids(client) == list(range(1, 11))


def test_a_server_that_is_away_is_reported_without_its_password() -> None:
    bus = RedisBus("redis://user:secret@127.0.0.1:1/0", project=SCHEMA)
    with pytest.raises(SynapseUnavailable, match="postgres:") as caught:
        bus.last_position()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


def test_credentials_that_expire_are_said_once_and_when_they_are_good_again_the_log_goes_on(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(tmp_path / "redis", "--save", "")
    server.start()
    server.client.config_set("requirepass", "good")
    url = f"redis://:good@127.0.0.1:{server.port}"
    stop = threading.Event()
    with closing(RedisBus(url, project=SCHEMA)) as bus:
        publisher = Publisher(connect=journal.connect, bus=bus, schema=SCHEMA)
        tries, publish_once = list[int](), publisher.publish_once
        monkeypatch.setattr(publisher, "publish_once", lambda: tries.append(1) or publish_once())
        thread = threading.Thread(target=publisher.run, args=(stop,), daemon=True)
        thread.start()
        with redis.Redis.from_url(url, protocol=2) as admin:
            journal.events(3)
            wait_until(lambda: admin.exists(KEY) and ids(admin) == [1, 2, 3], timeout_s=60)
            admin.config_set("requirepass", "other")
            admin.client_kill_filter(skipme=True, _type="normal")
            journal.events(3)
            wait_until(lambda: "publisher.waiting" in caplog.text, timeout_s=60)
            before = len(tries)
            wait_until(lambda: len(tries) >= before + 2, timeout_s=60)
            assert ids(admin) == [1, 2, 3]
            admin.config_set("requirepass", "good")
            wait_until(lambda: ids(admin) == [1, 2, 3, 4, 5, 6], timeout_s=60)
        stop.set()
        thread.join(30)
    server.kill()
    assert caplog.text.count("publisher.waiting") == 1
    assert "WORKLEDGER_SYNAPSE_URL" in caplog.text
    assert "good" not in caplog.text


def test_connections_that_the_server_closed_are_replaced(redis_road: Road, client: redis.Redis) -> None:
    redis_road.record(1)
    for other in client.client_list():
        if other["id"] != client.client_id():
            client.client_kill_filter(_id=other["id"])
    assert redis_road.bus.last_position() == 1


def test_a_publisher_object_keeps_publishing_over_its_own_connection(redis_road: Road, client: redis.Redis) -> None:
    publisher = Publisher(connect=redis_road.journal.connect, bus=redis_road.bus, schema=SCHEMA)
    for _ in range(3):
        redis_road.journal.events(2)
        assert publisher.publish_once() == 2
    publisher.close()
    assert ids(client) == list(range(1, 7))


def test_large_events_go_in_pipelines_of_bounded_size(redis_road: Road, client: redis.Redis) -> None:
    for n in range(3):
        redis_road.journal.start(f"wf-{n}", metadata={"text": "x" * 3_000_000})
    publish_once(redis_road.journal.connection, bus=redis_road.bus, schema=SCHEMA)
    assert ids(client) == [1, 2, 3]
    assert [len(event.data) > 3_000_000 for event in redis_road.bus.read(after=0, limit=9)] == [True] * 3
