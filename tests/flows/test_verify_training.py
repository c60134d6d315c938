"""Whatever is altered behind its back, `verify_training` finds it and says where."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.conftest import Road
from training.journal import Journal
from workledger.flows import verify_training as module
from workledger.flows.verify_training import TrainingReport, verify_training
from workledger.model import change
from workledger.training.records import RecordType
from workledger.training.store import open_store


@pytest.fixture
def landed(redis_road: Road) -> Road:
    for n in range(4):
        redis_road.journal.workflow(f"w{n}")
        redis_road.journal.event({"text": 'commas, "quotes"\r\nand\nnewlines', "big": "x" * 9000})
    redis_road.publish()
    redis_road.land(shard_rows=20)
    return redis_road


def verify(road: Road) -> TrainingReport:
    return verify_training(road.journal.connection, road.store)


def kinds(report: TrainingReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def shard(road: Road, record_type: RecordType = RecordType.EVENTS, form: str = "jsonl", n: int = 1) -> Path:
    found = [entry.files_of(form)[record_type] for entry in road.store.entries() if record_type in entry.files_of(form)]
    return road.store.folder / found[n].path


def alter(path: Path, old: bytes, new: bytes) -> int:
    """Alter the first occurrence; gives the number of its line."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return content[: content.index(old)].count(b"\n") + 1


def forge_manifest(road: Road, path: Path) -> None:
    """Make the manifest agree with an altered file."""
    name = str(path.relative_to(road.store.folder))
    for entry in (road.store.folder / "_manifest").iterdir():
        document = json.loads(entry.read_bytes())
        for file in document["files"]:
            if file["path"] == name:
                content = path.read_bytes()
                file["sha256"], file["bytes"] = hashlib.sha256(content).hexdigest(), len(content)
                file["rows"] = content.count(b"\n")
                document["rows"][file["record_type"]] = file["rows"]
        entry.write_text(json.dumps(document, indent=2))


def test_an_undisturbed_store_is_clean_and_says_what_was_compared(landed: Road) -> None:
    told: list[tuple[int, int]] = []
    report = verify_training(
        landed.journal.connection, landed.store, on_progress=lambda done, total: told.append((done, total))
    )
    assert report.findings == []
    assert report.ok
    entries = landed.store.entries()
    assert (report.position, report.head, report.lag) == (entries[-1].last, landed.journal.sequence(), 0)
    assert (report.ranges, report.files) == (len(entries), sum(len(entry.files) for entry in entries))
    assert report.rows == {"events": report.position, "tasks": 12, "tool_executions": 4, "workflows": 4}
    assert told[-1] == (report.position, report.position)


def test_what_is_not_landed_yet_is_lag_and_no_fault(landed: Road) -> None:
    landed.journal.events(5)
    landed.journal.sequence()
    report = verify(landed)
    assert (report.lag, report.findings) == (5, [])


def test_a_store_that_is_not_there_is_all_lag(journal: Journal, tmp_path: Path) -> None:
    journal.events(3)
    journal.sequence()
    report = verify_training(journal.connection, open_store(f"file:{tmp_path}/none"))
    assert (report.lag, report.position, report.findings) == (3, 0, [])


@pytest.mark.parametrize("forged", [False, True], ids=["file alone", "file and manifest"])
@pytest.mark.parametrize(
    ("record_type", "old", "new"),
    [
        (RecordType.EVENTS, b"owls", b"cats"),
        (RecordType.EVENTS, b'"severity":"info"', b'"severity":"warn"'),
        (RecordType.TASKS, b'"retry_count":0', b'"retry_count":1'),
        (RecordType.TOOL_EXECUTIONS, b'"query": "owls"', b'"query": "cats"'),
        (RecordType.WORKFLOWS, b'"output_data":"done"', b'"output_data":"gone"'),
    ],
)
def test_an_altered_line_is_named_by_file_line_and_position(
    landed: Road, record_type: RecordType, old: bytes, new: bytes, forged: bool
) -> None:
    path = shard(landed, record_type)
    number = alter(path, old, new)
    position = json.loads(path.read_bytes().splitlines()[number - 1])["position"]
    if forged:
        forge_manifest(landed, path)
    report = verify(landed)
    (finding,) = report.findings
    assert finding.kind == "line"
    assert finding.location == f"{record_type}/{path.name}:{number}"
    assert re.search(rf"position {position} differs from the log: \w+ is .*, the log says ", finding.message)


