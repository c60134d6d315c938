"""One order out of several partitions, whatever comes when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workledger.synapse.bus import BusEvent
from workledger.synapse.merge import Merge


def event(position: int) -> BusEvent:
    return BusEvent(position, "t", b"")


def positions(events: list[BusEvent]) -> list[int]:
    return [each.position for each in events]


@st.composite
def arrivals(draw) -> tuple[int, list[list[int]]]:
    """How a dense log comes in: over partitions, in pieces, some of them twice."""
    count, partitions = draw(st.integers(0, 60)), draw(st.integers(1, 5))
    where = draw(st.lists(st.integers(0, partitions - 1), min_size=count, max_size=count))
    queues = [[n + 1 for n in range(count) if where[n] == partition] for partition in range(partitions)]
    pieces: list[list[int]] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        size = draw(st.integers(1, len(queue)))
        pieces.append(queue[:size])
        if not draw(st.booleans()) or not draw(st.booleans()):  # else it comes again
            del queue[:size]
    return count, pieces


@given(arrivals(), st.integers(1, 7))
def test_a_dense_log_comes_out_in_order_and_once(arrival, limit) -> None:
    count, pieces = arrival
    merge, out = Merge(after=0), []
    for piece in pieces:
        merge.add(map(event, piece))
        while taken := merge.take(limit):
            assert len(taken) <= limit
            out += positions(taken)
    assert out == list(range(1, count + 1))
    assert (len(merge), merge.after) == (0, count)


@given(st.sets(st.integers(1, 40)), st.integers(0, 20), st.integers(1, 9))
def test_what_is_lost_is_passed_over_once_that_is_certain_and_no_sooner(present, after, limit) -> None:
    merge, out = Merge(after=after), []
    merge.add(map(event, present))
    first = merge.take(99)
    assert positions(first) == list(range(after + 1, after + 1 + len(first)))
    merge.settle()
    out += positions(first)
    while taken := merge.take(limit):
        out += positions(taken)
    assert out == sorted(position for position in present if position > after)
    assert merge.after == (out[-1] if out else after)


def test_certainty_ends_where_it_was_given() -> None:
    merge = Merge(after=0)
    merge.add(map(event, (3, 5, 9)))
    merge.settle(6)
    assert positions(merge.take(9)) == [3, 5]
    assert (merge.take(9), len(merge), merge.after) == ([], 1, 5)
    merge.add(map(event, (6, 7, 8)))
    assert positions(merge.take(9)) == [6, 7, 8, 9]
