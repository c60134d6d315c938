"""Compaction: the bytes of landing at once, and no moment when a reader sees a position twice or not at all."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import wait_until
from training.journal import Journal
from training.reading import lines, tree
from workledger.errors import StoreCorrupted
from workledger.training import compaction
from workledger.training.compaction import Compacted, compact, plan
from workledger.training.manifest import Entry
from workledger.training.records import RecordType
from workledger.training.shard_store import ranges_of
from workledger.training.shards import ShardFile
from workledger.training.store import LocalStore, open_store

Land = Callable[..., int]
BLOCK = 24
FORMATS = "jsonl,csv,parquet"


def entry(first: int, last: int, form: str = "jsonl") -> Entry:
    file = ShardFile(path="x", record_type=RecordType.EVENTS, format=form, rows=1, bytes=1, sha256="")
    return Entry(first=first, last=last, last_event_id="", rows=dict.fromkeys(RecordType, 0), files=[file])


def tiles(spans: list[int], block: int) -> list[Entry]:
    """Adjacent entries, cut at the ends of blocks as landing cuts them."""
    entries, at = [], 1
    for span in spans:
        end = min(at + span - 1, at + block - 1 - (at - 1) % block)
        entries.append(entry(at, end))
        at = end + 1
    return entries


def joined(entries: list[Entry], groups: list[list[Entry]]) -> list[Entry]:
    replaced = {member.first: group for group in groups for member in group}
    kept = [entry(group[0].first, group[-1].last) for group in groups]
    return sorted([*kept, *(one for one in entries if one.first not in replaced)], key=lambda one: one.first)


@given(st.lists(st.integers(1, 30), max_size=120), st.booleans())
def test_what_is_joined_is_adjacent_and_stays_inside_its_block(spans: list[int], whole: bool) -> None:
    entries = tiles(spans, 100)
    rounds = 0
    while groups := plan(entries, block_rows=100, whole=whole):
        for group in groups:
            assert len(group) > 1
            assert all(one.last + 1 == other.first for one, other in itertools.pairwise(group))
            assert (group[0].first - 1) // 100 == (group[-1].last - 1) // 100
        entries = joined(entries, groups)
        rounds += 1
    assert rounds < 6
    for one in entries[:-1] if not whole else entries:
        if (one.first - 1) // 100 < entries[-1].last // 100 or whole:
            assert (one.first - 1) % 100 == 0


def test_while_a_block_is_filled_no_position_is_rewritten_more_than_a_few_times() -> None:
    entries: list[Entry] = []
    rewritten = 0
    for position in range(1, 10_001):
        entries.append(entry(position, position))
        while groups := plan(entries, block_rows=10_000):
            rewritten += sum(group[-1].last - group[0].first + 1 for group in groups)
            entries = joined(entries, groups)
        assert len(entries) < 60
    assert len(entries) == 1
    assert rewritten <= 4 * 10_000


def test_ranges_in_other_formats_of_another_version_or_across_blocks_stay_apart() -> None:
    across = [entry(1, 10), entry(11, 50), entry(51, 60)]
    assert plan(across, block_rows=40, whole=True) == []
    formats = [entry(1, 10), entry(11, 20, "csv"), entry(21, 30), entry(31, 40)]
    assert plan(formats, block_rows=40) == [formats[2:]]
    older = [entry(1, 10), entry(11, 20)]
    older = [
        Entry(**{name: getattr(one, name) for name in Entry.__struct_fields__} | {"schema_version": 0}) for one in older
    ]
    assert plan(older, block_rows=20) == []


# -- bytes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(journal: Journal) -> Journal:
    for n in range(5):
        journal.workflow(f"w{n}", metadata={"text": "é" * (40 * n)})
    journal.sequence()
    return journal


def scattered(land: Land, url: str, head: int, *, seed: int = 1) -> LocalStore:
    """A store landed in many small ranges."""
    rng = random.Random(seed)
    store = open_store(url)
    at = 0
    while at < head:
        at = land(store, upto=min(at + rng.randrange(1, 12), head), shard_rows=BLOCK)
    return store


@pytest.mark.parametrize("seed", range(3))
def test_compacted_ranges_are_the_bytes_of_landing_at_once(
    busy: Journal, land: Land, tmp_path: Path, seed: int
) -> None:
    at_once = open_store(f"file:{tmp_path}/once?format={FORMATS}")
    head = land(at_once, shard_rows=BLOCK)
    store = scattered(land, f"file:{tmp_path}/scattered?format={FORMATS}", head, seed=seed)
    before = len(store.ranges())
    done = compact(store, block_rows=BLOCK, whole=True, grace_s=0)
    assert done.joined > done.made > 0
    assert before - done.joined + done.made == len(store.ranges()) == -(-head // BLOCK)
    assert tree(store.folder) == tree(at_once.folder)


def test_the_last_block_is_left_to_grow_unless_it_is_asked_for(busy: Journal, land: Land, tmp_path: Path) -> None:
    head = busy.sequence()
    full = head // BLOCK
    store = scattered(land, f"file:{tmp_path}/s", full * BLOCK + 1)
    land(store, upto=full * BLOCK + 3)
    compact(store, block_rows=BLOCK)
    assert store.ranges()[:full] == [(n * BLOCK + 1, (n + 1) * BLOCK) for n in range(full)]
    assert len(store.ranges()) == full + 2
    compact(store, block_rows=BLOCK, whole=True)
    assert len(store.ranges()) == full + 1
    assert compact(store, block_rows=BLOCK, whole=True) == Compacted()


def test_landing_goes_on_after_what_was_compacted(busy: Journal, land: Land, tmp_path: Path) -> None:
    store = scattered(land, f"file:{tmp_path}/s?format={FORMATS}", busy.sequence())
    compact(store, block_rows=BLOCK, whole=True, grace_s=0)
    busy.workflow("later")
    head = land(store, shard_rows=BLOCK)
    compact(store, block_rows=BLOCK, whole=True, grace_s=0)
    once = open_store(f"file:{tmp_path}/once?format={FORMATS}")
    assert land(once, shard_rows=BLOCK) == head
    assert tree(store.folder) == tree(once.folder)


def test_what_was_replaced_stays_for_a_time_of_grace(busy: Journal, land: Land, tmp_path: Path) -> None:
    store = scattered(land, f"file:{tmp_path}/s?format=jsonl,csv", busy.sequence())
    before = {path: data for path, data in tree(store.folder).items() if path != "latest.json"}
    assert compact(store, block_rows=BLOCK).removed == 0
    assert before.items() <= tree(store.folder).items()
    assert compact(store, block_rows=BLOCK, grace_s=0).removed > 0
    listed = {file.path for one in store.entries() for file in one.files}
    shards = {path for path in tree(store.folder) if path.startswith(tuple(RecordType))}
    assert shards == listed


def test_only_one_compacts_at_a_time_and_the_writer_is_not_in_its_way(
    busy: Journal, land: Land, tmp_path: Path
) -> None:
    store = scattered(land, f"file:{tmp_path}/s", busy.sequence())
    with store.writing() as writer:
        assert writer is not None
        with store.rewriting() as rewriter:
            assert rewriter is not None
            assert compact(store, block_rows=BLOCK) == Compacted()
        assert compact(store, block_rows=BLOCK).made > 0


def test_a_writer_that_starts_leaves_alone_what_a_compaction_is_making(
    busy: Journal, land: Land, tmp_path: Path
) -> None:
    store = scattered(land, f"file:{tmp_path}/s", busy.sequence())
    group = store.entries()[:3]
    with store.rewriting() as rewriter:
        assert rewriter is not None
        (rewriter.folder / "in work").write_bytes(b"x")
        placed = store.folder / "events" / f"events-{1:012d}-{group[-1].last:012d}.jsonl"
        placed.write_bytes(b"placed and not yet listed")
        with store.writing():
            pass
        assert placed.exists()
        assert (rewriter.folder / "in work").exists()
        placed.unlink()
    compact(store, block_rows=BLOCK)


def test_a_shard_that_is_not_what_the_manifest_says_is_not_joined(busy: Journal, land: Land, tmp_path: Path) -> None:
    store = scattered(land, f"file:{tmp_path}/s", busy.sequence())
    before = store.ranges()
    path = store.folder / store.entries()[1].files_of("jsonl")[RecordType.EVENTS].path
    path.write_bytes(path.read_bytes().replace(b'"severity":"info"', b'"severity":"INFO"', 1))
    with pytest.raises(StoreCorrupted, match=path.name):
        compact(store, block_rows=BLOCK)
    assert store.ranges()[:3] == before[:3]


# -- readers ------------------------------------------------------------------------------------------------------


def read_by_summary(folder: Path) -> list[int]:
    """What a stranger reads who goes by the summary, and by nothing of ours."""
    summary = json.loads((folder / "latest.json").read_bytes())
    positions = []
    for found in summary["ranges"]:
        listed = json.loads((folder / found["manifest"]).read_bytes())
        for file in listed["files"]:
            if file["record_type"] == "events" and file["format"] == "jsonl":
                positions += [
                    json.loads(line)["position"] for line in (folder / file["path"]).read_bytes().splitlines()
                ]
    assert len(positions) == summary["position"]
    return positions


def test_a_reader_never_sees_a_position_twice_or_not_at_all(busy: Journal, land: Land, tmp_path: Path) -> None:
    store = open_store(f"file:{tmp_path}/s?format=jsonl,csv")
    land(store, upto=1, shard_rows=BLOCK)
    stop, reads, faults = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                positions = read_by_summary(store.folder)
                assert positions == list(range(1, len(positions) + 1))
                reads.append(len(positions))
            except BaseException as error:
                faults.append(error)
                return

    def rewrite() -> None:
        other = open_store(f"file:{tmp_path}/s?format=jsonl,csv")
        while not stop.is_set():
            compact(other, block_rows=BLOCK, grace_s=600)

    threads = [threading.Thread(target=work) for work in (read, read, rewrite)]
    for thread in threads:
        thread.start()
    at, head = 1, busy.sequence()
    try:
        while at < head:
            at = land(store, upto=at + 1, shard_rows=BLOCK)
            seen = min(len(reads), 20)
            wait_until(lambda seen=seen: faults or len(reads) > seen, timeout_s=60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert faults == []
    assert len(reads) > 20
    assert read_by_summary(store.folder) == list(range(1, head + 1))


# -- crashes ------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    pass


@contextmanager
def crashing(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let whoever rewrites die before or after its n-th act."""
    acts = [0]

    def dying(act: Callable[..., Any]) -> Callable[..., Any]:
        def do(*given: Any) -> Any:
            acts[0] += 1
            if acts[0] == step:
                raise Crash
            return act(*given)

        return do

    with monkeypatch.context() as patch:
        from workledger.training import folder, store

        for owner, name in [
            (store._LocalRewriter, "place"),
            (store._LocalRewriter, "publish"),
            (store._LocalRewriter, "remove"),
            (store.LocalStore, "say_latest"),
            (folder.Folder, "create"),
            (compaction.NewFile, "close"),
        ]:
            patch.setattr(owner, name, dying(getattr(owner, name)))
        patch.setattr(store.shutil, "rmtree", lambda *_, **__: None)
        yield acts


