"""Other people's consumers: everything once is dealt with, whoever dies and whatever Redis loses."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
import pytest
import redis

from support import wait_until
from support.proxy import Proxy
from synapse.conftest import Road
from training.journal import SCHEMA
from workledger.errors import ConfigurationError
from workledger.flows.synapse_to_consumers import LogBehind, subscribe
from workledger.log import consumers
from workledger.postgres.connection import connect
from workledger.settings import Settings
from workledger.synapse.group import dead_key
from workledger.synapse.redis import RedisBus, stream_key
from workledger.synapse.subscribe import Delivery, Handler, Subscription

KEY = stream_key(SCHEMA)
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "follow-the-bus.md"

Join = Callable[..., Subscription]


@pytest.fixture
def client(any_redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(any_redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def join(redis_road: Road, any_redis_url: str) -> Iterator[Join]:
    """Become a consumer of the group `g`."""
    with ExitStack() as stack:

        def join(consumer: str = "one", **options) -> Subscription:
            backing = LogBehind(redis_road.journal.connect, group="g", schema=SCHEMA)
            options = {"begin_after": 0, "claim_after_s": 0.2, **options}
            subscription = Subscription(any_redis_url, backing=backing, group="g", consumer=consumer, **options)
            return stack.enter_context(closing(subscription))

        yield join


def positions_of(subscription: Subscription, *, idle_s: float = 0.1) -> list[int]:
    got: list[int] = []
    subscription.run(lambda delivery: got.append(delivery.position), idle_s=idle_s)
    return got


def run_until(is_done: Callable[[], object], subscription: Subscription, handler: Handler) -> None:
    """Run until all that is awaited has come, however late, and then nothing more."""

    def is_done_when_nothing_comes() -> object:
        subscription.run(handler, idle_s=0.1)
        return is_done()

    wait_until(is_done_when_nothing_comes, timeout_s=60)


def test_a_consumer_gets_the_whole_log_in_its_order(redis_road: Road, join: Join) -> None:
    redis_road.record(1200)
    one = join()
    assert positions_of(one) == list(range(1, 1201))
    redis_road.record(5)
    assert positions_of(one) == list(range(1201, 1206))


def test_a_delivery_is_the_event_as_it_was_recorded(redis_road: Road, join: Join) -> None:
    redis_road.journal.event({"text": "nul \x00, lone \ud83d, owl 🦉", "big": 2**70})
    redis_road.publish()
    got: list[Delivery] = []
    join().run(got.append, idle_s=0.1)
    (delivery,) = got
    assert (delivery.position, delivery.event_type, delivery.attempt) == (1, "cache.hit", 1)
    assert delivery.event["payload"] == {"text": "nul \x00, lone \ud83d, owl 🦉", "big": 2**70}


def test_a_new_group_begins_with_what_comes_from_now_on(redis_road: Road, join: Join) -> None:
    redis_road.record(10)
    one = join(begin_after=None)
    assert positions_of(one) == []
    redis_road.record(3)
    assert positions_of(one) == [11, 12, 13]


def test_a_group_goes_on_where_it_was(redis_road: Road, join: Join) -> None:
    redis_road.record(10)
    one = join()
    assert positions_of(one) == list(range(1, 11))
    one.close()
    redis_road.record(2)
    assert positions_of(join("two", begin_after=None)) == [11, 12]


def test_consumers_share_the_events_out(redis_road: Road, join: Join) -> None:
    redis_road.record(1)
    one, two = join("one", claim_after_s=60.0), join("two", claim_after_s=60.0)
    assert positions_of(one) == [1]
    redis_road.record(3000)
    got: dict[str, list[int]] = {"one": [], "two": []}
    both = threading.Barrier(2, timeout=60)

    def deal(subscription: Subscription) -> None:
        def handle(delivery: Delivery) -> None:
            if not got[subscription.consumer]:
                both.wait()  # neither may be through before the other has begun
            got[subscription.consumer].append(delivery.position)

        subscription.run(handle, idle_s=0.3)

    threads = [threading.Thread(target=deal, args=(each,), daemon=True) for each in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got["one"] + got["two"]) == list(range(2, 3002))
    assert got["one"]
    assert got["two"]


def test_only_the_types_asked_for_come(redis_road: Road, join: Join) -> None:
    redis_road.journal.workflow("w-1")
    redis_road.publish()
    got: list[str] = []
    join(event_types={"workflow.started", "workflow.completed"}).run(lambda d: got.append(d.event_type), idle_s=0.1)
    assert got == ["workflow.started", "workflow.completed"]


def test_an_iteration_deals_with_an_event_when_it_asks_for_the_next(redis_road: Road, join: Join) -> None:
    redis_road.record(1)
    one = join()
    assert positions_of(one) == [1]
    redis_road.record(4)
    for delivery in one:
        if delivery.position == 3:
            break
    again = [(delivery.position, delivery.attempt) for _, delivery in zip(range(3), one, strict=False)]
    # What was behind it can be claimed at once. It comes first, unless the machine stands still meanwhile.
    assert sorted(again) == [(3, 2), (4, 2), (5, 2)]


# -- what the stream loses --------------------------------------------------------------------------------------


def test_what_was_cut_from_the_stream_is_read_from_the_log_first(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(1)
    one = join()
    assert positions_of(one) == [1]
    redis_road.record(1500)
    client.xtrim(KEY, minid="1400-0", approximate=False)
    assert positions_of(one) == list(range(2, 1502))


def test_what_was_cut_at_the_end_comes_without_another_event(redis_road: Road, join: Join, client: redis.Redis) -> None:
    redis_road.record(1)
    one = join()
    assert positions_of(one) == [1]
    redis_road.record(20)
    client.xtrim(KEY, maxlen=0, approximate=False)
    assert positions_of(one) == list(range(2, 22))


def test_what_was_cut_while_a_dead_consumer_had_it_is_dealt_with(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(1)
    assert positions_of(join()) == [1]
    redis_road.record(10)
    client.xreadgroup("g", "dead", {KEY: ">"}, count=4)
    client.xtrim(KEY, minid="4-0", approximate=False)
    got: list[int] = []
    run_until(lambda: len(got) >= 10, join("two"), lambda delivery: got.append(delivery.position))
    assert sorted(got) == list(range(2, 12))


def test_after_a_flush_nothing_that_was_dealt_with_is_missing_and_all_else_comes(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(50)
    one = join()
    assert positions_of(one) == list(range(1, 51))
    one.close()
    redis_road.record(50)
    client.flushall()
    assert positions_of(join("two")) == list(range(51, 101))
    client.flushall()
    redis_road.record(5)
    assert set(range(101, 106)) <= set(positions_of(join("three"), idle_s=0.3))


def test_a_flush_while_consumers_work_costs_repetitions_at_most(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(1)
    one = join()
    assert positions_of(one) == [1]
    got: Counter[int] = Counter()

    def handle(delivery: Delivery) -> None:
        got[delivery.position] += 1
        if delivery.position % 200 == 0 and got[delivery.position] == 1:
            client.flushall()

    redis_road.record(1000)
    one.run(handle, idle_s=0.5)
    redis_road.record(1)
    one.run(handle, idle_s=0.5)
    assert set(got) - {1} == set(range(2, 1003))


# -- consumers that fail or die ---------------------------------------------------------------------------------


def test_what_a_dead_consumer_was_given_goes_to_another(redis_road: Road, join: Join, client: redis.Redis) -> None:
    redis_road.record(1)
    assert positions_of(join()) == [1]
    redis_road.record(10)
    client.xreadgroup("g", "dead", {KEY: ">"}, count=4)
    got: list[tuple[int, int]] = []
    run_until(lambda: len(got) >= 10, join("two"), lambda delivery: got.append((delivery.position, delivery.attempt)))
    assert sorted(got) == [(n, 2) for n in range(2, 6)] + [(n, 1) for n in range(6, 12)]


def test_a_slow_handler_keeps_what_it_was_given_as_long_as_no_single_event_is_too_slow(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(1)
    one, two = join("one", claim_after_s=30.0), join("two", claim_after_s=30.0)
    assert positions_of(one) == [1]
    redis_road.record(10)
    got: list[int] = []
    claimed: list[object] = []

    def take(delivery: Delivery, *, took_s: int) -> None:
        got.append(delivery.position)
        pass_time(client, one, took_s)
        two._next_claim_s = 0
        claimed.append(two._look()[:2])

    one.run(lambda delivery: take(delivery, took_s=6), idle_s=0.1)  # a minute for all of them
    assert got == list(range(2, 12))
    assert claimed == [([], [])] * 10
    redis_road.record(2)
    one.run(lambda delivery: take(delivery, took_s=31), idle_s=0.1)
    assert claimed[10] != ([], [])


def pass_time(client: redis.Redis, subscription: Subscription, seconds: int) -> None:
    """Let what is in hand, and the consumer that has it, be older by so much."""
    for each in client.xpending_range(KEY, "g", "-", "+", 100):
        idle_ms = each["time_since_delivered"] + seconds * 1000
        client.xclaim(KEY, "g", each["consumer"], 0, [each["message_id"]], idle=idle_ms, justid=True)
    subscription._next_hold_s -= seconds
    subscription._next_flush_s -= seconds


def test_an_event_that_fails_is_given_again_and_then_goes_to_the_dead_letters(
    redis_road: Road, join: Join, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_road.record(1)
    one = join(max_attempts=3, claim_after_s=0.05)
    assert positions_of(one) == [1]
    redis_road.record(5)
    got: Counter[int] = Counter()

    def handle(delivery: Delivery) -> None:
        got[delivery.position] += 1
        if delivery.position == 4:
            raise ValueError("no owls")

    with caplog.at_level(logging.WARNING):
        run_until(lambda: client.xlen(dead_key(SCHEMA, "g")), one, handle)
        one.run(handle, idle_s=0.5)
    assert got == Counter({2: 1, 3: 1, 4: 3, 5: 1, 6: 1})
    ((_, dead),) = client.xrange(dead_key(SCHEMA, "g"))
    assert orjson.loads(dead[b"data"])["position"] == 4
    assert (dead[b"position"], dead[b"attempts"], dead[b"reason"]) == (b"4", b"3", b"ValueError: no owls")
    assert client.xpending(KEY, "g")["pending"] == 0
    assert "no owls" in caplog.text


def test_an_event_from_the_log_that_fails_is_given_again_by_itself_and_then_goes_to_the_dead_letters(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(600)
    client.flushall()
    got: Counter[int] = Counter()

    def handle(delivery: Delivery) -> None:
        got[delivery.position] += 1
        if delivery.position == 333:
            raise ValueError("no owls")

    one = join(max_attempts=3, claim_after_s=0.05)
    run_until(lambda: client.xlen(dead_key(SCHEMA, "g")), one, handle)
    one.run(handle, idle_s=0.5)
    assert got == Counter({n: 3 if n == 333 else 1 for n in range(1, 601)})
    assert [entry[b"position"] for _, entry in client.xrange(dead_key(SCHEMA, "g"))] == [b"333"]
    one.close()
    assert consumers.position_of(redis_road.journal.connection, "group:g") == 600


def test_an_event_that_kills_its_consumers_goes_to_the_dead_letters(
    redis_road: Road, join: Join, client: redis.Redis
) -> None:
    redis_road.record(1)
    assert positions_of(join()) == [1]
    redis_road.record(1)
    client.xreadgroup("g", "dead-1", {KEY: ">"})
    for n in range(2, 4):
        client.xclaim(KEY, "g", f"dead-{n}", 0, ["2-0"])
    got: list[Delivery] = []
    run_until(lambda: client.xlen(dead_key(SCHEMA, "g")), join("two", max_attempts=3), got.append)
    assert got == []
    ((_, dead),) = client.xrange(dead_key(SCHEMA, "g"))
    assert b"never came back" in dead[b"reason"]


def test_a_group_keeps_no_list_of_the_consumers_that_left(redis_road: Road, join: Join, client: redis.Redis) -> None:
    redis_road.record(3)
    for name in ("one", "two", "three"):
        one = join(name)
        one.run(lambda _: None, idle_s=0.1)
        one.close()
    assert client.xinfo_consumers(KEY, "g") == []


# -- what is away -----------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_waited_for_and_that_is_said_once(journal, caplog: pytest.LogCaptureFixture) -> None:
    backing = LogBehind(journal.connect, group="g", schema=SCHEMA)
    stop = threading.Event()
    with caplog.at_level(logging.INFO), closing(Subscription("redis://127.0.0.1:1", backing=backing, group="g")) as one:
        waiting = threading.Thread(target=lambda: one.run(lambda _: None, stop=stop), daemon=True)
        waiting.start()
        wait_until(lambda: "subscription.waiting" in caplog.text, timeout_s=60)
        time.sleep(0.5)
        stop.set()
        waiting.join(60)
    assert not waiting.is_alive()
    assert caplog.text.count("subscription.waiting") == 1


def test_what_was_landed_before_it_could_be_published_is_dealt_with_though_nothing_follows(
    redis_road: Road, join: Join
) -> None:
    redis_road.record(10)
    one = join()
    assert positions_of(one) == list(range(1, 11))
    redis_road.journal.events(5)
    redis_road.journal.sequence()
    consumers.save(redis_road.journal.connection, "training:a", 15)  # read from PostgreSQL while Redis was away
    redis_road.publish()
    assert positions_of(one) == list(range(11, 16))
    assert redis_road.publish() == 0


def test_after_a_time_without_postgresql_what_the_stream_lost_is_read_all_the_same(
    redis_road: Road, any_redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[int] = []
    stop = threading.Event()
    with Proxy(redis_road.journal.url) as proxy:
        backing = LogBehind(lambda: connect(proxy.url, schema=SCHEMA), group="g", schema=SCHEMA)
        with closing(Subscription(any_redis_url, backing=backing, group="g", begin_after=0)) as one:
            running = threading.Thread(target=lambda: one.run(lambda d: got.append(d.position), stop=stop), daemon=True)
            running.start()
            redis_road.record(5)
            wait_until(lambda: len(got) == 5, timeout_s=60)
            proxy.refuse()
            redis_road.record(5)
            client.flushall()
            wait_until(lambda: "subscription.waiting" in caplog.text, timeout_s=60)
            proxy.heal()
            wait_until(lambda: set(got) == set(range(1, 11)), timeout_s=60)
            stop.set()
            running.join(60)


def test_settings_without_redis_or_database_are_refused() -> None:
    for settings in (Settings(database_url="postgresql://h/d"), Settings(synapse_url="redis://h")):
        with pytest.raises(ConfigurationError, match="WORKLEDGER_DATABASE_URL"):
            subscribe("g", settings=settings)


# -- attacks and documents --------------------------------------------------------------------------------------

CONSUMER = """
import os, sys
from workledger.flows.synapse_to_consumers import subscribe
from workledger.settings import load_settings
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
options = {"begin_after": 0, "claim_after_s": 0.5, "max_attempts": 1000}  # being killed is no fault of an event
with subscribe("g", settings=load_settings(), **options) as subscription:
    subscription.run(lambda delivery: os.write(out, b"%d\\n" % delivery.position))
