"""Whoever reads the log from further back than the database goes is given what is archived, and skips nothing."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.journal import SCHEMA
from workledger.errors import NotFound
from workledger.flows.as_of import as_of
from workledger.flows.log_to_metrics import catch_up, catch_up_with_archive, verify_metrics
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.log_to_webhooks import Courier, add_webhook, redeliver
from workledger.flows.mount import mounted
from workledger.flows.rebuild_training import boundaries, rebuild
from workledger.flows.repair_training import verify_and_repair
from workledger.flows.synapse_to_consumers import LogBehind
from workledger.flows.verify_training import verify_training
from workledger.log import consumers, reader
from workledger.model import change
from workledger.synapse import endpoints
from workledger.synapse.endpoints import DeadLetter
from workledger.synapse.webhook import Sender
from workledger.training.store import open_store


def positions_from(source, *, after=0):
    """What a reader is given, page after page, until there is no more."""
    found = []
    while events := source(after=after, limit=50):
        found += [event.position for event in events]
        after = found[-1]
    return found


def test_a_group_that_begins_with_the_whole_log_is_given_what_is_archived(old):
    old.live(3, 4)
    old.archive()
    old.event({"after": 1})
    old.settle()
    with closing(LogBehind(old.connect, group="late", schema=SCHEMA)) as behind:
        assert positions_from(behind.events) == list(range(1, old.head + 1))
        # Nothing is held once it has come to what the database has.
        assert old.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'") == [(0,)]


def test_the_bus_that_is_none_gives_only_what_the_database_has(old):
    """It never jumps: whoever fills the gap from the log is told where it is."""
    old.live(3)
    last = old.head
    old.archive()
    old.settle()
    with closing(DatabaseTail(connect=old.connect, schema=SCHEMA)) as tail:
        assert tail.read(after=0, limit=10) == []
        assert tail.read(after=last, limit=10)[0].position == last + 1


class Receiver(BaseHTTPRequestHandler):
    """Takes everything, unless it is told to refuse."""

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.taken.append(said["data"]["position"])
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.taken, server.answer = [], 204
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(20)


def add_hook(old, receiver, **values):
    url = f"http://127.0.0.1:{receiver.server_port}/"
    add_webhook(old.connection, "h", url, schema=SCHEMA, allow_private=True, **values)


def test_a_webhook_that_begins_with_the_whole_log_delivers_what_is_archived(old, receiver):
    old.live(3)
    old.archive()
    old.settle()
    head = old.head
    add_hook(old, receiver, after=0, event_types=["workflow.completed"])
    with closing(Courier("h", connect=old.connect, schema=SCHEMA)) as courier:
        while courier.step():
            pass
    completed = [event for event in reader.iterate(old.connection) if event.event_type == "workflow.completed"]
    assert receiver.taken == [event.position for event in completed]
    assert len(completed) == 3
    assert consumers.position_of(old.connection, "webhook:h") == head


def test_a_webhook_that_waits_keeps_nothing_from_being_archived(old, receiver):
    old.live(3)
    old.archive()
    old.live(4)
    add_hook(old, receiver, after=0)
    receiver.answer = 503
    with closing(Courier("h", connect=old.connect, schema=SCHEMA)) as courier:
        assert courier.step() == 0
        assert receiver.taken == [1]
        held = next(one.held for one in old.archive().partitions if one.partition == "events_2026_04")
        assert "is being read by who verifies, or begins far back" in held
        courier.wait(0.01)
        assert "events_2026_04" in {one.partition for one in old.archive().partitions if one.dropped}


def test_a_dead_letter_whose_event_is_archived_is_delivered_after_all(old, receiver):
    old.live(3)
    add_hook(old, receiver)
    event = reader.read(old.connection, after=4, limit=1)[0]
    letter = DeadLetter(5, event.event_id, event.event_type, 1, "503", event.recorded_at)
    endpoints.bury(old.connection, "h", letter)
    old.archive()
    with old.connect() as connection:
        ((tried, outcome),) = redeliver(connection, "h", schema=SCHEMA, sender=Sender(timeout_s=20))
    assert outcome.is_delivered
    assert tried.position == 5
    assert receiver.taken == [5]


def test_metrics_that_begin_anew_know_workflows_that_left_before_their_month(old):
    """The month stays because something in it is open; what is finished has left the state all the same."""
    old.at(3)
    old.workflow("done")
    old.start("open")
    old.settle()
    report = old.archive()
    assert report.state.workflows == 1
    assert "events_2026_03" in old.months()
    old.settle()
    old.sql("DELETE FROM consumers WHERE name = 'metrics' RETURNING 1")
    for table in ("metric_counters", "metric_histograms", "metric_hours", "metric_label_values"):
        old.connection.execute(f"DELETE FROM {table}")
    with old.connect() as connection:
        catch_up_with_archive(connection)
        catch_up(connection)
        with mounted(connection):
            assert verify_metrics(connection).findings == ()
    assert old.faults() == []


def test_a_workflow_is_replayed_out_of_the_archive(old):
    old.live(3)
    head = old.head
    old.archive()
    old.settle()
    with old.connect() as connection, as_of(connection, head, schema=SCHEMA, workflow_id="w-3-talk") as past:
        assert past.get_workflow("w-3-talk").status == "completed"
        assert [one.status for one in past.executions("w-3-talk")] == ["failed", "completed"]
        assert [one.seq for one in past.messages("talk-w-3-talk")] == [1, 3]
    with (
        old.connect() as connection,
        as_of(connection, old.head, schema=SCHEMA, workflow_id="w-3-talk") as past,
        pytest.raises(NotFound, match="is archived in"),
    ):
        past.get_workflow("w-3-talk")


def test_a_workflow_is_replayed_whose_conversation_began_in_the_archive(old):
    old.at(3)
    old.start("first", conversation_id="long")
    old.record(change.start_conversation, conversation_id="long", workflow_id="first")
    old.record(
        change.add_message,
        message_id="m1",
        conversation_id="long",
        message={"role": "user", "content": "once"},
        workflow_id="first",
    )
    old.finish("first")
    old.at(5)
    old.start("second", conversation_id="long")
    old.settle()
    report = old.archive()
    assert "events_2026_03" not in old.months(), report.partitions
    old.record(
        change.add_message,
        message_id="m2",
        conversation_id="long",
        message={"role": "user", "content": "again"},
        workflow_id="second",
    )
    old.settle()
    with old.connect() as connection, as_of(connection, old.head, schema=SCHEMA, workflow_id="second") as past:
        assert [one.message_id for one in past.messages("long")] == ["m1", "m2"]


def test_a_training_store_is_rebuilt_and_repaired_out_of_the_archive(old, tmp_path):
    old.live(3)
    head = old.head
    old.archive()
    old.settle()
    store = open_store(f"file:{tmp_path}/made?format=jsonl")
    with old.connect() as connection:
        assert rebuild(connection, store, ends=boundaries(head, block_rows=24)) == head
        with mounted(connection):
            assert verify_training(connection, store).ok
        path = store.folder / store.entries()[0].files[0].path
        path.write_bytes(path.read_bytes()[:-9])
        report, repaired = verify_and_repair(connection, store)
    assert report.ok
    assert repaired.files
