"""A store made again is the store it replaces, byte for byte; what is missing is refilled, and nothing else touched."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.object_stores import Cloud
from training.journal import Journal
from training.reading import tree
from training.test_objects import contents, opened
from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.flows.rebuild_training import boundaries, copy_ranges, rebuild
from workledger.flows.repair_training import damaged_ranges, repair, verify_and_repair
from workledger.flows.verify_training import verify_training
from workledger.training.compaction import compact
from workledger.training.records import RecordType
from workledger.training.store import LocalStore, open_store

Land = Callable[..., int]
BLOCK = 24
FORMATS = "jsonl,csv,parquet"


@given(st.integers(0, 300), st.integers(1, 50), st.lists(st.integers(1, 40), max_size=10))
def test_boundaries_follow_the_other_store_and_then_the_blocks(head: int, block: int, spans: list[int]) -> None:
    like, at = [], 0
    for span in spans:
        like.append((at + 1, at + span))
        at += span
    ends = boundaries(head, block_rows=block, like=like)
    assert ends == sorted(set(ends))
    assert (ends[-1] if ends else 0) == head
    kept = [last for _, last in like if last <= head]
    assert ends[: len(kept)] == kept
    assert all(end % block == 0 or end == head for end in ends[len(kept) :])


@pytest.fixture
def scattered(journal: Journal, land: Land, tmp_path: Path) -> LocalStore:
    """A store with ranges of many sizes."""
    for n in range(4):
        journal.workflow(f"w{n}", metadata={"text": "é" * (40 * n)})
    head = journal.sequence()
    store = open_store(f"file:{tmp_path}/store?format={FORMATS}")
    rng = random.Random(5)
    at = 0
    while at < head:
        at = land(store, upto=min(at + rng.randrange(1, 15), head), shard_rows=BLOCK)
    return store


def ends_of(store: LocalStore) -> list[int]:
    return boundaries(store.position(), block_rows=BLOCK, like=store.ranges())


# -- a new store --------------------------------------------------------------------------------------------------


def test_a_store_made_again_with_the_same_boundaries_is_the_same_bytes(
    journal: Journal, scattered: LocalStore, tmp_path: Path
) -> None:
    again = open_store(f"file:{tmp_path}/again?format={FORMATS}")
    assert rebuild(journal.connection, again, ends=ends_of(scattered)) == scattered.position()
    assert tree(again.folder) == tree(scattered.folder)


def test_a_store_made_again_without_a_model_is_the_compacted_one(
    journal: Journal, scattered: LocalStore, tmp_path: Path
) -> None:
    again = open_store(f"file:{tmp_path}/again?format={FORMATS}")
    rebuild(journal.connection, again, ends=boundaries(scattered.position(), block_rows=BLOCK))
    compact(scattered, block_rows=BLOCK, whole=True, grace_s=0)
    assert tree(again.folder) == tree(scattered.folder)


def test_in_a_bucket_it_is_the_same_bytes_too(journal: Journal, scattered: LocalStore, seaweedfs_cloud: Cloud) -> None:
    again = opened(seaweedfs_cloud, seaweedfs_cloud.new_bucket(), format=FORMATS)
    rebuild(journal.connection, again, ends=ends_of(scattered))
    assert contents(again) == tree(scattered.folder)


def test_what_lies_before_is_copied_and_the_rest_is_made(
    journal: Journal, scattered: LocalStore, tmp_path: Path
) -> None:
    again = open_store(f"file:{tmp_path}/again?format={FORMATS}")
    first = scattered.ranges()[4][0]
    copy_ranges(scattered, again, before=first)
    assert again.ranges() == scattered.ranges()[:4]
    copy_ranges(scattered, again, before=first)
    rebuild(journal.connection, again, ends=ends_of(scattered))
    assert tree(again.folder) == tree(scattered.folder)


def test_a_copy_is_compared_with_its_digest(scattered: LocalStore, tmp_path: Path) -> None:
    path = scattered.folder / scattered.entries()[0].files[0].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = open_store(f"file:{tmp_path}/again?format={FORMATS}")
    with pytest.raises(StoreCorrupted, match=path.name):
        copy_ranges(scattered, again, before=scattered.ranges()[2][0])
    assert again.position() == 0


def test_copying_up_to_the_midst_of_a_range_is_refused(scattered: LocalStore, tmp_path: Path) -> None:
    again = open_store(f"file:{tmp_path}/again")
    middle = next(first + 1 for first, last in scattered.ranges() if last > first)
    with pytest.raises(ConfigurationError, match=f"begins at position {middle}"):
        copy_ranges(scattered, again, before=middle)


def test_a_store_that_came_about_otherwise_is_not_gone_on_with(
    journal: Journal, land: Land, scattered: LocalStore, tmp_path: Path
) -> None:
    other = open_store(f"file:{tmp_path}/other")
    land(other, upto=5)
    with pytest.raises(ConfigurationError, match="choose an empty one"):
        rebuild(journal.connection, other, ends=[4, 9, scattered.position()])
    assert other.ranges() == [(1, 5)]


REBUILDER = """
import sys
from workledger.flows.rebuild_training import rebuild
from workledger.postgres.connection import connect
from workledger.training.store import open_store

store = open_store(sys.argv[1])
with connect(sys.argv[2], schema="workledger") as connection:
    print("ready", flush=True)
    rebuild(connection, store, ends=[int(word) for word in sys.argv[3].split(",")])
