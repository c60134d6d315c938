"""The lists people ask for all day give what is asked, in order, page by page, nothing twice and nothing left out."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.changes import complete, done, make, start, task
from workledger.errors import InvalidInput, NotFound
from workledger.model.change import Failure
from workledger.operational.paging import read_cursor, write_cursor

NOW = datetime.now(UTC)


def ago(**span):
    return NOW - timedelta(**span)


def fail(workflow_id, at, error="no"):
    return make("fail_workflow", workflow_id=workflow_id, failure=Failure(error_type="E", error=error), at=at)


@pytest.fixture
def record(ledger):
    return lambda *changes: [ledger.record(change) for change in changes]


def pages(read, **options):
    """Every page of a list, read with the cursor of the one before."""
    page = read(**options)
    yield page
    while page.cursor:
        page = read(**options, cursor=page.cursor)
        yield page


def ids(found):
    return [item.workflow_id for item in found]


def test_workflows_are_found_by_each_of_their_marks_newest_first(ledger, record):
    for n in range(12):
        marks = {"workflow_type": f"t{n % 2}", "tags": [f"g{n % 3}", "all"], "subject": f"s{n % 4}"}
        record(start(workflow_id=f"w{n:02}", name=f"n{n % 2}", at=ago(minutes=n), conversation_id=f"c{n % 5}", **marks))
    record(complete(workflow_id="w03", at=NOW))
    everything = [f"w{n:02}" for n in range(12)]
    assert ids(ledger.find()) == everything
    assert ids(ledger.find(name="n1")) == everything[1::2]
    assert ids(ledger.find(workflow_type="t0")) == everything[0::2]
    assert ids(ledger.find(tag="g2")) == everything[2::3]
    assert ids(ledger.find(subject="s1")) == everything[1::4]
    assert ids(ledger.find(conversation_id="c4")) == everything[4::5]
    assert ids(ledger.find(status="completed")) == ["w03"]
    assert ids(ledger.find(since=ago(minutes=5), until=ago(minutes=2))) == ["w03", "w04", "w05"]
    assert ids(ledger.find(name="n1", tag="all", status="running", since=ago(minutes=6))) == ["w01", "w05"]
    assert ids(ledger.find(tag="none")) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(0, 3), min_size=1, max_size=12), limit=st.integers(1, 5))
def test_pages_meet_without_gap_or_repetition_when_times_are_equal(ledger, times, limit):
    name = f"pages-{times}-{limit}"
    for n, minutes in enumerate(times):
        workflow_id = f"{name}-{n}"
        ledger.record(start(workflow_id=workflow_id, name=name, at=ago(minutes=minutes)))
    found = list(pages(ledger.find, name=name, limit=limit))
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    expected = sorted(((-minutes, f"{name}-{n}") for n, minutes in enumerate(times)), reverse=True)
    assert [workflow_id for page in found for workflow_id in ids(page)] == [workflow_id for _, workflow_id in expected]


def test_what_comes_while_a_list_is_read_moves_no_page(ledger, record):
    for n in range(6):
        record(start(workflow_id=f"w{n}", at=ago(minutes=n)))
    first = ledger.find(limit=3)
    record(start(workflow_id="new", at=NOW + timedelta(minutes=1)))
    second = ledger.find(limit=3, cursor=first.cursor)
    assert ids(first) + ids(second) == [f"w{n}" for n in range(6)]
    assert second.cursor is None


def test_running_ones_come_oldest_first_and_failed_ones_newest_failure_first(ledger, record):
    for n in range(9):
        record(start(workflow_id=f"w{n}", at=ago(hours=n)))
    for n in (2, 5, 7):
        record(fail(f"w{n}", ago(minutes=n)))
    assert [ids(page) for page in pages(ledger.running, limit=4)] == [["w8", "w6", "w4", "w3"], ["w1", "w0"]]
    assert [ids(page) for page in pages(ledger.failed, limit=2)] == [["w2", "w5"], ["w7"]]
    assert ids(ledger.failed(since=ago(minutes=6))) == ["w2", "w5"]


def test_failed_executions_come_newest_failure_first(ledger, record):
    record(start(workflow_id="w"))
    for n in range(5):
        failure = Failure(error_type="E", error=f"no {n}")
        record(
            task(workflow_id="w", execution_id=f"x{n}", at=ago(hours=1)),
            make("fail_execution", workflow_id="w", execution_id=f"x{n}", failure=failure, at=ago(minutes=n)),
        )
    found = [[x.execution_id for x in page] for page in pages(ledger.failed_executions, limit=2)]
    assert found == [["x0", "x1"], ["x2", "x3"], ["x4"]]
    assert [x.error for x in ledger.failed_executions(since=ago(minutes=1))] == ["no 0", "no 1"]


def test_the_slowest_come_first_of_those_in_the_time_and_by_name(ledger, record):
    for n in range(8):
        record(
            start(workflow_id=f"w{n}", name=f"n{n % 2}", at=ago(hours=n)),
            task(workflow_id=f"w{n}", execution_id=f"x{n}", task_name=f"t{n % 2}", kind="tool", at=ago(hours=n)),
            done(workflow_id=f"w{n}", execution_id=f"x{n}", execution_time_ms=100.0 * n, at=ago(hours=n)),
            complete(workflow_id=f"w{n}", execution_time_ms=10.0 * (n % 5), at=NOW),
        )
    record(start(workflow_id="old", at=ago(days=2)), complete(workflow_id="old", execution_time_ms=1e6, at=NOW))
    record(start(workflow_id="unknown", at=NOW), complete(workflow_id="unknown", at=NOW))
    found = [ids(page) for page in pages(ledger.slowest, limit=3)]
    assert found == [["w4", "w3", "w7"], ["w2", "w6", "w1"], ["w5", "w0"]]
    assert ids(ledger.slowest(name="n1", since=ago(hours=4))) == ["w3", "w1"]
    assert ids(ledger.slowest(since=ago(days=3), limit=1)) == ["old"]
    executions = [[x.execution_id for x in page] for page in pages(ledger.slowest_executions, limit=3)]
    assert executions == [["x7", "x6", "x5"], ["x4", "x3", "x2"], ["x1", "x0"]]
    slow = ledger.slowest_executions(task_name="t1", kind="tool", since=ago(hours=4))
    assert [x.execution_id for x in slow] == ["x3", "x1"]
    assert ledger.slowest_executions(kind="llm") == []


def test_stuck_is_what_runs_without_any_sign_of_life(ledger, record):
    for name in ("quiet", "quieter", "calls", "talks", "ended", "fresh"):
        record(start(workflow_id=name, at=ago(hours=3)))
    with ledger.pool.connection() as connection:
        connection.execute("UPDATE workflows SET updated_at = now() - interval '2 hours' WHERE workflow_id <> 'fresh'")
        connection.execute("UPDATE workflows SET updated_at = now() - interval '3 h' WHERE workflow_id = 'quieter'")
    record(task(workflow_id="calls", execution_id="x", kind="tool", at=ago(minutes=5)))
    record(
        make("start_conversation", conversation_id="c", at=ago(hours=3)),
        make(
            "add_message",
            conversation_id="c",
            message_id="m",
            message={"role": "user", "content": "x"},
            workflow_id="talks",
        ),
        complete(workflow_id="ended", at=ago(hours=2)),
    )
    assert ids(ledger.stuck(quiet_s=3600)) == ["quieter", "quiet"]
    assert [ids(page) for page in pages(ledger.stuck, quiet_s=3600, limit=1)] == [["quieter"], ["quiet"]]
    assert ids(ledger.stuck(quiet_s=60)) == ["quieter", "calls", "quiet"]
    assert ids(ledger.stuck(quiet_s=4 * 3600)) == []
    with pytest.raises(InvalidInput, match="negative"):
        ledger.stuck(quiet_s=-1)


AT = datetime(2026, 1, 1, tzinfo=UTC)
NO_CURSORS = [
    "",
    "x",
    "????",
    "bm8",
    "ü",
    write_cursor("running", AT, "w"),
    write_cursor("workflows", "w"),
    write_cursor("workflows", 7, "w"),
    write_cursor("workflows", AT, "w", "w"),
]


@pytest.mark.parametrize("cursor", NO_CURSORS)
def test_a_cursor_that_this_list_did_not_give_is_refused(ledger, cursor):
    with pytest.raises(InvalidInput, match="cursor"):
        ledger.find(cursor=cursor)


@given(at=st.datetimes(timezones=st.just(UTC)), text=st.text(), number=st.floats(allow_nan=False, allow_infinity=False))
def test_a_cursor_gives_back_the_place_it_was_made_of(at, text, number):
    text = text.encode("utf-8", "ignore").decode()
    cursor = write_cursor("list", at, text, number)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&? ")
    assert read_cursor("list", cursor, datetime, str, float) == (at, text, number)


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_page_has_a_bound(ledger, limit):
    with pytest.raises(InvalidInput, match="limit"):
        ledger.find(limit=limit)


def test_lists_leave_out_inputs_and_outputs(ledger):
    with ledger.start_workflow("w", input={"a": 1}) as run:
        run.output = 2
    (found,) = ledger.find()
    assert (found.input_data, found.output_data, found.state_data) == (None, None, None)


def test_a_timeline_of_nothing_is_not_found(ledger):
    with pytest.raises(NotFound, match="no workflow 'w'"):
        ledger.timeline("w")
