"""Archiving beside those who record, read, verify and archive too."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from archive.test_reading import everything
from support import wait_until
from workledger.errors import Conflict, NotFound, Unavailable
from workledger.flows.mount import mounted
from workledger.flows.record import Recorder
from workledger.log import partitions, reader
from workledger.model import change
from workledger.operational.apply import apply_in_transaction, make_partitions
from workledger.postgres.connection import connect


def test_two_archivers_do_not_work_at_once(old):
    old.live(3)
    refused = []

    def second(step, _what):
        if step == "written" and not refused:
            with pytest.raises(Unavailable, match="another process is archiving") as caught:
                old.archive()
            refused.append(caught.value.is_busy)

    old.archive(on_step=second)
    assert refused == [True]
    assert old.faults() == []


def late_event(old, month=3):
    old.at(month, day=28)
    values = {"event_type": "cache.late", "entity_type": "cache", "entity_id": "late"}
    return old.made(change.record_event, payload={"late": True}, **values)


@pytest.mark.parametrize("step", ["written", "checked", "recorded"])
@pytest.mark.parametrize("sequenced", [True, False])
def test_an_event_that_comes_late_into_an_old_month_is_not_lost(old, step, sequenced):
    old.live(3)
    late = []

    def come_late(now, what):
        if now == step and "events_2026_03" in what and not late:
            late.append(late_event(old))
            old.recorder.record(late[0])
            if sequenced:
                old.settle()

    report = old.archive(on_step=come_late)
    (march,) = [one for one in report.partitions if one.partition == "events_2026_03"]
    assert late
    assert not march.dropped
    assert "archived when this runs again" in march.held
    old.settle()
    assert old.faults() == []
    again = old.archive()
    (march,) = [one for one in again.partitions if one.partition == "events_2026_03"]
    assert (march.dropped, march.events, len(march.files)) == (True, 1, 1)
    assert old.faults() == []
    assert [event.event_id for event in reader.newest(old.connection, event_type="cache.late")] == [late[0].event_id]


def test_a_writer_in_mid_transaction_is_waited_for_and_its_event_is_not_lost(old):
    """It has inserted into the old month and not committed: the partition is not dropped under it."""
    old.live(3)
    late = late_event(old)
    with connect(old.url, schema="workledger") as writer:
        writer.execute("BEGIN")
        apply_in_transaction(writer, [late])
        report = old.archive()
        (march,) = [one for one in report.partitions if one.partition == "events_2026_03"]
        assert not march.dropped
        assert march.held == "events_2026_03 is in use: its events are archived, and it is dropped when this runs again"
        writer.execute("COMMIT")
    old.settle()
    assert old.archive().dropped
    assert old.faults() == []
    assert len(reader.newest(old.connection, event_type="cache.late")) == 1


def test_writers_into_old_months_and_an_archiver_lose_nothing(old):
    old.live(3)
    stop, recorded, failures = threading.Event(), [], []

    def write(n):
        recorder = Recorder(lambda: connect(old.url, schema="workledger", recording=True))
        try:
            keep_writing(recorder, n)
        except Exception as error:
            failures.append(error)
        finally:
            recorder.close()

    def keep_writing(recorder, n):
        moment = 0
        while not stop.is_set():
            moment += 1
            at = datetime(2026, 3, 1 + moment % 28, 12, n, tzinfo=UTC)
            values = {"event_type": "cache.late", "entity_type": "cache", "entity_id": f"{n}-{moment}"}
            one = change.record_event(at=at, packer=change.Packer(), payload={"n": moment}, **values)
            recorder.record(one)
            recorded.append(one.event_id)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(12):
            old.settle()
            old.archive(file_events=200)
    finally:
        stop.set()
        for writer in writers:
            writer.join(60)
    assert failures == []
    old.settle()
    found = [event.event_id for event in reader.iterate(old.connection) if event.event_type == "cache.late"]
    assert sorted(found) == sorted(recorded)
    assert "events_2026_03" in {one.partition for one in old.archive().partitions if one.dropped}
    assert old.faults() == []


def test_who_reads_the_log_for_long_is_not_disturbed(old):
    old.live(3)
    with old.connect() as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM events")
        report = old.archive()
        assert report.dropped == 0
        assert {one.held for one in report.partitions if one.events} == {
            "events_2026_03 is in use: its events are archived, and it is dropped when this runs again"
        }
        # Recording goes on meanwhile: nobody waits behind a lock that cannot be had.
        old.at_present()
        old.event()
        reading.execute("COMMIT")
    old.settle()
    assert old.archive().dropped
    assert old.faults() == []


def test_nothing_is_dropped_while_somebody_verifies(old):
    old.live(3, 4)
    old.archive(cutoff=datetime(2026, 4, 1, tzinfo=UTC))
    with old.connect() as connection, mounted(connection):
        report = old.archive()
        assert report.dropped == 0
        assert {one.held for one in report.partitions if one.events} == {
            f"events_2026_0{n} is being read by who verifies, or begins far back: its events are archived, and it is dropped when this runs again"
            for n in (3, 4)
        }
    old.settle()
    assert old.archive().dropped


def test_a_reader_of_the_log_that_is_behind_holds_what_it_has_not_read(old):
    old.live(3)
    old.sql("INSERT INTO consumers (name, position) VALUES ('mailer', 5) RETURNING 1")
    month_ago = datetime.now(UTC) - timedelta(days=30)
    old.archive(cutoff=month_ago)
    assert "events_2026_03" in old.months()
    old.at(4)
    old.events(10)
    old.settle()
    (april,) = [one for one in old.archive(cutoff=month_ago).partitions if one.partition == "events_2026_04"]
    assert april.held == "mailer has come to position 5 of 49"
    # One that has not moved since the cutoff is abandoned.
    old.sql("UPDATE consumers SET updated_at = '2026-01-01Z' WHERE name = 'mailer' RETURNING 1")
    (april,) = [one for one in old.archive(cutoff=month_ago).partitions if one.partition == "events_2026_04"]
    assert april.dropped
    assert old.faults() == []


def test_an_archived_event_that_is_sent_again_is_not_recorded_twice(old):
    old.at(3)
    values = {"event_type": "cache.hit", "entity_type": "cache", "entity_id": "c"}
    event = old.made(change.record_event, payload={"n": 1}, **values)
    old.recorder.record(event)
    old.settle()
    old.archive()
    assert "events_2026_03" not in old.months()
    with pytest.raises(Conflict, match="is in the log already, and archived"):
        old.recorder.record(event)
    old.sequence()
    assert len(reader.newest(old.connection, event_type="cache.hit")) == 1
    assert old.faults() == []
    # Others of that month are recorded as ever.
    old.recorder.record(late_event(old))
    old.settle()
    assert old.faults() == []


def test_an_archived_workflow_is_not_started_again_nor_its_conversation(old):
    old.live(3)
    old.archive()
    old.at_present()
    with pytest.raises(Conflict, match="workflow 'w-3-0' was there and is archived"):
        old.start("w-3-0")
    with pytest.raises(Conflict, match="conversation 'talk-w-3-0' was there and is archived"):
        old.record(change.start_conversation, conversation_id="talk-w-3-0")
    with pytest.raises(NotFound, match=r"no workflow 'w-3-0': it is archived"):
        old.record(change.start_execution, execution_id="x", workflow_id="w-3-0", task_name="t")
    with pytest.raises(NotFound, match="no conversation 'talk-w-3-0': it is archived"):
        message = {"role": "user", "content": "still there?"}
        old.record(change.add_message, message_id="m", conversation_id="talk-w-3-0", message=message)
    old.settle()
    assert old.faults() == []


def test_a_start_that_is_sent_again_is_recognised_for_as_long_as_its_event_is_there(old):
    old.at_present()
    start = old.made(change.start_workflow, workflow_id="w", name="w")
    old.recorder.record(start)
    old.finish("w")
    old.settle()
    old.archive()
    assert old.counts()["workflows"] == 0
    outcome = old.recorder.record(start)
    assert not outcome.applied
    old.settle()
    assert old.faults() == []


def test_a_start_in_the_very_moment_of_archiving_is_refused(old):
    """Its statement began before the workflow was archived and waited for the row: the trigger sees what came since."""
    old.live(3)
    old.at_present()
    again = old.made(change.start_workflow, workflow_id="w-3-0", name="again")
    with connect(old.url, schema="workledger", recording=True) as starter, connect(old.url) as holder:
        holder.execute("SET search_path = workledger")
        holder.execute("BEGIN")
        holder.execute("INSERT INTO archived_workflows VALUES ('w-3-0', 'state/x', 1, 2, now())")
        holder.execute("DELETE FROM feedback WHERE workflow_id = 'w-3-0'")
        holder.execute("DELETE FROM task_executions WHERE workflow_id = 'w-3-0'")
        holder.execute("DELETE FROM workflows WHERE workflow_id = 'w-3-0'")
        make_partitions(starter, [again])
        failed = []

        def try_it():
            try:
                apply_in_transaction(starter, [again])
            except psycopg.errors.UniqueViolation as error:
                failed.append(str(error))

        thread = threading.Thread(target=try_it)
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_until(lambda: old.sql(waiting)[0][0], timeout_s=60)
        holder.execute("COMMIT")
        thread.join(60)
    assert "workflow w-3-0 is archived" in failed[0]
    assert old.sql("SELECT count(*) FROM workflows WHERE workflow_id = 'w-3-0'") == [(0,)]


# -- partitions -------------------------------------------------------------------------------------------------


def test_many_writers_of_years_old_and_future_events_make_each_month_once(old):
    years = [1971, 1999, 2015, 2025, 2031, 2999]
    recorded, failures = [], []

    def write(n):
        recorder = Recorder(lambda: connect(old.url, schema="workledger", recording=True))
        try:
            for turn in range(24):
                year = years[(turn + n) % len(years)]
                at = datetime(year, 1 + (turn * 7 + n) % 12, 3, tzinfo=UTC)
                values = {"event_type": "cache.hit", "entity_type": "cache", "entity_id": f"{n}-{turn}"}
                one = change.record_event(at=at, packer=change.Packer(), payload={}, **values)
                recorder.record(one)
                recorded.append(one.event_id)
        except Exception as error:
            failures.append(error)
        finally:
            recorder.close()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert failures == []
    old.sequence()
    assert {event.event_id for event in reader.iterate(old.connection)} == set(recorded)
    assert len(recorded) == 8 * 24
    for one in partitions.partitions(old.connection):
        outside = "SELECT count(*) FROM events WHERE tableoid = %s::regclass AND NOT event_id >= %s::uuid AND event_id < %s::uuid"
        assert old.sql(outside, one.name, one.first_id, one.next_id) == [(0,)]


def test_the_log_has_no_default_partition_which_would_stand_in_the_way_of_detaching(any_old):
    any_old.live(3)
    assert any_old.sql("SELECT partdefid FROM pg_partitioned_table WHERE partrelid = 'events'::regclass") == [(0,)]
    (march,) = [one for one in any_old.months() if one == "events_2026_03"]
    any_old.connection.execute(f"ALTER TABLE events DETACH PARTITION {march} CONCURRENTLY")
    assert march not in any_old.months()


def test_partitions_are_made_ahead_once(old):
    for name in old.months():
        old.connection.execute(f"ALTER TABLE events DETACH PARTITION {name}")
        old.connection.execute(f"DROP TABLE {name}")
    assert len(partitions.make_ahead(old.connection, months=3)) == 4
    assert partitions.make_ahead(old.connection, months=3) == []
    assert len(partitions.make_ahead(old.connection, months=5)) == 2


def test_a_partition_with_events_outside_of_files_is_never_dropped(old):
    old.live(3)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has 39 events, of which 0 are archived"):
        partitions.drop(old.connection, "events_2026_03")
    with pytest.raises(psycopg.errors.UndefinedTable, match="is no partition of events"):
        partitions.drop(old.connection, "workflows")
    with (
        old.connect() as connection,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="READ COMMITTED"),
    ):
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            partitions.drop(connection, "events_2026_03")


def test_reading_while_partitions_are_dropped_skips_nothing(old):
    old.live(3, 4, 5)
    head, before = old.head, everything(old.connection, old.head)
    stop, wrong, rounds = threading.Event(), [], []

    def read():
        try:
            with old.connect() as connection:
                while not stop.is_set():
                    found = everything(connection, head)
                    wrong.extend(name for name, value in before.items() if found[name] != value)
                    rounds.append(1)
        except Exception as error:
            wrong.append(error)

    def has_read_on(since):
        return wrong or len(rounds) > since + 2

    def is_dropped():
        old.archive(file_events=20)
        return not {"events_2026_03", "events_2026_04", "events_2026_05"} & set(old.months())

    readers = [threading.Thread(target=read) for _ in range(2)]
    for one in readers:
        one.start()
    try:
        wait_until(lambda: has_read_on(0), timeout_s=60)
        wait_until(is_dropped, timeout_s=120)
        seen = len(rounds)
        wait_until(lambda: has_read_on(seen), timeout_s=60)
    finally:
        stop.set()
        for one in readers:
            one.join(60)
    assert wrong == []
