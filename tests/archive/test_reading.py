"""Archived events are read by the same functions, in the same order, to the last byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workledger.errors import ConfigurationError, NotFound
from workledger.flows.as_of import as_of
from workledger.log import reader
from workledger.log.follow import follow
from workledger.log.follow_lines import lines
from workledger.log.follow_selection import of_entity, over_time
from workledger.operational import reads
from workledger.postgres.connection import connect
from workledger.training.archive_files import FolderFiles

SPRING = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def everything(connection, head):
    """What every way of reading the log gives for positions up to a head."""

    def until(events):
        return [event for event in events if event.position is not None and event.position <= head]

    workflows = [f"w-{month}-{n}" for month in (3, 4, 5) for n in (0, "talk")] + ["nobody"]
    entities = [("task", "w-4-0/llm"), ("conversation", "talk-w-3-talk"), ("cache", "c-2"), ("workflow", "w-5-1")]
    march, may = SPRING[0], SPRING[1] - timedelta(days=20)
    newest = {"before": head + 1, "limit": 7}
    return {
        "iterate": list(reader.iterate(connection, upto=head)),
        "small pages": list(reader.iterate(connection, after=5, upto=head - 3, page=4)),
        "page": reader.read(connection, after=head // 2, limit=10),
        "beyond": reader.read(connection, after=0, limit=head),
        "workflows": [until(reader.of_workflow(connection, workflow_id)) for workflow_id in workflows],
        "newest": reader.newest(connection, **newest),
        "newest of a type": reader.newest(connection, event_type="task.completed", **newest),
        "newest of an entity": reader.newest(connection, entity_type="task", entity_id="w-3-0/llm", **newest),
        "newest, not one": reader.newest(connection, limit=0),
        "newest of none": reader.newest(connection, event_type="no.such", **newest),
        "entities": [until(of_entity(connection, *entity)) for entity in entities],
        "entity, paged": of_entity(connection, "conversation", "talk-w-3-talk", after=3, limit=2),
        "time": until(over_time(connection, since=march, until=may, page=9)),
        "time of a type": until(over_time(connection, since=march, event_type="message.added", page=2)),
        "all time": until(over_time(connection)),
        "lines": b"".join(lines(connection, upto=head)),
        "some lines": list(lines(connection, after=7, upto=head - 7)),
    }


def assert_same(before, after):
    for name, value in before.items():
        assert after[name] == value, name


@pytest.mark.parametrize("file_events", [1_000_000, 7])
def test_every_way_of_reading_gives_the_same_before_and_after(any_old, file_events):
    any_old.live()
    head = any_old.head
    before = everything(any_old.connection, head)
    assert len(before["iterate"]) == head > 100
    report = any_old.archive(file_events=file_events)
    assert report.dropped >= 3
    assert any_old.sql("SELECT count(*) FROM events WHERE created_at < '2026-07-01'") == [(0,)]
    assert_same(before, everything(any_old.connection, head))


def test_archived_and_live_events_are_read_in_one_order(old):
    """Two months of three, with positions in between each other: every other event is an old one."""
    old.at(3)
    old.events(30)
    for _ in range(20):
        old.at(4)
        old.event()
        old.at_present()
        old.event()
    old.settle()
    head = old.head
    before = everything(old.connection, head)
    report = old.archive(cutoff=datetime(2026, 5, 1, tzinfo=UTC), file_events=11)
    assert [one.partition for one in report.partitions if one.dropped] == ["events_2026_03", "events_2026_04"]
    assert_same(before, everything(old.connection, head))


def test_a_month_that_was_archived_is_recorded_into_again_and_archived_again(old):
    old.live(3)
    old.archive()
    old.at(3, day=9)
    old.workflow("late")
    old.event({"late": True})
    old.settle()
    head = old.head
    before = everything(old.connection, head) | {"late": reader.of_workflow(old.connection, "late")}
    assert len(before["late"]) > 5
    report = old.archive()
    assert "events_2026_03" in {one.partition for one in report.partitions if one.dropped and one.events}
    after = everything(old.connection, head)
    late = reader.of_workflow(old.connection, "late")
    assert_same(before, after | {"late": late[: len(before["late"])]})
    assert [event.event_type for event in late[len(before["late"]) :]] == ["workflow.archived"]


def test_what_an_application_says_of_an_archived_workflow_is_found_with_the_rest(old):
    old.live(3)
    old.archive()
    for workflow_id in ("w-3-0", "never-was"):
        old.at(3, day=20)
        values = {"event_type": "audit.looked", "entity_type": "audit", "entity_id": "a"}
        old.record(change_event(), workflow_id=workflow_id, payload={"by": "me"}, **values)
    old.settle()
    before = [reader.of_workflow(old.connection, workflow_id) for workflow_id in ("w-3-0", "never-was")]
    assert [events[-1].event_type for events in before] == ["audit.looked"] * 2
    old.archive()
    assert [reader.of_workflow(old.connection, workflow_id) for workflow_id in ("w-3-0", "never-was")] == before


def change_event():
    from workledger.model.change import record_event

    return record_event


def test_a_follower_comes_through_the_archive_into_the_present(old):
    old.live(3, 4)
    before = list(reader.iterate(old.connection))
    old.archive()
    with old.connect() as connection:
        followed = list(follow(connection, schema="workledger", after=0, idle_s=0.5))
    assert followed[: len(before)] == before
    assert followed[len(before)].event_type == "log.archived"


def test_the_past_is_shown_across_the_archive(old):
    old.live(3)
    head = old.head
    with old.connect() as connection, as_of(connection, head, schema="workledger") as past:
        before = past.get_workflow("w-3-talk"), past.executions("w-3-talk"), past.messages("talk-w-3-talk")
        events = past.events("w-3-talk")
    old.archive()
    with old.connect() as connection, as_of(connection, head, schema="workledger") as past:
        assert (past.get_workflow("w-3-talk"), past.executions("w-3-talk"), past.messages("talk-w-3-talk")) == before
        assert past.events("w-3-talk") == events


def test_who_asks_for_an_archived_workflow_is_told_where_it_is(old):
    old.live(3)
    old.archive()
    with pytest.raises(NotFound, match=r"workflow 'w-3-0' is archived in file://.*/workflows\.parquet") as caught:
        reads.workflow(old.connection, "w-3-0")
    assert caught.value.archive.startswith("state/")
    with pytest.raises(NotFound, match="conversation 'talk-w-3-0' is archived in file:"):
        reads.conversation(old.connection, "talk-w-3-0")
    with pytest.raises(NotFound, match="no workflow 'never'$"):
        reads.workflow(old.connection, "never")


def test_a_connection_that_cannot_read_archives_says_so_and_skips_nothing(old):
    old.live(3)
    old.archive()
    with connect(old.url, schema="workledger") as bare, pytest.raises(ConfigurationError, match="archived in file:"):
        reader.read(bare, after=0)


def test_files_that_were_moved_are_found_under_the_root_of_the_settings(old, tmp_path):
    old.live(3)
    before = list(reader.iterate(old.connection))
    old.archive()
    old.folder.rename(tmp_path / "elsewhere")
    old.folder, old.files = tmp_path / "elsewhere", FolderFiles(tmp_path / "elsewhere")
    with old.connect() as connection:
        assert list(reader.iterate(connection, upto=len(before))) == before
