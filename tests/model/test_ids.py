"""Ids are checked at the door, and event ids carry their time."""

import datetime as dt
import uuid

import pytest

from workledger.errors import InvalidInput
from workledger.model.ids import check_event_id, check_id, month_of, new_event_id, new_id, time_of


@pytest.mark.parametrize("value", ["", "x" * 256, "a\nb", "a\0b", "\ud800", 7, None])
def test_an_id_that_is_empty_too_long_or_has_control_characters_is_refused(value):
    with pytest.raises(InvalidInput) as refused:
        check_id("workflow_id", value)
    assert refused.value.field == "workflow_id"
    assert refused.value.limit == 255


@pytest.mark.parametrize("value", ["x", "x" * 255, "naïve ☕ id", "a/b:c"])
def test_printable_ids_are_taken(value):
    assert check_id("workflow_id", value) == value


def test_an_event_id_carries_its_creation_time_to_the_millisecond():
    at = dt.datetime(1999, 12, 31, 23, 59, 59, 123456, tzinfo=dt.UTC)
    event_id = uuid.UUID(new_event_id(at))
    assert event_id.version == 7
    assert event_id.int >> 80 == int(at.timestamp() * 1000)


def test_event_ids_of_one_instant_differ():
    at = dt.datetime.now(dt.UTC)
    assert len({new_event_id(at) for _ in range(1000)}) == 1000


def test_fresh_ids_differ():
    assert len({new_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "",
        str(uuid.UUID(int=1)),
        "8c498fe9-d3e0-4f0e-b7a9-050458c4d8a6",
        None,
        "ffffffff-ffff-7fff-8fff-ffffffffffff",
    ],
)
def test_an_event_id_of_a_caller_must_be_a_uuid7_of_a_sensible_year(value):
    with pytest.raises(InvalidInput, match="UUIDv7"):
        check_event_id(value)


def test_an_event_id_tells_its_month():
    at = dt.datetime(2024, 2, 29, 23, 59, 59, 999000, tzinfo=dt.UTC)
    event_id = new_event_id(at)
    assert time_of(event_id) == at
    assert month_of(event_id) == dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
    assert check_event_id(event_id) == event_id
