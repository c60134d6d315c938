"""Only payloads that nothing refers to are collected, whatever is recorded at the same moment."""

import json
import threading
from datetime import timedelta

import pytest

from support.changes import complete, done, start, task
from support.waiting import wait_until
from workledger.cli.main import main
from workledger.errors import ConfigurationError, Conflict, InvalidInput
from workledger.flows import verify
from workledger.flows.collect import CollectingLoop, collect_payloads
from workledger.model.clock import SystemClock
from workledger.model.payload import Packer
from workledger.operational import garbage
from workledger.operational.apply import store_payloads
from workledger.postgres.connection import connect

NOW = timedelta(0)


@pytest.fixture
def orphan(owner):
    """Store a value that nothing refers to; gives its digest."""

    def orphan(value):
        packer = Packer()
        packer.value("value", value)
        (blob,) = packer.blobs
        store_payloads(owner, [blob])
        return blob.digest.hex()

    return orphan


@pytest.fixture
def collect(owner):
    return lambda **options: collect_payloads(owner, schema="workledger", **{"min_age": NOW, **options})


def everything_resolves(connection):
    with verify.one_moment(connection):
        return verify.check_payloads(connection).faults == []


def test_what_nothing_refers_to_is_removed_and_what_is_in_use_stays(ledger, owner, large, orphan, collect, stored):
    with ledger.start_workflow("w", input=large(1)) as run:
        with run.task("t", input=large(2)) as execution:
            execution.output = large(3)
        run.message({"role": "user", "content": large(4), "tool_calls": large(5)})
        run.event("cache.filled", {"deep": large(6)})
        run.output = large(7)
    used = stored()
    unused = {orphan(large(n)) for n in range(100, 110)}
    done = collect()
    assert (done.looked_at, done.unused, done.removed, done.busy) == (17, 10, 10, 0)
    assert stored() == used
    assert not used & unused
    assert everything_resolves(owner)


def test_what_only_a_state_row_refers_to_stays(ledger, owner, large, collect, stored):
    with ledger.start_workflow("w", input=large(1)) as run:
        run.message("user", large(2))
    with owner.transaction():  # as when the log was archived
        owner.execute("SET LOCAL session_replication_role = replica")
        for (name,) in owner.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass"
        ).fetchall():
            owner.execute(f"DROP TABLE {name}")
    assert collect().removed == 0
    assert len(stored()) == 2


def test_what_only_an_event_refers_to_stays(ledger, owner, large, collect, stored):
    ledger.record(start(workflow_id="w"))
    ledger.record(complete(workflow_id="w", output=large(1)))
    owner.execute("UPDATE workflows SET output_data = NULL")
    assert collect().removed == 0
    assert len(stored()) == 1


def test_young_payloads_stay(large, orphan, collect, stored):
    orphan(large(1))
    assert collect(min_age=timedelta(hours=1)).looked_at == 0
    assert len(stored()) == 1


def test_a_dry_run_only_counts(large, orphan, collect, stored):
    orphan(large(1))
    done = collect(dry_run=True)
    assert (done.unused, done.removed, done.removed_bytes > 0) == (1, 0, True)
    assert len(stored()) == 1


def test_what_a_refused_change_left_behind_is_collected(ledger, large, collect, stored):
    ledger.record(start(workflow_id="w"))
    with pytest.raises(Conflict):
        ledger.record(start(workflow_id="w", input=large(1)))
    assert len(stored()) == 1
    assert collect().removed == 1


def test_a_value_of_the_users_that_looks_like_a_reference_is_none(ledger, large, orphan, collect):
    digest = orphan(large(1))
    ledger.record(start(workflow_id="w", input={"$workledger": "payload", "digest": "nonsense", "size": 1}))
    ledger.record(start(workflow_id="v", input=[{"$workledger": "payload", "digest": 7}, digest]))
    assert collect().looked_at == 1


def test_a_negative_age_is_refused(collect):
    with pytest.raises(InvalidInput, match="negative"):
        collect(min_age=timedelta(seconds=-1))


def test_who_may_not_remove_payloads_is_told_so(owner, database_url, large, orphan):
    orphan(large(1))
    owner.execute("DROP ROLE IF EXISTS only_reads")
    owner.execute("CREATE ROLE only_reads")
    try:
        owner.execute("GRANT USAGE ON SCHEMA workledger TO only_reads")
        owner.execute("GRANT SELECT, UPDATE, INSERT ON ALL TABLES IN SCHEMA workledger TO only_reads")
        with connect(database_url) as reader:
            reader.execute("SET ROLE only_reads")
            with pytest.raises(ConfigurationError, match="permission denied"):
                collect_payloads(reader, schema="workledger", min_age=NOW)
    finally:
        owner.execute("DROP OWNED BY only_reads")
        owner.execute("DROP ROLE only_reads")


# -- the race ---------------------------------------------------------------------------------------------------


def test_a_payload_whose_event_is_not_committed_yet_is_left_alone(ledger, database_url, large, orphan, collect, stored):
    digest = orphan(large(1))
    with connect(database_url) as caller:
        with caller.transaction(), ledger.joining(caller):
            ledger.record(start(workflow_id="w", input=large(1)))  # the payload is there, so nothing is stored
            assert collect().busy == 1
        assert stored() == {digest}
        assert (collect().unused, stored()) == (0, {digest})


