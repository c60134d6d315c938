"""Reading the log: as it grows, by entity and time, as lines; and dealing with each event once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from support import changes
from support.waiting import wait_until
from workledger.errors import DatabaseUnavailable, InvalidInput
from workledger.log import reader
from workledger.log.consumers import consumers, position_of
from workledger.log.follow import consume, follow
from workledger.log.follow_lines import lines
from workledger.log.follow_selection import Selection, of_entity, over_time
from workledger.log.sequencer import channel, sequence
from workledger.postgres.statements import load
from workledger.training.log_lines import LogLines


class Following:
    """A follower in a thread of its own."""

    def __init__(self, log, **options):
        self.seen = []
        self.stop = threading.Event()
        self._log = log
        self._connection = log.connect()
        options = {"after": 0, "poll_s": 0.1, "stop": self.stop} | options
        self._thread = threading.Thread(target=self._run, args=(log.schema, options))
        self._thread.start()

    def _run(self, schema, options):
        for event in follow(self._connection, schema=schema, **options):
            self.seen.append(event)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._log.connection.execute(f"NOTIFY {channel(self._log.schema)}")
        self._thread.join(timeout=120)
        self._connection.close()

    @property
    def positions(self):
        return [event.position for event in self.seen]


def test_a_follower_sees_every_event_in_order_and_needs_nobody_who_sequences(log):
    with Following(log) as following:
        for _ in range(5):
            log.record(*changes.whole_workflow())
        log.record(log.own_event())
        wait_until(lambda: len(following.seen) == 31)
    assert following.positions == list(range(1, 32))


def test_a_follower_is_woken_by_whoever_sequences_and_does_not_wait_for_its_next_look(log):
    log.fill(1)
    with Following(log, poll_s=600) as following:
        wait_until(lambda: following.positions == list(range(1, log.head + 1)))
        log.record(log.own_event())
        log.sequence()
        wait_until(lambda: following.positions == list(range(1, log.head + 1)), timeout_s=60)


def test_a_follower_that_is_not_told_looks_by_itself(log):
    with Following(log, listening=False) as following:
        log.record(log.own_event())
        wait_until(lambda: following.seen)


def test_a_follower_begins_now_unless_it_is_told_where(log):
    log.fill(10)
    head = log.head
    with Following(log, after=None) as following:

        def has_begun():
            log.record(log.own_event())
            return following.seen

        wait_until(has_begun)
    first = following.positions[0]
    assert first > head
    assert following.positions == list(range(first, first + len(following.seen)))


def test_a_follower_may_want_only_some(log):
    wanted = Selection(event_type="cache.hit", entity_id="b")
    with Following(log, selection=wanted) as following:
        log.record(log.own_event(entity_id="a"), log.own_event("cache.miss", entity_id="b"))
        log.record(log.own_event(entity_id="b"), *changes.whole_workflow())
        wait_until(lambda: following.seen)
    assert following.positions == [3]


def test_a_follower_ends_when_nothing_comes_any_more(log):
    log.fill(10)
    events = list(follow(log.connection, schema=log.schema, after=0, idle_s=0.2))
    assert len(events) == log.head
    assert log.connection.execute("SELECT pg_listening_channels()").fetchall() == []


# -- named consumers --------------------------------------------------------------------------------------------


def test_a_consumers_cursor_moves_with_its_effect_or_not_at_all(log):
    log.fill(10)
    log.connection.execute("CREATE TABLE effect (position bigint)")
    insert = "INSERT INTO effect VALUES (%s)"
    with pytest.raises(ZeroDivisionError), consume(log.connection, "mailer", limit=4) as events:
        for event in events:
            log.connection.execute(insert, (event.position,))
        _ = 1 / 0
    assert position_of(log.connection, "mailer") == 0
    with consume(log.connection, "mailer", limit=4) as events:
        for event in events:
            log.connection.execute(insert, (event.position,))
    assert position_of(log.connection, "mailer") == 4
    assert log.connection.execute("SELECT array_agg(position) FROM effect").fetchone() == ([1, 2, 3, 4],)
    (mailer,) = [consumer for consumer in consumers(log.connection) if consumer.name == "mailer"]
    assert mailer.lag == log.head - 4


def test_a_consumer_that_has_everything_gets_nothing(log):
    log.fill(3)
    with consume(log.connection, "mailer") as events:
        assert len(events) == log.head
    with consume(log.connection, "mailer") as events:
        assert events == []


def test_copies_of_a_consumer_deal_with_each_event_once(log):
    log.fill(200)
    log.connection.execute("CREATE TABLE effect (position bigint)")

    def work():
        with log.connect() as connection:
            while True:
                with consume(connection, "mailer", limit=7) as events:
                    for event in events:
                        connection.execute("INSERT INTO effect VALUES (%s)", (event.position,))
                if not events:
                    return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.connection.execute("SELECT array_agg(position ORDER BY position) FROM effect").fetchone() == (
        list(range(1, log.head + 1)),
    )


_CONSUME = """
import sys
from workledger.log.follow import consume
from workledger.postgres.connection import connect
connection = connect(sys.argv[1])
print("ready", flush=True)
while True:
    with consume(connection, "mailer", limit=3) as events:
        for event in events:
            connection.execute("INSERT INTO effect VALUES (%s)", (event.position,))
