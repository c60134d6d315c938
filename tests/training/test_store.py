"""The store in a folder: whole or not there, once, whoever dies."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import wait_until
from training.journal import Journal
from training.reading import lines, records, tree
from workledger.errors import ConfigurationError, SchemaError, StoreCorrupted, Unavailable
from workledger.training.manifest import tiled
from workledger.training.records import RecordType
from workledger.training.store import LocalStore, open_store

Land = Callable[..., int]
LINES = [b'{"position":1}', b'{"position":2}']


def write(store: LocalStore, first: int, last: int) -> None:
    with store.writing() as writer:
        assert writer is not None
        assert writer.position == first - 1
        writer.write(RecordType.EVENTS, [b'{"position":%d}' % n for n in range(first, last + 1)])
        writer.commit(last=last, last_event_id=f"id-{last}")


@pytest.fixture
def plain(tmp_path: Path) -> LocalStore:
    return open_store(f"file:{tmp_path}/plain")


@pytest.mark.parametrize(
    ("url", "folder", "names"),
    [
        ("file:data/training", "data/training", ["jsonl"]),
        ("file:data/training?format=jsonl,csv", "data/training", ["jsonl", "csv"]),
        ("file:///var/data?format=csv", "/var/data", ["csv"]),
        ("file:with%20space/x?format=jsonl&format=csv", "with space/x", ["jsonl", "csv"]),
    ],
)
def test_a_url_names_folder_and_formats(url: str, folder: str, names: list[str]) -> None:
    store = open_store(url)
    assert store.folder == Path(folder).absolute()
    assert [form.name for form in store.formats] == names


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data/training",
        "file:",
        "file:x?format=xml",
        "file:x?format=",
        "file:x?fromat=csv",
        "s3://b/x",
        "file://host/x",
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


def test_a_store_that_is_not_there_is_empty_and_reading_it_makes_nothing(plain: LocalStore) -> None:
    assert (plain.position(), plain.entries()) == (0, [])
    assert not plain.folder.exists()


def test_a_range_without_lines_of_a_type_has_no_file_for_it(journal: Journal, land: Land, store: LocalStore) -> None:
    journal.events(3)
    land()
    (entry,) = store.entries()
    assert entry.rows == {"events": 3, "tasks": 0, "tool_executions": 0, "workflows": 0}
    assert [file.path for file in entry.files] == [
        "events/events-000000000001-000000000003.csv",
        "events/events-000000000001-000000000003.jsonl",
    ]
    assert not any((store.folder / "tasks").iterdir())


def test_the_summary_says_how_far_the_store_is_and_what_to_read(
    journal: Journal, land: Land, store: LocalStore
) -> None:
    journal.workflow("w")
    land(shard_rows=10)
    summary = json.loads((store.folder / "latest.json").read_bytes())
    assert summary["position"] == store.position() == journal.sequence()
    assert summary["rows"] == {"events": summary["position"], "tasks": 3, "tool_executions": 1, "workflows": 1}
    assert [(found["first"], found["last"]) for found in summary["ranges"]] == store.ranges()
    for found in summary["ranges"]:
        entry = json.loads((store.folder / found["manifest"]).read_bytes())
        assert (entry["first"], entry["last"], entry["rows"]) == (found["first"], found["last"], found["rows"])


def test_only_one_writer_at_a_time(plain: LocalStore) -> None:
    with plain.writing() as first:
        assert first is not None
        with plain.writing() as second:
            assert second is None
    with plain.writing() as again:
        assert again is not None


def test_a_range_that_was_not_committed_leaves_nothing(plain: LocalStore) -> None:
    write(plain, 1, 2)
    before = tree(plain.folder)
    with plain.writing() as writer:
        assert writer is not None
        writer.write(RecordType.EVENTS, LINES)
        writer.write(RecordType.TASKS, LINES)
    assert tree(plain.folder) == before


def test_files_that_no_entry_names_are_removed_by_the_next_writer_and_others_are_left(plain: LocalStore) -> None:
    write(plain, 1, 2)
    (plain.folder / "events" / "events-000000000003-000000000009.jsonl").write_bytes(b"left by a killed writer")
    (plain.folder / "_tmp" / "half").write_bytes(b"x")
    (plain.folder / "events" / "README").write_bytes(b"not ours")
    write(plain, 3, 4)
    assert plain.ranges() == [(1, 2), (3, 4)]
    names = sorted(path.name for path in (plain.folder / "events").iterdir())
    assert names == [
        "README",
        "events-000000000001-000000000002.jsonl",
        "events-000000000003-000000000004.jsonl",
    ]
    assert list((plain.folder / "_tmp").iterdir()) == []


def test_a_shard_is_never_replaced_by_other_content(plain: LocalStore) -> None:
    with plain.writing() as writer:
        assert writer is not None
        writer.write(RecordType.EVENTS, LINES)
        taken = plain.folder / "events" / "events-000000000001-000000000002.jsonl"
        taken.write_bytes(b"somebody else's")
        with pytest.raises(StoreCorrupted, match="events-000000000001-000000000002"):
            writer.commit(last=2, last_event_id="x")
    assert plain.position() == 0
    assert taken.read_bytes() == b"somebody else's"


def test_the_same_shard_written_before_is_fine(plain: LocalStore) -> None:
    with plain.writing() as writer:
        assert writer is not None
        writer.write(RecordType.EVENTS, LINES)
        taken = plain.folder / "events" / "events-000000000001-000000000002.jsonl"
        taken.write_bytes(b"\n".join([*LINES, b""]))
        writer.commit(last=2, last_event_id="x")
    assert plain.position() == 2


@pytest.mark.parametrize(
    ("ranges", "found"),
    [
        ([], []),
        ([(1, 5), (6, 6), (7, 20)], [(1, 5), (6, 6), (7, 20)]),
        ([(1, 5), (6, 10), (1, 10), (11, 12)], [(1, 10), (11, 12)]),
        ([(1, 10), (4, 10), (4, 6), (11, 11)], [(1, 10), (11, 11)]),
    ],
)
def test_ranges_that_another_contains_do_not_count(ranges: list[tuple[int, int]], found: list[tuple[int, int]]) -> None:
    assert tiled(ranges) == found


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([(2, 5)], "leave a gap: after position 0"),
        ([(1, 5), (7, 9)], "leave a gap: after position 5"),
        ([(1, 5), (5, 9)], "overlap: after position 5"),
    ],
)
def test_a_gap_or_an_overlap_is_named(ranges: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(StoreCorrupted, match=message):
        tiled(ranges)


def test_a_manifest_entry_that_is_gone_stops_the_writer(plain: LocalStore) -> None:
    for first, last in [(1, 2), (3, 4), (5, 6)]:
        write(plain, first, last)
    (plain.folder / "_manifest" / "000000000003-000000000004.json").unlink()
    with pytest.raises(StoreCorrupted, match="after position 2"):
        write(plain, 7, 8)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"first": "x"}'])
def test_a_manifest_entry_that_cannot_be_read_is_named(plain: LocalStore, content: bytes) -> None:
    write(plain, 1, 2)
    (plain.folder / "_manifest" / "000000000001-000000000002.json").write_bytes(content)
    with pytest.raises(StoreCorrupted, match="_manifest/000000000001-000000000002"):
        plain.entries()


def test_a_store_of_a_newer_version_is_left_alone(plain: LocalStore) -> None:
    write(plain, 1, 2)
    path = plain.folder / "_manifest" / "000000000001-000000000002.json"
    path.write_bytes(path.read_bytes().replace(b'"schema_version": 1', b'"schema_version": 99'))
    with pytest.raises(SchemaError, match="newer version"):
        write(plain, 3, 4)


def test_a_format_added_later_is_written_from_then_on(journal: Journal, land: Land, tmp_path: Path) -> None:
    journal.events(2)
    land(open_store(f"file:{tmp_path}/grows"))
    journal.events(2)
    both = open_store(f"file:{tmp_path}/grows?format=jsonl,csv")
    land(both)
    assert [sorted(file.format for file in entry.files) for entry in both.entries()] == [["jsonl"], ["csv", "jsonl"]]


def test_landing_again_gives_the_same_bytes(journal: Journal, land: Land, tmp_path: Path) -> None:
    for n in range(6):
        journal.workflow(f"w{n}")
    stores = [open_store(f"file:{tmp_path}/{name}?format=jsonl,csv") for name in "ab"]
    for store in stores:
        land(store, shard_rows=17)
    first, second = (tree(store.folder) for store in stores)
    assert len(first) > 20
    assert first == second


def test_ranges_end_at_multiples_of_the_shard_size(journal: Journal, land: Land, store: LocalStore) -> None:
    journal.events(5)
    land(shard_rows=10)
    journal.events(18)
    land(shard_rows=10)
    assert store.ranges() == [(1, 5), (6, 10), (11, 20), (21, 23)]
    assert [line["position"] for line in records(store, RecordType.EVENTS)] == list(range(1, 24))


def test_a_full_disk_stops_landing_and_harms_nothing(journal: Journal, land: Land, store: LocalStore) -> None:
    journal.events(3)
    land()
    before = tree(store.folder)
    for _ in range(20):
        journal.event({"text": "x" * 3000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(Unavailable, match="cannot be written"):
            land()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tree(store.folder) == before
    assert land() == 23
    assert len(lines(store, RecordType.EVENTS)) == 23


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_full_at_any_moment_harms_nothing(journal: Journal, land: Land, tmp_path: Path) -> None:
    """A file system of fixed size, filled up so that ever less is left: writing, syncing and linking all get to fail."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        store = open_store(f"file:{disk}/training?format=jsonl,csv")
        for n in range(10):
            journal.workflow(f"w{n}")
        ballast = disk / "ballast"
        refused = 0
        for free_kib in (0, 8, 16, 32, 64, 128, 256):
            shutil.rmtree(store.folder, ignore_errors=True)
            ballast.write_bytes(b"")
            room = shutil.disk_usage(disk).free - free_kib * 1024
            ballast.write_bytes(b"x" * max(room, 0))
            try:
                land(store, shard_rows=40)
            except Unavailable:
                refused += 1
            ballast.unlink()
            land(store, shard_rows=40)
            assert store.position() == journal.sequence()
            positions = [line["position"] for line in records(store, RecordType.EVENTS)]
            assert positions == list(range(1, store.position() + 1))
        assert refused >= 3
    finally:
        subprocess.run(["umount", disk], check=True)


WRITER = """
import sys
from pathlib import Path
from workledger.training.records import RecordType
from workledger.training.store import open_store

store = open_store(sys.argv[1])
with store.writing() as writer:
    if writer is None:
        sys.exit(3)
    writer.write(RecordType.EVENTS, [b'{"position":1}'])
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_writer_is_free_at_once(plain: LocalStore) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", WRITER, f"file:{plain.folder}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"holding\n"
    with plain.writing() as refused:
        assert refused is None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    wait_until(lambda: holder.returncode is not None)
    write(plain, 1, 2)
    assert plain.ranges() == [(1, 2)]
