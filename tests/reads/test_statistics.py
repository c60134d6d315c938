"""What runs add up to equals what the rows say."""

import statistics
from datetime import UTC, datetime, timedelta

import pytest

from support.changes import complete, done, make, start, task
from workledger.model.change import Failure

DAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
MIDNIGHT = DAY.replace(hour=0)
SPAN = {"since": MIDNIGHT, "until": MIDNIGHT + timedelta(days=2)}
FAILURE = Failure(error_type="E", error="no")


@pytest.fixture
def recorded(ledger):
    def end(n, workflow_id, at):
        if n % 10 == 9:
            return make("fail_workflow", workflow_id=workflow_id, failure=FAILURE, execution_time_ms=1.0 * n, at=at)
        if n % 10 == 8:
            return make("cancel_workflow", workflow_id=workflow_id, at=at)
        return complete(workflow_id=workflow_id, execution_time_ms=1.0 * n, at=at)

    changes = []
    for n in range(60):
        at = DAY + timedelta(days=n // 40, minutes=n)
        changes += [
            start(workflow_id=f"w{n}", name=f"n{n % 3}", at=at),
            task(workflow_id=f"w{n}", execution_id=f"x{n}", task_name=f"t{n % 2}", at=at),
            done(workflow_id=f"w{n}", execution_id=f"x{n}", execution_time_ms=2.0 * n, at=at),
            end(n, f"w{n}", at),
        ]
    changes.append(start(workflow_id="running", name="n0", at=DAY))
    ledger.recorder.record_all(changes)


def expected(numbers):
    times = sorted(n for n in numbers if n % 10 != 8)
    return statistics.quantiles(times, n=100, method="inclusive")


def test_all_together(ledger, recorded):
    (total,) = ledger.statistics(**SPAN)
    assert (total.name, total.day) == (None, None)
    assert (total.total, total.completed, total.failed, total.cancelled) == (61, 48, 6, 6)
    assert total.success_rate == 48 / 54
    quantiles = expected(range(60))
    assert [total.p50_ms, total.p90_ms, total.p95_ms, total.p99_ms] == pytest.approx(
        [quantiles[49], quantiles[89], quantiles[94], quantiles[98]]
    )
    assert total.slowest_ms == 59


def test_by_name_and_by_day(ledger, recorded):
    found = ledger.statistics(**SPAN, by_name=True, by_day=True)
    assert [(group.day, group.name) for group in found] == [
        (MIDNIGHT + timedelta(days=day), f"n{name}") for day in range(2) for name in range(3)
    ]
    for group in found:
        day = (group.day - MIDNIGHT).days
        numbers = [n for n in range(60) if n // 40 == day and f"n{n % 3}" == group.name]
        assert group.total == len(numbers) + (group.name == "n0" and day == 0)
        assert group.failed == sum(n % 10 == 9 for n in numbers)
        assert group.p50_ms == pytest.approx(expected(numbers)[49])


def test_of_one_name(ledger, recorded):
    (group,) = ledger.statistics(**SPAN, name="n1")
    assert group.total == 20


def test_executions_by_task(ledger, recorded):
    found = ledger.execution_statistics(**SPAN, by_name=True)
    assert [(group.name, group.total, group.success_rate) for group in found] == [("t0", 30, 1.0), ("t1", 30, 1.0)]
    (one,) = ledger.execution_statistics(**SPAN, task_name="t1")
    assert (one.p50_ms, one.slowest_ms) == (60.0, 118.0)
    assert [group.total for group in ledger.execution_statistics(**SPAN, by_day=True)] == [40, 20]


def test_a_time_without_anything(ledger):
    assert ledger.statistics() == []
    assert ledger.statistics(by_name=True) == []
    assert ledger.execution_statistics(by_day=True) == []


def test_what_only_runs_has_no_rate_and_no_percentile(ledger):
    ledger.record(start(workflow_id="w", at=DAY))
    (group,) = ledger.statistics(**SPAN)
    assert (group.total, group.success_rate, group.p99_ms) == (1, None, None)
