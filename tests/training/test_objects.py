"""The store in a bucket: the same bytes as in a folder, on every kind of cloud, whoever else writes there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import wait_until
from support.object_stores import Cloud
from training.journal import SCHEMA, Journal
from training.reading import tree
from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.flows.verify_training import verify_training
from workledger.training.compaction import compact
from workledger.training.manifest import read_latest
from workledger.training.objects import ObjectStore
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.store import open_store as open_folder
from workledger.training.urls import flush_s_of, open_store, split_urls

Land = Callable[..., int]
BLOCK = 24
LINES = [b'{"position":1}', b'{"position":2}']


def opened(cloud: Cloud, bucket: str, **options: str) -> ObjectStore:
    store = open_store(cloud.url(bucket, **{"format": "jsonl", **options}))
    assert isinstance(store, ObjectStore)
    return store


def contents(store: ObjectStore) -> dict[str, bytes]:
    """Every object, by its path."""
    found = {}
    for one in store.bucket.list(""):
        read = store.bucket.read(one.path)
        assert read is not None
        found[one.path] = read[0]
    return found


def write(store: ObjectStore, first: int, last: int) -> None:
    with store.writing() as writer:
        assert writer is not None
        assert writer.position == first - 1
        writer.write(RecordType.EVENTS, [b'{"position":%d}' % n for n in range(first, last + 1)])
        writer.commit(last=last, last_event_id=f"id-{last}")


@pytest.fixture
def store(any_cloud: Cloud) -> ObjectStore:
    return opened(any_cloud, any_cloud.new_bucket())


# -- what is in it ------------------------------------------------------------------------------------------------


def test_a_bucket_has_the_files_of_a_folder(any_cloud: Cloud, journal: Journal, land: Land, tmp_path: Path) -> None:
    for n in range(3):
        journal.workflow(f"w{n}")
    bucket = opened(any_cloud, any_cloud.new_bucket(), format="jsonl,csv,parquet")
    folder = open_folder(f"file:{tmp_path}/folder?format=jsonl,csv,parquet")
    for store in (bucket, folder):
        land(store, upto=17, shard_rows=BLOCK)
        land(store, shard_rows=BLOCK)
    assert contents(bucket) == tree(folder.folder)
    assert bucket.entries() == folder.entries()
    assert bucket.position() == folder.position() == journal.sequence()


def test_verify_finds_a_bucket_right_and_what_is_wrong_in_it(any_cloud: Cloud, journal: Journal, land: Land) -> None:
    journal.workflow("w")
    store = opened(any_cloud, any_cloud.new_bucket(), format="jsonl,parquet")
    land(store, shard_rows=BLOCK)
    report = verify_training(journal.connection, store)
    assert report.findings == []
    assert report.files > 4
    path = store.entries()[0].files_of("jsonl")[RecordType.EVENTS].path
    store.bucket.put(path, store.document(path).replace(b'"severity":"info"', b'"severity":"INFO"', 1))
    (finding,) = verify_training(journal.connection, store).findings
    assert finding.location == f"{path}:1"
    store.bucket.delete([path])
    (finding,) = verify_training(journal.connection, store).findings
    assert finding.location == path


def test_compaction_in_a_bucket_gives_the_bytes_of_landing_at_once(
    any_cloud: Cloud, journal: Journal, land: Land
) -> None:
    for n in range(3):
        journal.workflow(f"w{n}")
    bucket = any_cloud.new_bucket()
    once = opened(any_cloud, bucket, prefix="once", format="jsonl,csv")
    head = land(once, shard_rows=BLOCK)
    store = opened(any_cloud, bucket, prefix="scattered", format="jsonl,csv")
    at = 0
    while at < head:
        at = land(store, upto=min(at + 5, head), shard_rows=BLOCK)
    done = compact(store, block_rows=BLOCK, whole=True)
    assert done.made == -(-head // BLOCK)
    assert done.removed == 0
    assert contents(once).items() - contents(store).items() == set()
    assert verify_training(journal.connection, store).findings == []
    assert compact(store, block_rows=BLOCK, whole=True, grace_s=0).removed > 0
    assert contents(store) == contents(once)


# -- two at once --------------------------------------------------------------------------------------------------


def test_of_two_writers_the_second_to_publish_loses_and_goes_on_after_the_first(store: ObjectStore) -> None:
    other = ObjectStore(store.bucket, formats=store.formats)
    with store.writing() as slow, other.writing() as quick:
        assert slow is not None
        assert quick is not None
        slow.write(RecordType.EVENTS, LINES)
        quick.write(RecordType.EVENTS, LINES[:1])
        quick.commit(last=1, last_event_id="id-1")
        with pytest.raises(Unavailable, match="another process") as raised:
            slow.commit(last=2, last_event_id="id-2")
        assert raised.value.outrun
    assert store.ranges() == [(1, 1)]
    write(store, 2, 3)
    assert store.ranges() == [(1, 1), (2, 3)]


def test_two_writers_of_the_same_range_agree(store: ObjectStore) -> None:
    other = ObjectStore(store.bucket, formats=store.formats)
    with store.writing() as one, other.writing() as two:
        assert one is not None
        assert two is not None
        for writer in (one, two):
            writer.write(RecordType.EVENTS, LINES)
            writer.commit(last=2, last_event_id="id-2")
    assert store.ranges() == [(1, 2)]


def test_many_writers_at_once_land_every_position_once(any_cloud: Cloud, journal: Journal) -> None:
    from workledger.flows.log_to_synapse import DatabaseTail
    from workledger.flows.synapse_to_training import Landing
    from workledger.synapse.postgres import PostgresBus

    for n in range(4):
        journal.workflow(f"w{n}")
    head = journal.sequence()
    bucket = any_cloud.new_bucket()
    stop = threading.Event()

    def connect_without_locks() -> Any:
        connection = journal.connect()
        connection.prepare_threshold = None  # as behind PgBouncer: nothing but the bucket keeps them apart
        return connection

    def run() -> None:
        bus = PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))
        landing = Landing(
            connect=connect_without_locks,
            bus=bus,
            store=opened(any_cloud, bucket),
            schema=SCHEMA,
            shard_rows=9,
            flush_s=0.05,
        )
        landing.run(stop)
        bus.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    store = opened(any_cloud, bucket)
    for n in range(4, 8):
        journal.workflow(f"w{n}")
    head = journal.sequence()
    try:
        wait_until(lambda: store.position() >= head, timeout_s=120)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert store.position() == head
    assert verify_training(journal.connection, store).findings == []


def test_racing_swaps_have_one_winner_each(any_cloud: Cloud) -> None:
    """What everything rests on: of several that swap the same version, exactly one is told that it did."""
    bucket = opened(any_cloud, any_cloud.new_bucket()).bucket
    bucket.put("counter", b"0")
    won = [0] * 4

    def count(number: int) -> None:
        for _ in range(15):
            found = bucket.read("counter")
            assert found is not None
            if bucket.swap("counter", str(int(found[0]) + 1).encode(), found[1]) is not None:
                won[number] += 1

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = bucket.read("counter")
    assert found is not None
    assert int(found[0]) == sum(won) >= 15


def test_a_compaction_and_a_writer_do_not_disturb_each_other(store: ObjectStore) -> None:
    for n in range(1, 9):
        write(store, n, n)
    with store.writing() as writer:
        assert writer is not None
        writer.write(RecordType.EVENTS, [b'{"position":9}'])
        assert compact(store, block_rows=8).made == 1
        writer.commit(last=9, last_event_id="id-9")
    assert store.ranges() == [(1, 8), (9, 9)]


def test_two_compactions_at_once_make_the_same(store: ObjectStore) -> None:
    for n in range(1, 9):
        write(store, n, n)
    other = ObjectStore(store.bucket, formats=store.formats)
    first, second = store.entries(), other.entries()
    from workledger.training.compaction import merge

    with store.rewriting() as one, other.rewriting() as two:
        assert one is not None
        assert two is not None
        assert merge(store, one, first) == merge(other, two, second)
    assert store.ranges() == [(1, 8)]


def test_a_range_that_does_not_fit_any_more_is_not_joined(store: ObjectStore) -> None:
    for n in range(1, 9):
        write(store, n, n)
    entries = store.entries()
    from workledger.training.compaction import merge

    with store.rewriting() as rewriter:
        assert rewriter is not None
        merge(store, rewriter, entries[2:6])
        with pytest.raises(Unavailable, match="another process"):
            merge(store, rewriter, entries[4:8])
    assert store.ranges() == [(1, 1), (2, 2), (3, 6), (7, 7), (8, 8)]


# -- what was there already ---------------------------------------------------------------------------------------


def test_a_shard_is_never_replaced_by_other_content(store: ObjectStore) -> None:
    path = "events/events-000000000001-000000000002.jsonl"
    store.bucket.put(path, b"somebody else's")
    with pytest.raises(StoreCorrupted, match="events-000000000001-000000000002"):
        write(store, 1, 2)
    assert store.position() == 0
    assert store.document(path) == b"somebody else's"


def test_what_a_killed_writer_had_uploaded_is_taken_over(store: ObjectStore) -> None:
    store.bucket.put("events/events-000000000001-000000000002.jsonl", b"\n".join([*LINES, b""]))
    write(store, 1, 2)
    assert store.ranges() == [(1, 2)]


def test_a_store_that_another_begins_between_two_looks_is_no_fault(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    landed = ObjectStore.landed

    def begun_meanwhile(looking: ObjectStore) -> list[tuple[int, int]]:
        monkeypatch.setattr(ObjectStore, "landed", landed)
        write(store, 1, 2)
        write(store, 3, 4)
        return landed(looking)

    monkeypatch.setattr(ObjectStore, "landed", begun_meanwhile)
    with store.writing() as writer:
        assert writer.position == 4


def test_a_file_larger_than_one_upload_arrives_whole(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workledger.training import bucket as module

    if store.bucket.name.startswith("gs:"):
        pytest.skip("fake-gcs: it has no uploads in parts")
    monkeypatch.setattr(module, "_ONE_PUT_BYTES", 1024)
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * 64 * 1024)
    import hashlib

    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    store.bucket.upload(source, "events/x", sha256=sha256)
    store.bucket.upload(source, "events/x", sha256=sha256)
    with store.bucket.open("events/x") as copy:  # type: ignore[union-attr]
        assert copy.read() == source.read_bytes()
    source.write_bytes(b"y" * 2048)
    with pytest.raises(StoreCorrupted, match="other content"):
        store.bucket.upload(source, "events/x", sha256="0" * 64)


def test_the_schemas_and_the_summary_can_be_read_by_anyone(store: ObjectStore) -> None:
    write(store, 1, 2)
    for record_type, schema in SCHEMAS.items():
        assert store.document(f"_schema/{record_type}.json") == schema.published()
    summary = json.loads(store.document("latest.json") or b"")
    assert summary["position"] == 2
    assert [(one["first"], one["last"]) for one in summary["ranges"]] == [(1, 2)]
    assert read_latest(store.document("latest.json") or b"", location="").encoded() == store.document("latest.json")


# -- URLs, credentials, outages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["s3:///x", "s3://b/x?format=xml", "s3://b/x?fromat=csv", "ftp://b/x", "s3://key:secret@b/x", "s3://b?flush=0"],
)
def test_a_url_that_means_nothing_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "flush_s"),
    [
        ("file:x", None),
        ("file:x?format=csv&flush=100ms", 0.1),
        ("s3://b/p?flush=2m", 120.0),
        ("file:x?flush=1.5&format=csv", 1.5),
        ("file:x?flush=10s", 10.0),
    ],
)
def test_a_url_may_say_how_soon(url: str, flush_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert flush_s_of(url) == flush_s
    assert open_store(url).name.endswith(("x", "s3://b/p"))


def test_several_stores_are_separated_by_blanks() -> None:
    assert split_urls(" file:a?format=jsonl,csv\n s3://b/p ") == ["file:a?format=jsonl,csv", "s3://b/p"]


def test_the_name_of_a_store_has_no_options(any_cloud: Cloud) -> None:
    store = opened(any_cloud, "some-bucket", prefix="a/b")
    assert store.name == f"{any_cloud.scheme}://some-bucket/a/b"


@pytest.mark.parametrize("secret", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_credentials_that_are_refused_are_named(
    seaweedfs_cloud: Cloud, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    bucket = seaweedfs_cloud.new_bucket()
    monkeypatch.setenv(secret, "wrong")
    store = opened(seaweedfs_cloud, bucket)
    told = set()
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="credentials are refused") as raised:
            write(store, 1, 1)
        told.add(raised.value.message)
    assert len(told) == 1  # the same words each time: whoever logs it can say it once
    assert "AWS_ACCESS_KEY_ID" in told.pop()


def test_an_account_key_that_is_refused_is_named(azurite_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with pytest.raises(ConfigurationError, match=r"credentials are refused.*AZURE_STORAGE_ACCOUNT_KEY"):
        opened(azurite_cloud, "container").position()


def test_a_bucket_that_is_not_there_is_named(moto_cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="no such bucket"):
        write(opened(moto_cloud, "not-there"), 1, 1)


def test_a_store_that_cannot_be_reached_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    from workledger.training import bucket as module

    monkeypatch.setitem(module._RETRY, "max_retries", 0)
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    cloud = Cloud(scheme="s3", endpoint="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="cannot be reached"):
        opened(cloud, "bucket").position()