def test_dying_at_any_step_loses_nothing_and_the_next_one_ends_the_work(
    busy: Journal, land: Land, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = open_store(f"file:{tmp_path}/once?format=jsonl,csv")
    head = land(once, shard_rows=BLOCK)
    template = scattered(land, f"file:{tmp_path}/template?format=jsonl,csv", head)
    step = 0
    while True:
        step += 1 if step < 10 else 4
        store = open_store(f"file:{tmp_path}/s{step}?format=jsonl,csv")
        shutil.copytree(template.folder, store.folder)
        with crashing(step, monkeypatch) as acts:
            with suppress(Crash):
                compact(store, block_rows=BLOCK, whole=True, grace_s=0)
        assert ranges_of(store)[-1][1] == head
        for record_type in RecordType:
            assert lines(store, record_type) == lines(once, record_type)
        assert read_by_summary(store.folder) == list(range(1, head + 1))
        (store.folder / "_rewriting").mkdir(exist_ok=True)
        (store.folder / "_rewriting" / "left behind").write_bytes(b"x")
        compact(store, block_rows=BLOCK, whole=True, grace_s=0)
        with store.writing():
            pass
        assert tree(store.folder) == tree(once.folder)
        if acts[0] < step:
            break
    assert step > 20


COMPACTOR = """
import sys
from workledger.training.compaction import compact
from workledger.training.store import open_store

store = open_store(sys.argv[1])
print("ready", flush=True)
compact(store, block_rows=int(sys.argv[2]), whole=True, grace_s=0)
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_moment_and_started_again_it_ends_the_work(
    busy: Journal, land: Land, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    url = f"file:{tmp_path}/s?format={FORMATS}"
    head = busy.sequence()
    store = scattered(land, url, head, seed=seed)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", COMPACTOR, url, str(BLOCK)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.001, 0.05))
                raise subprocess.TimeoutExpired("it was quicker", 0)
            process.send_signal(signal.SIGKILL)
        assert read_by_summary(store.folder) == list(range(1, head + 1))
    compact(store, block_rows=BLOCK, whole=True, grace_s=0)
    once = open_store(f"file:{tmp_path}/once?format={FORMATS}")
    land(once, shard_rows=BLOCK)
    assert tree(store.folder) == tree(once.folder)
