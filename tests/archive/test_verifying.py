"""What verified before verifies after; what is altered in the archive is found, and it is said where."""

from __future__ import annotations

import filecmp
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.journal import SCHEMA
from workledger.errors import StoreCorrupted
from workledger.flows.collect import collect_payloads
from workledger.flows.log_to_metrics import catch_up_with_archive, recompute, verify_metrics
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.mount import mounted
from workledger.flows.prove import prove
from workledger.flows.seal import seal_all
from workledger.flows.synapse_to_training import land_once
from workledger.flows.verify_training import verify_training
from workledger.log import reader
from workledger.operational import archived, reads
from workledger.synapse.postgres import PostgresBus
from workledger.training.store import open_store


def test_everything_verifies_after_an_archive_as_it_did_before(any_old):
    any_old.live()
    assert any_old.faults() == []
    any_old.archive(file_events=20)
    assert any_old.faults() == []
    assert any_old.counts() == {**dict.fromkeys(any_old.counts(), 0), "events": any_old.counts()["events"]}
    any_old.live(6, 7)
    assert any_old.faults() == []
    any_old.archive()
    assert any_old.faults() == []


def test_nothing_is_left_in_the_session_of_who_verified(old):
    old.live(3)
    old.archive()
    old.sequence()
    everything = old.head
    with old.connect() as connection:
        for _ in range(2):
            with mounted(connection) as mount:
                assert mount.events > 0
                assert reader.read(connection, after=0, limit=1)[0].position == 1
                assert connection.execute("SELECT count(*) FROM events").fetchone()[0] == everything
        left = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()").fetchall()
        assert left == []
        assert connection.execute("SELECT count(*) FROM events").fetchone()[0] < everything


def test_metrics_that_begin_anew_count_the_archive_too(old):
    old.live()
    counted = "SELECT name, labels::text, value FROM metric_counters"
    before = old.sql(counted)
    old.archive()
    old.settle()
    with old.connect() as connection:
        recompute(connection)
        assert set(before) <= set(old.sql(counted))
    old.sql("DELETE FROM consumers WHERE name = 'metrics' RETURNING 1")
    for table in ("metric_counters", "metric_histograms", "metric_hours", "metric_label_values"):
        old.connection.execute(f"DELETE FROM {table}")
    with old.connect() as connection:
        assert catch_up_with_archive(connection) > 0
        with mounted(connection):
            assert verify_metrics(connection).findings == ()


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in {".jsonl", ".csv"})


def test_a_training_store_that_begins_anew_gets_the_same_bytes(old, tmp_path):
    old.live()
    head = old.head
    first, second = (open_store(f"file:{tmp_path}/{name}?format=jsonl,csv") for name in ("first", "second"))
    bus = PostgresBus(DatabaseTail(connect=old.connect, schema=SCHEMA))
    land_once(old.connection, bus=bus, store=first, schema=SCHEMA, upto=head)
    old.archive()
    with old.connect() as connection:
        collect_payloads(connection, schema=SCHEMA, min_age=timedelta(0))
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (0,)
        assert land_once(connection, bus=bus, store=second, schema=SCHEMA, upto=head) == head
        with mounted(connection):
            assert verify_training(connection, second).ok
    bus.close()
    names = files_of(first.folder)
    assert names
    assert names == files_of(second.folder)
    assert filecmp.cmpfiles(first.folder, second.folder, names, shallow=False) == (names, [], [])


def test_large_values_are_found_in_the_archive_when_nothing_else_has_them(old):
    old.live(3)
    before = reads.workflow(old.connection, "w-3-talk"), reads.executions_of(old.connection, "w-3-talk")
    messages, judged = reads.messages_of(old.connection, "talk-w-3-talk"), reads.feedback_of(old.connection, "w-3-talk")
    old.archive()
    old.sequence()
    with old.connect() as connection:
        collect_payloads(connection, schema=SCHEMA, min_age=timedelta(0))
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (0,)
        found = archived.workflow(connection, "w-3-talk")
        assert (found.workflow, found.executions) == before
        assert found.messages == messages
        assert {one.feedback_id for one in found.feedback} == {"w-3-talk/f0", "w-3-talk/f1", "w-3-talk/f2"}
        assert [one for one in found.feedback if one.workflow_id] == judged
    assert old.faults() == []


def test_an_archived_event_can_be_proved(old):
    pytest.importorskip("cryptography")
    from workledger.flows.seal import make_key
    from workledger.log.keys import KeyFolder

    folder = KeyFolder(old.folder.parent / "keys")
    make_key(old.connection, schema=SCHEMA, folder=folder)
    old.at(3)
    old.events(20)
    old.sequence()
    seal_all(old.connection, schema=SCHEMA, signer=folder.active_signer(old.connection))
    before = prove(old.connection, 7)
    report = old.archive()
    assert report.dropped
    assert prove(old.connection, 7) == before


# -- what is altered --------------------------------------------------------------------------------------------


def path_of(old, kind, n=0):
    urls = old.sql("SELECT url FROM archives WHERE kind = %s ORDER BY name", kind)
    return Path(unquote(urlsplit(urls[n][0]).path))


def rewrite(path, alter):
    """Write a file again, with some rows altered, as somebody would who wants it to be believed."""
    with pq.ParquetFile(path) as file:
        table, told = file.read(), file.metadata.metadata
    rows = alter(table.to_pylist())
    writer = pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False)
    writer.add_key_value_metadata(told)
    writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
    writer.close()