"""


def attack(road: Road, client: redis.Redis, url: str, folder: Path, *, rounds: int) -> None:
    """Kill consumers, cut and flush the stream while events come; then see who dealt with what."""
    chance, out = random.Random(time.time_ns()), folder / "dealt-with"
    environment = {
        **os.environ,
        "WORKLEDGER_SYNAPSE_URL": url,
        "WORKLEDGER_DATABASE_URL": road.journal.url,
        "WORKLEDGER_PROJECT": SCHEMA,
    }

    def consumer() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CONSUMER, str(out)], env=environment, cwd=folder)

    alive = [consumer() for _ in range(2)]
    total = 0
    try:
        for _ in range(rounds):
            count = chance.randint(50, 900)
            road.record(count)
            total += count
            time.sleep(chance.uniform(0, 0.4))
            match chance.randrange(4):
                case 0:
                    client.flushall()
                case 1:
                    client.xtrim(KEY, maxlen=chance.randrange(20), approximate=False)
                case _:
                    killed = alive.pop(chance.randrange(2))
                    killed.send_signal(signal.SIGKILL)
                    killed.wait(30)
                    alive.append(consumer())
        wait_until(lambda: _dealt_with(out) >= set(range(1, total + 1)), timeout_s=120)
        assert _dealt_with(out) == set(range(1, total + 1))
    finally:
        for process in alive:
            process.kill()
            process.wait(30)
    assert client.xlen(dead_key(SCHEMA, "g")) == 0


def _dealt_with(out: Path) -> set[int]:
    return {int(line) for line in out.read_text().split()} if out.exists() else set()


def test_consumers_killed_and_streams_lost_leave_nothing_undone(
    redis_road: Road, client: redis.Redis, any_redis_url: str, tmp_path: Path
) -> None:
    attack(redis_road, client, any_redis_url, tmp_path, rounds=4)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_hundred_rounds_of_killing_consumers_and_losing_streams_leave_nothing_undone(
    redis_road: Road, client: redis.Redis, any_redis_url: str, tmp_path: Path
) -> None:
    attack(redis_road, client, any_redis_url, tmp_path, rounds=100)


def test_the_example_in_the_how_to_runs(
    redis_road: Road, any_redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_road.journal.workflow("w-1")
    redis_road.publish()
    (code,) = re.findall(r"```python\n(# subscribe\.py\n.*?)```", HOW_TO.read_text(), re.DOTALL)
    (tmp_path / "subscribe_example.py").write_text(code)
    environment = {
        **os.environ,
        "WORKLEDGER_SYNAPSE_URL": any_redis_url,
        "WORKLEDGER_DATABASE_URL": redis_road.journal.url,
    }
    process = subprocess.Popen(
        [sys.executable, "subscribe_example.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "12 w-1 completed: 'done'"
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_bus_goes_on_beside_a_group(redis_road: Road, join: Join, any_redis_url: str) -> None:
    one = join()
    assert positions_of(one) == []
    with closing(RedisBus(any_redis_url, project=SCHEMA)) as bus:
        assert bus.last_position() == 0
    redis_road.record(3)
    assert redis_road.bus.last_position() == 3
    assert positions_of(one) == [1, 2, 3]