"""


def test_a_rebuild_that_is_killed_goes_on_where_it_was(journal: Journal, scattered: LocalStore, tmp_path: Path) -> None:
    ends = ends_of(scattered)
    url = f"file:{tmp_path}/again?format={FORMATS}"
    again = open_store(url)
    rng = random.Random(3)
    for _ in range(4):
        argv = [sys.executable, "-c", REBUILDER, url, journal.url, ",".join(map(str, ends))]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(rng.uniform(0.01, 0.15))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        assert process.returncode in {0, -signal.SIGKILL}
    rebuild(journal.connection, again, ends=ends)
    assert tree(again.folder) == tree(scattered.folder)


# -- what is missing ----------------------------------------------------------------------------------------------


def harms(store: LocalStore) -> list[str]:
    """Every file of the data, one after another."""
    return [path for path in tree(store.folder) if not path.startswith("_schema") and path != "latest.json"]


def test_any_file_that_is_lost_is_refilled_and_nothing_else_is_touched(journal: Journal, scattered: LocalStore) -> None:
    before = tree(scattered.folder)
    for path in harms(scattered):
        last = scattered.ranges()[-1]
        if path == scattered.entry(*last).path:
            continue  # its loss is a shorter store, which is landed on
        (scattered.folder / path).unlink()
        ages = {other: (scattered.folder / other).stat().st_mtime_ns for other in harms(scattered)}
        done = repair(journal.connection, scattered)
        assert [*done.files, *done.entries] == [path]
        assert done.removed == []
        assert tree(scattered.folder) == before
        assert {other: (scattered.folder / other).stat().st_mtime_ns for other in ages} == ages
    assert damaged_ranges(scattered) == []


def test_any_file_that_is_altered_is_put_right(journal: Journal, scattered: LocalStore) -> None:
    before = tree(scattered.folder)
    rng = random.Random(1)
    for path in rng.sample(harms(scattered), 12):
        data = bytearray(before[path])
        # One blank for another between two values of an entry is no damage: the entry says the same.
        at = rng.choice([at for at, byte in enumerate(data) if byte not in b" \n"])
        data[at] ^= 1 + rng.randrange(255)
        (scattered.folder / path).write_bytes(data)
        report, done = verify_and_repair(journal.connection, scattered)
        assert report.ok
        assert path in {*done.files, *done.entries}
        assert tree(scattered.folder) == before


def test_a_file_altered_together_with_its_manifest_is_found_by_verify_and_put_right(
    journal: Journal, scattered: LocalStore
) -> None:
    import hashlib

    before = tree(scattered.folder)
    entry = scattered.entries()[0]
    file = entry.files_of("jsonl")[RecordType.EVENTS]
    altered = before[file.path].replace(b'"severity":"info"', b'"severity":"INFO"', 1)
    (scattered.folder / file.path).write_bytes(altered)
    told = before[entry.path].replace(file.sha256.encode(), hashlib.sha256(altered).hexdigest().encode())
    (scattered.folder / entry.path).write_bytes(told)
    assert damaged_ranges(scattered) == []
    report, done = verify_and_repair(journal.connection, scattered)
    assert report.ok
    assert (done.files, done.entries) == ([file.path], [entry.path])
    assert tree(scattered.folder) == before


def test_entries_that_are_gone_side_by_side_come_back_as_they_were(journal: Journal, scattered: LocalStore) -> None:
    before = tree(scattered.folder)
    gone = [entry.path for entry in scattered.entries()[1:4]]
    for path in gone:
        (scattered.folder / path).unlink()
    report, done = verify_and_repair(journal.connection, scattered)
    assert report.ok
    assert (done.files, done.entries) == ([], gone)
    assert tree(scattered.folder) == before


def test_where_shards_are_gone_too_a_gap_becomes_one_range(journal: Journal, scattered: LocalStore) -> None:
    ranges = scattered.ranges()
    for entry in scattered.entries()[1:4]:
        for path in (entry.path, *(file.path for file in entry.files)):
            (scattered.folder / path).unlink()
    report, _ = verify_and_repair(journal.connection, scattered)
    assert report.ok
    assert scattered.ranges() == [ranges[0], (ranges[1][0], ranges[3][1]), *ranges[4:]]


def test_files_that_belong_to_nothing_are_removed(journal: Journal, scattered: LocalStore) -> None:
    before = tree(scattered.folder)
    stray = "events/events-000000000002-000000000003.jsonl"
    (scattered.folder / stray).write_bytes(b"x")
    report, done = verify_and_repair(journal.connection, scattered)
    assert report.ok
    assert done.removed == [stray]
    assert tree(scattered.folder) == before


def test_in_a_bucket_what_is_lost_is_refilled_too(journal: Journal, land: Land, seaweedfs_cloud: Cloud) -> None:
    for n in range(3):
        journal.workflow(f"w{n}")
    store = opened(seaweedfs_cloud, seaweedfs_cloud.new_bucket(), format="jsonl,csv")
    land(store, shard_rows=BLOCK)
    before = contents(store)
    for path in [path for path in before if not path.startswith("_schema")]:
        store.bucket.delete([path])
        report, _ = verify_and_repair(journal.connection, store)
        assert report.ok
        repair(journal.connection, store)
        assert contents(store) == before, path


def test_landing_does_not_begin_anew_where_the_summary_of_a_bucket_is_gone(
    journal: Journal, land: Land, seaweedfs_cloud: Cloud
) -> None:
    journal.events(10)
    store = opened(seaweedfs_cloud, seaweedfs_cloud.new_bucket())
    land(store, shard_rows=4)
    store.bucket.delete(["latest.json"])
    with pytest.raises(StoreCorrupted, match="--repair"):
        land(store, shard_rows=4)
    repair(journal.connection, store)
    assert land(store, shard_rows=4) == 10
    assert verify_training(journal.connection, store).ok