"""


def test_a_consumer_killed_again_and_again_has_each_effect_once(log):
    log.fill(300)
    log.connection.execute("CREATE TABLE effect (position bigint)")
    for round_ in range(8):
        process = subprocess.Popen([sys.executable, "-c", _CONSUME, log.url], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.004 * round_)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    while True:
        with consume(log.connection, "mailer") as events:
            for event in events:
                log.connection.execute("INSERT INTO effect VALUES (%s)", (event.position,))
        if not events:
            break
    assert log.connection.execute("SELECT array_agg(position ORDER BY position) FROM effect").fetchone() == (
        list(range(1, log.head + 1)),
    )


# -- by entity, by time -----------------------------------------------------------------------------------------


def test_the_events_of_an_entity_come_in_the_order_of_the_log(log):
    log.record(*[log.own_event(entity_id=f"c{n % 3}", payload={"n": n}) for n in range(12)])
    log.sequence()
    log.record(log.own_event(entity_id="c1"))
    events = of_entity(log.connection, "cache", "c1")
    assert [event.payload["n"] for event in events] == [1, 4, 7, 10]
    assert of_entity(log.connection, "cache", "c1", after=events[1].position, limit=1) == events[2:3]
    assert of_entity(log.connection, "cache", "nobody") == []


def at(day: int, **fields) -> datetime:
    return datetime(2025, 3, day, 12, tzinfo=UTC) + timedelta(**fields)


@pytest.fixture
def spread(log):
    """An event a day around the turn of two months, recorded in no order, and one that waits for its position."""
    days = [at(1) + timedelta(days=n) for n in (40, 3, 35, 0, 20, 10)]
    log.record(*[log.own_event("even" if n % 2 else "odd", at=day) for n, day in enumerate(days)])
    log.sequence()
    log.record(log.own_event("late", at=at(5)))
    return log


def test_the_events_of_a_time_come_in_the_order_of_time(spread):
    days = [event.created_at for event in over_time(spread.connection, since=at(4), until=at(1, days=35), page=2)]
    assert days == [at(4), at(5), at(11), at(21)]
    assert [event.event_type for event in over_time(spread.connection, event_type="even", page=1)] == ["even"] * 3
    (late,) = over_time(spread.connection, event_type="late")
    assert late.position is None


def test_the_bounds_of_a_time_are_from_up_to_but_not_including(spread):
    assert [event.created_at for event in over_time(spread.connection, since=at(4), until=at(5))] == [at(4)]
    assert list(over_time(spread.connection, since=at(6), until=at(6))) == []


def test_a_time_without_a_zone_is_refused(log):
    with pytest.raises(InvalidInput, match="no time zone"):
        list(over_time(log.connection, since=datetime(2025, 1, 1)))


def test_only_the_partitions_of_the_time_asked_for_are_read(spread):
    spread.connection.execute("PREPARE q AS " + load("workledger.log", "read_time"), prepare=False)
    for mode in ("force_custom_plan", "force_generic_plan"):
        spread.connection.execute(f"SET plan_cache_mode = {mode}")
        plan = spread.connection.execute(
            "EXPLAIN EXECUTE q ('2025-03-02', '2025-03-20', NULL, 'odd', 100)", prepare=False
        ).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "events_2025_03" in text
        assert "events_2025_04" not in text
        assert "Seq Scan on events" not in text


# -- lines ------------------------------------------------------------------------------------------------------


def test_a_line_is_the_event_as_json(any_log):
    nasty = 'é"\\\n\t\u2028\x01\x02\\. \U0001f600'
    any_log.fill(20)
    any_log.record(any_log.own_event(payload={nasty: [nasty, None, 1.0]}, entity_id="\\."))
    any_log.sequence()
    events = reader.read(any_log.connection, after=0)
    found = list(lines(any_log.connection))
    assert len(found) == len(events) == any_log.head
    for line, event in zip(found, events, strict=True):
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        document = json.loads(line)
        assert document.pop("payload") == json.loads(event.payload_json)
        for key in ("created_at", "recorded_at"):
            assert datetime.fromisoformat(document.pop(key)) == getattr(event, key)
        assert document == {name: getattr(event, name) for name in document}


def test_lines_are_those_that_training_lands(log):
    log.fill(30)
    landed = [line for _, _, line in LogLines(log.connection).read(after=0, limit=100)]
    assert [line.rstrip(b"\n") for line in lines(log.connection)] == landed


def test_a_page_that_another_thread_reads_in_one_call_is_the_same(log):
    log.fill(30)
    page = LogLines(log.connection).read(after=0, limit=100)
    with ThreadPoolExecutor(1) as pool:
        lines_there = LogLines(log.connection)
        assert pool.submit(lines_there.read, after=0, limit=100).result(60) == page
        assert pool.submit(lines_there.read, after=7, limit=5).result(60) == page[7:12]
        with log.connection.transaction():  # somebody's: then it is read piece by piece
            assert pool.submit(lines_there.read, after=0, limit=100).result(60) == page
    assert len(page) == log.head


@pytest.fixture
def long_log(any_log):
    """A log that is long enough for PostgreSQL to put several processes to it."""
    any_log.connection.execute(
        "WITH e AS (INSERT INTO events (event_id, event_type, payload)"
        " SELECT uuid_floor(date_trunc('month', now()) + n * interval '1 ms'), 'e', jsonb_build_object('n', n)"
        " FROM generate_series(1, 30000) AS n RETURNING event_id)"
        " INSERT INTO event_inbox (event_id) SELECT event_id FROM e"
    )
    any_log.sequence()
    any_log.connection.execute("VACUUM ANALYZE")
    return any_log


def test_lines_made_over_two_connections_are_the_same_in_the_same_order(long_log):
    made_by_one = list(lines(long_log.connection))
    assert list(lines(long_log.connection, connect=long_log.connect)) == made_by_one
    assert [json.loads(line)["position"] for line in made_by_one] == list(range(1, long_log.head + 1))


def test_a_block_of_lines_walks_the_index_and_reads_no_partition_whole(long_log):
    query = load("workledger.log", "lines").replace("$1", "4000").replace("$2", "6000")
    with long_log.connection.transaction():
        long_log.connection.execute(load("workledger.log", "pin_plans"))
        plan = long_log.connection.execute("EXPLAIN " + query)
        text = "\n".join(line for (line,) in plan.fetchall())
    assert "Index Scan using event_positions_pkey" in text
    assert "Seq Scan" not in text


def test_a_log_of_any_length_comes_whole(long_log):
    for upto in (0, 1, 1999, 2000, 2001, 4000, 5999):
        assert sum(1 for _ in lines(long_log.connection, upto=upto)) == upto


def test_who_takes_only_some_lines_of_many_leaves_the_connection_usable(long_log):
    some = lines(long_log.connection, connect=long_log.connect)
    assert len(list(islice(some, 3))) == 3
    some.close()
    assert sequence(long_log.connection, schema=long_log.schema) == 0


def test_a_connection_that_is_lost_in_mid_reading_is_told(long_log):
    some = lines(long_log.connection, connect=long_log.connect)
    next(some)
    with long_log.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (long_log.connection.info.backend_pid,))
    with pytest.raises(DatabaseUnavailable):
        list(some)


def test_lines_begin_and_end_where_they_are_asked_to(log):
    log.fill(30)
    found = [json.loads(line)["position"] for line in lines(log.connection, after=4, upto=9)]
    assert found == [5, 6, 7, 8, 9]
    assert list(lines(log.connection, after=log.head)) == []


def test_who_takes_only_some_lines_leaves_the_connection_usable(log):
    log.fill(30)
    some = lines(log.connection)
    assert len(list(islice(some, 3))) == 3
    some.close()
    assert sequence(log.connection, schema=log.schema) == 0
