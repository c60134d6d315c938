"""What every bus promises; a new one is one file and its line in `road`."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import orjson

from synapse.conftest import Road
from training.journal import SCHEMA
from workledger.flows.log_to_synapse import publish_once


def positions(road: Road, after: int = 0) -> list[int]:
    """Everything after a position, however many pages that takes."""
    found: list[int] = []
    while page := road.bus.read(after=found[-1] if found else after, limit=1000):
        found += [event.position for event in page]
    return found


def test_an_empty_bus_has_position_zero_and_nothing_to_read(road: Road) -> None:
    assert road.bus.last_position() == 0
    assert road.bus.read(after=0, limit=10) == []


def test_events_come_back_in_the_order_of_the_log(road: Road) -> None:
    road.record(25)
    assert road.bus.last_position() == 25
    assert positions(road) == list(range(1, 26))


def test_an_event_carries_its_type_and_its_whole_json(road: Road) -> None:
    road.journal.event({"text": 'owls\n"fly" 🦉 \ufdd0', "nested": {"a": [1, None]}})
    road.publish()
    (event,) = road.bus.read(after=0, limit=10)
    line = orjson.loads(event.data)
    assert (event.position, event.event_type) == (1, "cache.hit") == (line["position"], line["event_type"])
    assert line["payload"] == {"text": 'owls\n"fly" 🦉 \ufdd0FDD0', "nested": {"a": [1, None]}}
    ((event_id, entity_id),) = road.journal.sql("SELECT event_id::text, entity_id FROM events")
    assert (line["event_id"], line["entity_id"]) == (event_id, entity_id)


def test_a_reader_gets_what_comes_after_its_position_and_no_more_than_its_limit(road: Road) -> None:
    road.record(20)
    read = [event.position for event in road.bus.read(after=7, limit=4)]
    assert read == list(range(8, 8 + len(read)))
    assert 1 <= len(read) <= 4
    assert positions(road, after=20) == []


def test_publishing_again_changes_nothing(road: Road) -> None:
    road.record(10)
    events = road.bus.read(after=0, limit=100)
    road.bus.publish(events)
    road.bus.publish(events[3:5])
    assert positions(road) == list(range(1, 11))
    assert road.publish() == 0


def test_two_publishers_at_once_put_each_event_there_once(road: Road) -> None:
    road.journal.events(3000)
    road.journal.sequence()
    errors: list[Exception] = []

    def publish() -> None:
        try:
            with road.journal.connect() as connection, closing(road.another()) as bus:
                publish_once(connection, bus=bus, schema=SCHEMA)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    assert positions(road) == list(range(1, 3001))


def test_trimming_forgets_what_is_below_and_nothing_else(road: Road) -> None:
    road.record(30)
    road.bus.trim(below=11)
    left = positions(road, after=10)
    assert left == list(range(11, 31))
    assert road.bus.last_position() == 30


def test_a_bus_trimmed_to_nothing_still_knows_its_position(road: Road) -> None:
    road.record(5)
    road.bus.trim(below=6)
    assert road.bus.last_position() == 5
    road.record(2)
    assert positions(road, after=5) == [6, 7]


def test_a_waiting_reader_is_woken_by_the_next_event(road: Road) -> None:
    road.record(1)
    # A machine that stands still for seconds can make a reader late. It does not do so again and again.
    assert any(_wakes_the_reader(road, after=after) for after in range(1, 4))


def _wakes_the_reader(road: Road, *, after: int) -> bool:
    """Publish an event while a reader waits; say whether the reader had it long before it would have given up."""
    got: list[int] = []
    took_s: list[float] = []

    def wait() -> None:
        while not got:
            began_s = time.monotonic()
            got.extend(each.position for each in road.bus.read(after=after, limit=9, block_s=8))
            took_s.append(time.monotonic() - began_s)

    reader = threading.Thread(target=wait, daemon=True)
    reader.start()
    time.sleep(0.1)  # so that it waits, more often than not
    road.journal.events(1)
    with closing(road.another()) as bus:
        publish_once(road.journal.connection, bus=bus, schema=SCHEMA)
    reader.join(60)
    assert got == [after + 1]
    return len(took_s) == 1 and took_s[0] < 6


def test_a_reader_waits_no_longer_than_it_says(road: Road) -> None:
    began_s = time.monotonic()
    assert road.bus.read(after=0, limit=10, block_s=0.2) == []
    assert 0.1 < time.monotonic() - began_s < 60