def test_a_payload_that_is_used_after_the_events_were_read_is_left_alone(
    ledger, owner, large, orphan, collect, stored, monkeypatch
):
    digest = orphan(large(1))
    look = garbage.used

    def used(*arguments, **bounds):
        yield from look(*arguments, **bounds)
        ledger.record(start(workflow_id="w", input=large(1)))

    monkeypatch.setattr(garbage, "used", used)
    assert collect().removed == 0
    assert stored() == {digest}
    assert everything_resolves(owner)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_payload_that_is_removed_while_its_recorder_waits_is_stored_again(
    ledger, owner, database_url, large, orphan, collect, stored, monkeypatch, isolation
):
    digest = orphan(large(1))
    remove = garbage.delete
    recorded = []

    def record():
        with connect(database_url, application_name="waits") as caller, caller.transaction():
            caller.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
            with ledger.joining(caller):
                recorded.append(ledger.record(start(workflow_id="w", input=large(1))))

    recorder = threading.Thread(target=record)

    def delete(*arguments, **options):
        recorder.start()
        wait_until(lambda: _waits(database_url))
        return remove(*arguments, **options)

    monkeypatch.setattr(garbage, "delete", delete)
    assert collect().removed == 1
    recorder.join()
    assert recorded[0].applied
    assert stored() == {digest}
    assert everything_resolves(owner)
    assert ledger.get_workflow("w").input_data == large(1)


def _waits(database_url):
    with connect(database_url) as observer:
        return observer.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event_type = 'Lock'"
        ).fetchone() == (1,)


def test_recording_goes_on_while_a_collector_waits_for_a_long_transaction(ledger, database_url, large, orphan, collect):
    orphan(large(1))
    with connect(database_url) as caller, caller.transaction():
        with ledger.joining(caller):
            ledger.record(start(workflow_id="long", input=large(1)))
        collector = threading.Thread(target=collect)
        collector.start()
        for n in range(20):
            ledger.record(start(workflow_id=f"short-{n}", input=large(1)))
        collector.join(60)
        assert not collector.is_alive()


def test_nothing_recorded_is_lost_while_collectors_run_all_the_time(ledger, owner, database_url, large, orphan):
    stop = threading.Event()
    removed = []

    def collecting():
        with connect(database_url) as connection:
            while not stop.is_set():
                removed.append(collect_payloads(connection, schema="workledger", min_age=NOW).removed)

    def recording(name, numbers):
        for n in numbers:
            ledger.record(start(workflow_id=f"{name}-{n}", input=large(n)))
            ledger.record(task(workflow_id=f"{name}-{n}", execution_id=f"x-{name}-{n}", input=large(n + 1)))
            ledger.record(done(workflow_id=f"{name}-{n}", execution_id=f"x-{name}-{n}", output=large(-n)))

    collectors = [threading.Thread(target=collecting) for _ in range(2)]
    for collector in collectors:
        collector.start()
    for round_ in range(100):
        numbers = range(round_ * 1000, round_ * 1000 + 25)
        for n in numbers:
            orphan(large(n))
        recorders = [threading.Thread(target=recording, args=(name, numbers)) for name in "abc"]
        for recorder in recorders:
            recorder.start()
        for recorder in recorders:
            recorder.join()
        if round_ >= 5 and sum(removed):  # the collectors have been in time for something
            break
    stop.set()
    for collector in collectors:
        collector.join()
    assert everything_resolves(owner)
    assert sum(removed) > 0, "the collectors never removed anything, so nothing was attacked"


class HandClock(SystemClock):
    at_s = 0.0

    def monotonic_s(self):
        return self.at_s


def test_the_loop_collects_an_hour_after_it_began_and_then_once_a_day(
    ledger, owner, large, orphan, stored, database_url
):
    clock = HandClock()
    loop = CollectingLoop(lambda: connect(database_url), schema="workledger", every=timedelta(days=1), clock=clock)

    def after(hours):
        digest = orphan(large(hours))
        owner.execute("UPDATE payloads SET created_at = now() - interval '2 days'")
        clock.at_s += hours * 3600
        assert loop.step() == 0
        return digest in stored()

    assert [after(hours) for hours in (0.9, 0.2, 23.5, 1)] == [True, False, True, False]


def test_the_command_counts_and_removes_and_the_doctor_points_to_it(
    ledger, database_url, large, orphan, stored, capsys
):
    digest = orphan(large(1))
    options = ["--database-url", database_url, "--json"]

    def run(*arguments):
        assert main([*arguments, *options]) == 0
        return json.loads(capsys.readouterr().out)

    assert run("collect")["removed"] == 0  # it is younger than a day
    counted = run("collect", "--dry-run", "--older-than", "0s")
    assert (counted["looked_at"], counted["unused"], counted["removed"]) == (1, 1, 0)
    assert counted["bytes"] > 0
    assert digest in stored()
    assert run("collect", "--older-than", "0s")["removed"] == 1
    assert digest not in stored()
    assert "payloads" in {finding["area"] for finding in run("doctor")["findings"]}