@pytest.mark.parametrize("forged", [False, True], ids=["file alone", "file and manifest"])
def test_a_line_that_was_taken_out_is_named_by_its_position(landed: Road, forged: bool) -> None:
    path = shard(landed)
    lines = path.read_bytes().splitlines(keepends=True)
    position = json.loads(lines.pop(3))["position"]
    path.write_bytes(b"".join(lines))
    if forged:
        forge_manifest(landed, path)
    report = verify(landed)
    assert ("line", f"the line of position {position} is missing") in [(f.kind, f.message) for f in report.findings]
    assert kinds(report) == ({"line", "manifest", "count"} if forged else {"line"})


def test_a_line_that_stands_twice_is_named(landed: Road) -> None:
    path = shard(landed)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], lines[4], *lines[5:]]))
    (finding,) = verify(landed).findings
    assert finding.location.endswith(".jsonl:6")
    assert "does not belong here" in finding.message


def test_lines_in_another_order_are_named(landed: Road) -> None:
    path = shard(landed)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))
    assert kinds(verify(landed)) == {"line"}


@pytest.mark.parametrize("tail", [b"\n", b"garbage\n", b'{"position":', b" "])
def test_something_added_at_the_end_is_named(landed: Road, tail: bytes) -> None:
    path = shard(landed)
    path.write_bytes(path.read_bytes() + tail)
    report = verify(landed)
    assert kinds(report) == {"line"}
    assert str(path.name) in str(report.findings[0])


@pytest.mark.parametrize("size", [0, 100])
def test_a_file_that_was_cut_short_is_named_by_what_is_missing(landed: Road, size: int) -> None:
    path = shard(landed)
    path.write_bytes(path.read_bytes()[:size])
    report = verify(landed)
    assert kinds(report) == {"line"}
    assert report.finding_count >= 19


def test_a_file_that_is_gone_is_named(landed: Road) -> None:
    path = shard(landed, RecordType.WORKFLOWS)
    path.unlink()
    (finding,) = verify(landed).findings
    assert (finding.kind, finding.location) == ("file", f"workflows/{path.name}")


def test_an_altered_row_of_csv_is_named_by_its_row(landed: Road) -> None:
    path = shard(landed, form="csv")
    alter(path, b"owls", b"cats")
    (finding,) = verify(landed).findings
    assert finding.kind == "line"
    assert re.fullmatch(rf"events/{path.name}:\d+", finding.location)


def test_an_altered_header_of_csv_is_found(landed: Road) -> None:
    path = shard(landed, form="csv")
    alter(path, b"position,event_id", b"position,event_no")
    assert kinds(verify(landed)) == {"line"}


def test_an_event_altered_in_the_log_shows_as_lines_that_differ(landed: Road) -> None:
    connection = landed.journal.connection
    connection.execute("ALTER TABLE events_2026_03 DISABLE TRIGGER ALL")
    connection.execute(
        "UPDATE events SET payload = payload || '{\"output\": \"other\"}' WHERE event_type = 'workflow.completed'"
        " AND entity_id = 'w1'"
    )
    report = verify(landed)
    assert kinds(report) == {"line"}
    assert {finding.location.partition("/")[0] for finding in report.findings} == {"events", "workflows"}


def test_positions_exchanged_in_the_log_are_found(landed: Road) -> None:
    landed.journal.connection.execute("ALTER TABLE event_positions DISABLE TRIGGER ALL")
    landed.journal.connection.execute("UPDATE event_positions SET position = 7000 WHERE position = 6")
    landed.journal.connection.execute("UPDATE event_positions SET position = 6 WHERE position = 7")
    landed.journal.connection.execute("UPDATE event_positions SET position = 7 WHERE position = 7000")
    assert "line" in kinds(verify(landed))


