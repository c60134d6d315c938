"""The archive in a bucket: the same files as in a folder, read a part at a time, whoever else writes there."""

from __future__ import annotations

import pytest

from archive.test_reading import assert_same, everything
from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.postgres.archive_access import give_access
from workledger.training.archive_access import FileAccess
from workledger.training.archive_files import archive_root, explained, open_archive_file, open_files
from workledger.training.clouds import cloud_error
from workledger.training.urls import open_bucket


def into(old, cloud, prefix="lake/archive"):
    """Have a project's archive in a new bucket; gives its address."""
    root = cloud.url(cloud.new_bucket(), prefix=prefix)
    old.files = open_files(root)
    give_access(old.connection, FileAccess(lambda: root))
    return root


def test_what_is_archived_in_a_bucket_is_read_and_verified_as_ever(old, any_cloud):
    old.live(3, 4)
    root = into(old, any_cloud)
    head, before = old.head, everything(old.connection, old.head)
    report = old.archive(file_events=60)
    assert report.dropped >= 2
    assert old.counts()["workflows"] == 0
    assert_same(before, everything(old.connection, head))
    assert old.faults() == []
    urls = [url for (url,) in old.sql("SELECT url FROM archives")]
    assert all(url.startswith(f"{any_cloud.scheme}://") and "/lake/archive/" in url for url in urls)
    stored = {one.path for one in open_bucket(root).list("")}
    assert stored == {name for (name,) in old.sql("SELECT name FROM archives")}


def test_a_little_of_a_large_object_is_not_the_whole_of_it(seaweedfs_cloud):
    root = seaweedfs_cloud.url(seaweedfs_cloud.new_bucket(), prefix="")
    files = open_files(root)
    content = bytes(range(256)) * 20_000
    with files.preparing("large") as sink:
        sink.write(content)
    asked = []
    bucket = open_bucket(root)
    read_part = type(bucket).read_part

    def counted(self, path, *, start, length):
        asked.append(length)
        return read_part(self, path, start=start, length=length)

    with pytest.MonkeyPatch.context() as patch, open_archive_file(files.url("large")) as file:
        patch.setattr(type(bucket), "read_part", counted)
        assert file.seek(-5, 2) == len(content) - 5
        assert file.read() == content[-5:]
        file.seek(1000)
        assert file.read(10) == content[1000:1010]
        assert (file.tell(), file.read(0)) == (1010, b"")
        assert sum(asked) < len(content) / 2
        file.seek(0)
        assert file.read() == content
        assert file.seek(len(content) + 9) == len(content) + 9
        assert file.read() == b""


def test_an_object_of_somebody_else_is_left_alone(old, seaweedfs_cloud):
    old.live(3)
    root = into(old, seaweedfs_cloud)
    theirs = f"events/events_2026_03-{1:012d}-{old.head:012d}.parquet"
    open_bucket(root).create(theirs, b"theirs")
    old.archive()
    assert open_bucket(root).read(theirs)[0] == b"theirs"
    assert (theirs.replace(".parquet", "-2.parquet"),) in old.sql("SELECT name FROM archives")
    assert old.faults() == []


def test_an_object_that_is_gone_or_altered_is_found(old, seaweedfs_cloud):
    old.live(3)
    root = into(old, seaweedfs_cloud)
    old.archive()
    ((name, url),) = old.sql("SELECT name, url FROM archives WHERE kind = 'events' AND source = 'events_2026_03'")
    bucket = open_bucket(root)
    whole = bucket.read(name)[0]
    at = whole.index(b"summarise") if b"summarise" in whole else len(whole) // 2
    bucket.put(name, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert any(url in fault and "sha256" in fault for fault in old.faults())
    bucket.delete([name])
    with pytest.raises(StoreCorrupted, match="is gone"):
        everything(old.connection, old.head)
    assert any("is gone" in fault for fault in old.faults())
    bucket.put(name, whole)
    assert old.faults() == []


def test_a_bucket_that_is_not_there_is_named_and_nothing_leaves(old, moto_cloud):
    old.live(3)
    counts = old.counts()
    old.files = open_files(moto_cloud.url("nosuchbucket", prefix="archive"))
    with pytest.raises(ConfigurationError, match="make it first"):
        old.archive()
    assert old.counts() == counts
    assert old.faults() == []


def test_a_bucket_that_is_away_is_said_in_the_words_of_the_archive():
    refused = OSError("error sending request: connection refused")
    with pytest.raises(Unavailable) as caught, explained("s3://lake/archive", Unavailable):
        raise cloud_error(refused, name="s3://lake/archive")
    assert str(caught.value) == (
        "the archive cannot be written: s3://lake/archive cannot be reached: connection refused. Nothing has left the "
        "database for it; archive again later"
    )


@pytest.mark.parametrize("url", ["s3://", "s3://key@bucket/x", "s3://bucket/x?format=jsonl", "gs:/x"])
def test_what_is_no_place_in_a_bucket_is_refused(url):
    with pytest.raises(ConfigurationError, match="is no place for an archive"):
        open_files(url)


def test_the_archive_is_in_the_bucket_of_the_training_store():
    url = "s3://lake/training/?format=jsonl&endpoint=http://127.0.0.1:9000&region=here&flush=2s"
    assert archive_root(url) == "s3://lake/training/archive?endpoint=http://127.0.0.1:9000&region=here"
    assert archive_root(f"delta+{url} file:elsewhere") == archive_root(url)
    with pytest.raises(ConfigurationError, match="has no room for an archive"):
        archive_root("ftp://lake/x")