def change_row(n, **values):
    return lambda rows: [{**row, **(values if at == n else {})} for at, row in enumerate(rows)]


ALTERED = {
    "payload": (change_row(4, payload='{"n": 1}'), 5),
    "type": (change_row(9, event_type="task.failed"), 10),
    "workflow": (change_row(2, workflow_id="another"), 3),
    "salt": (change_row(6, salt="00000000-0000-4000-8000-000000000000"), 7),
    "time": (lambda rows: [{**row, "created_at": rows[0]["created_at"]} for row in rows], 2),
    "escaped": (change_row(8, entity_id='"x"'), 9),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_event_of_a_file_is_found_and_located(old, what):
    old.live(3)
    old.archive()
    alter, position = ALTERED[what]
    path = path_of(old, "events")
    rewrite(path, alter)
    faults = old.faults()
    assert any(f.startswith(f"archives: file://{path}: has ") and "recorded are" in f for f in faults)
    assert any(
        f"archives: file://{path}: position {position}: " in f and "not the event that was sealed" in f for f in faults
    )
    assert any(f.startswith("seals: ") and f"event_positions[{position}]" in f for f in faults)


def test_an_event_that_was_taken_out_of_a_file_is_missed(old):
    old.live(3)
    old.archive()
    rewrite(path_of(old, "events"), lambda rows: rows[:10] + rows[11:])
    faults = old.faults()
    assert any(f.startswith("log: event_positions[11] (event ") and "position without an event" in f for f in faults)
    assert any("has 38 events; recorded are 39" in f for f in faults)


@pytest.mark.parametrize("kind", ["events", "payloads", "workflows", "messages"])
def test_a_flipped_byte_is_found_whatever_the_file(old, kind):
    old.live(3)
    old.archive()
    path = path_of(old, kind)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)
    faults = old.faults()
    assert any(f.startswith(f"archives: file://{path}: has ") for f in faults)


@pytest.mark.parametrize("kind", ["events", "payloads", "task_executions"])
def test_a_file_that_is_gone_is_found(old, kind):
    old.live(3)
    old.archive()
    path = path_of(old, kind)
    path.unlink()
    assert any(f == f"archives: file://{path}: the archive file {path} is gone" for f in old.faults())
    if kind == "events":
        with old.connect() as connection, pytest.raises(StoreCorrupted, match="is gone"):
            reader.read(connection, after=0)


def test_a_value_that_was_altered_is_found(old):
    old.live(3)
    old.archive()
    rewrite(path_of(old, "payloads"), change_row(0, json='"another"'))
    assert any("does not have the content its digest names" in fault for fault in old.faults())


def test_records_of_files_that_a_superuser_alters_are_found(old):
    old.live(3)
    old.archive()
    old.settle()
    ((other,),) = old.sql("SELECT name FROM archives WHERE kind = 'events'")
    old.connection.execute("ALTER TABLE archives DISABLE TRIGGER ALL")
    old.connection.execute("UPDATE archives SET sha256 = sha256(sha256) WHERE name = %s", (other,))
    old.connection.execute("DELETE FROM archives WHERE kind = 'messages'")
    old.connection.execute("ALTER TABLE archives ENABLE ALWAYS TRIGGER append_only_rows")
    old.connection.execute("ALTER TABLE archives ENABLE ALWAYS TRIGGER append_only_table")
    faults = old.faults()
    assert any(f.startswith(f"archives: archives[{other}]: the event ") and "says something else" in f for f in faults)
    assert any("messages.parquet]: the log tells of this file, and nothing is recorded about it" in f for f in faults)


def test_what_differs_from_its_seal_is_not_archived(old):
    old.live(3, 4)
    old.connection.execute("ALTER TABLE events_2026_03 DISABLE TRIGGER ALL")
    old.connection.execute(
        "UPDATE events SET payload = '{}' WHERE event_id = (SELECT event_id FROM event_positions WHERE position = 7)"
    )
    with pytest.raises(StoreCorrupted, match="position 7: .* is not the event that was sealed"):
        old.archive()
    assert "events_2026_03" in old.months()
    assert old.sql("SELECT count(*) FROM archives WHERE kind = 'events'") == [(0,)]


def test_what_is_not_sealed_waits(old):
    old.at(3)
    old.events(10)
    old.sequence()
    report = old.archive()
    (march,) = [one for one in report.partitions if one.partition == "events_2026_03"]
    assert march.held == "positions up to 10 are not sealed yet, only up to 0"


def test_a_file_that_reads_differently_from_what_was_written_is_not_recorded(old):
    old.live(3)

    def spoil(step, name):
        if step == "written" and name.startswith("events/"):
            path = old.folder / name
            data = bytearray(path.read_bytes())
            data[100] ^= 1
            path.write_bytes(data)

    with pytest.raises(StoreCorrupted, match="does not read as it was written"):
        old.archive(on_step=spoil)
    assert "events_2026_03" in old.months()
    assert old.faults() == []
    old.archive()
    assert old.faults() == []
    assert sorted(path.name for path in (old.folder / "events").iterdir()) == [
        "events_2026_03-000000000001-000000000039-2.parquet",
        "events_2026_03-000000000001-000000000039.parquet",
    ]