def test_a_missing_or_altered_payload_is_named(landed: Road) -> None:
    landed.journal.connection.execute("UPDATE payloads SET body = 'x', codec = 'json'")
    report = verify(landed)
    assert kinds(report) == {"log"}
    assert report.findings[0].location.startswith("payloads/")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"sha256": "', b'"sha256": "0'),
        (b'"rows": 20', b'"rows": 21'),
        (b'"bytes": ', b'"bytes": 1'),
        (b'"events": 20', b'"events": 19'),
        (b'"last_event_id": "0', b'"last_event_id": "1'),
        (b'"first": 21', b'"first": 22'),
    ],
)
def test_an_altered_manifest_entry_is_named(landed: Road, old: bytes, new: bytes) -> None:
    path = sorted((landed.store.folder / "_manifest").iterdir())[1]
    alter(path, old, new)
    report = verify(landed)
    assert f"_manifest/{path.name}" in [finding.location for finding in report.findings]
    assert "manifest" in kinds(report)


def test_a_manifest_entry_that_is_gone_leaves_a_gap_and_unlisted_files(landed: Road) -> None:
    sorted((landed.store.folder / "_manifest").iterdir())[1].unlink()
    report = verify(landed)
    assert kinds(report) == {"manifest", "count", "unlisted"}
    assert any("leave a gap: after position 20" in finding.message for finding in report.findings)


def test_a_manifest_entry_that_cannot_be_read_is_named_and_the_rest_is_compared(landed: Road) -> None:
    entries = sorted((landed.store.folder / "_manifest").iterdir())
    entries[1].write_bytes(b"{")
    report = verify(landed)
    assert f"_manifest/{entries[1].name}" in [finding.location for finding in report.findings]
    assert report.ranges == len(entries) - 1


def test_a_file_that_the_manifest_does_not_name_is_found(landed: Road) -> None:
    copy = shard(landed, n=0).with_name("events-000000000002-000000000020.jsonl")
    copy.write_bytes(b"{}\n")
    (finding,) = verify(landed).findings
    assert (finding.kind, finding.location) == ("unlisted", f"events/{copy.name}")


def test_files_of_a_writer_at_work_are_no_fault(landed: Road) -> None:
    last = landed.store.position()
    (landed.store.folder / "events" / f"events-{last + 1:012d}-{last + 9:012d}.jsonl").write_bytes(b"{}\n")
    assert verify(landed).findings == []


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"{}")])
def test_a_schema_that_is_gone_or_altered_is_found(landed: Road, harm: Callable[[Path], object]) -> None:
    harm(landed.store.folder / "_schema" / "tasks.json")
    (finding,) = verify(landed).findings
    assert (finding.kind, finding.location) == ("schema", "_schema/tasks.json")
    landed.journal.events(1)
    landed.land()
    assert verify(landed).findings == []


def test_a_store_that_is_ahead_of_the_log_is_a_fault(landed: Road, database15_url: str) -> None:
    other = Journal(database15_url)
    other.events(3)
    other.sequence()
    report = verify_training(other.connection, landed.store)
    assert "head" in kinds(report)
    assert not report.ok
    other.close()


def test_of_many_findings_the_first_are_kept_and_all_are_counted(landed: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN", 3)
    shard(landed).write_bytes(b"")
    report = verify(landed)
    assert len(report.findings) == 3
    assert report.finding_count == 20


def test_a_workflow_that_runs_across_a_range_that_cannot_be_read_gives_no_false_finding(landed: Road) -> None:
    """What is kept from one range to the next must not be used across one that was skipped."""
    landed.journal.start("long", conversation_id="c1")
    landed.land()
    landed.journal.record(change.progress_workflow, workflow_id="long", metadata={"x": 1}, conversation_id="c2")
    landed.land()
    skipped = landed.store.entries()[-1]
    landed.journal.execution("long/1", "long")
    landed.journal.finish("long")
    landed.land()
    (landed.store.folder / skipped.path).write_bytes(b"{")
    report = verify(landed)
    assert kinds(report) == {"manifest", "count"}
