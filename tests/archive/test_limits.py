"""What stands in the way: no room, no rights, no session of one's own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from archive.test_reading import everything
from training.journal import SCHEMA
from workledger.assembly import archive
from workledger.errors import ConfigurationError, InvalidInput, Unavailable
from workledger.log import partitions
from workledger.log.roles import make_roles
from workledger.model.clock import SystemClock
from workledger.postgres.connection import connect
from workledger.settings import Settings
from workledger.training.archive_files import FolderFiles, archive_root, open_files

PROGRAM = Path(__file__).parent / "programs" / "archive_and_die.py"


def test_a_full_disk_loses_nothing_and_archiving_goes_on_when_there_is_room(old):
    old.live(3, 4)
    head, before = old.head, everything(old.connection, old.head)

    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAM.parents[2]), *sys.path])}
    command = [sys.executable, str(PROGRAM), old.url, str(old.folder)]
    done = subprocess.run(
        command, env=environment, input="never\n", stdout=subprocess.PIPE, text=True, preexec_fn=little_room, check=True
    )
    (complaint,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert complaint.startswith(
        f"failed Unavailable the archive {old.folder} cannot be written: [Errno 27] File too large. Nothing"
    )
    assert old.faults() == []
    assert [path for path in old.folder.rglob("*") if path.is_file() and path.parent.name == "_tmp"] == []
    old.archive()
    assert old.faults() == []
    assert everything(old.connection, head) == before


def test_a_folder_that_cannot_be_written_is_named(old, tmp_path):
    old.live(3)
    (tmp_path / "file").write_text("in the way")
    old.files = FolderFiles(tmp_path / "file")
    with pytest.raises(Unavailable, match="cannot be written: .*Nothing has left the database"):
        old.archive()
    assert old.faults() == []


def test_what_killed_archivers_have_left_is_removed_and_what_others_write_is_not(tmp_path):
    files, other = FolderFiles(tmp_path), FolderFiles(tmp_path)
    (tmp_path / "_tmp").mkdir()
    (tmp_path / "_tmp" / "left").write_bytes(b"half a file")
    with files.preparing("events/mine") as mine:
        assert [path.name for path in (tmp_path / "_tmp").iterdir()] != ["left"]
        assert not (tmp_path / "_tmp" / "left").exists()
        mine.write(b"mine")
        with other.preparing("events/theirs") as theirs:
            theirs.write(b"theirs")
    assert [path.read_bytes() for path in sorted((tmp_path / "events").iterdir())] == [b"mine", b"theirs"]
    assert list((tmp_path / "_tmp").iterdir()) == []


def test_files_of_others_are_left_alone(old):
    """Somebody else's file has the name, or a dead archiver's that nothing names: another name is taken."""
    old.live(3)
    path = old.folder / "events" / "events_2026_03-000000000001-000000000039.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of somebody else")
    old.archive()
    assert path.read_bytes() == b"of somebody else"
    assert old.sql("SELECT name FROM archives WHERE kind = 'events'") == [
        ("events/events_2026_03-000000000001-000000000039-2.parquet",)
    ]
    assert old.faults() == []


def test_only_the_owner_can_archive(old):
    old.live(3)
    roles = make_roles(old.connection, schema=SCHEMA)
    for role in (roles.writer, roles.reader):
        with old.connect() as connection:
            connection.execute(f"SET ROLE {role}")
            refused = psycopg.errors.InsufficientPrivilege
            with pytest.raises(refused):
                partitions.drop(connection, "events_2026_03")
            with pytest.raises(refused):
                connection.execute("INSERT INTO archives SELECT * FROM archives")
            with pytest.raises(refused):
                connection.execute("SELECT mark_removed('x')")
            with pytest.raises(refused):
                connection.execute("INSERT INTO archived_workflows VALUES ('x', 'x', 1, 1, now())")
            assert connection.execute("SELECT count(*) FROM archives").fetchone() == (0,)
    with old.connect() as connection:
        connection.execute(f"SET ROLE {roles.writer}")
        assert connection.execute("SELECT ensure_event_partition('2019-01-01Z')").fetchone() == ("events_2019_01",)
    original = old.connect

    def as_owner():
        connection = original()
        connection.execute(f"SET ROLE {roles.owner}")
        return connection

    old.connect = as_owner
    assert old.archive().dropped
    old.connect = original
    assert old.faults() == []


def test_the_record_of_a_file_cannot_be_changed_or_removed(old):
    old.live(3)
    old.archive()
    for statement in (
        "UPDATE archives SET url = 'file:/elsewhere'",
        "UPDATE archives SET removed_at = NULL",
        "DELETE FROM archives",
        "TRUNCATE archives CASCADE",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation, match="archives is append-only"):
            old.connection.execute(statement)


def test_archiving_wants_a_session_of_its_own(old):
    settings = Settings(database_url=old.url, pooled=True)
    with pytest.raises(ConfigurationError, match="archiving needs a session of its own"):
        archive(settings, before=SystemClock().now())


def test_a_cutoff_has_a_time_zone(old):
    with pytest.raises(InvalidInput, match="no time zone"):
        old.archive(cutoff=SystemClock().now().replace(tzinfo=None))


@pytest.mark.parametrize("url", ["http://x/y", "file:", "file://host/x", "file:/x?y=1", "nonsense"])
def test_what_is_no_place_for_an_archive_is_refused(url):
    with pytest.raises(ConfigurationError, match="is no place for an archive"):
        open_files(url)


def test_the_archive_is_beside_the_training_store():
    assert archive_root("file:data/training?format=jsonl") == "file:data/training/archive"


def test_the_age_of_the_oldest_event_goes_down_when_it_is_archived(old):
    from workledger.metrics import store

    def age_days():
        (value,) = [row[2] for row in store.scrape(old.connection, timeout_s=5)[1] if "oldest_unarchived" in row[0]]
        return value / 86400

    assert age_days() == 0
    old.live(3)
    assert age_days() > 200
    old.archive()
    assert age_days() < 1
    with connect(old.url, schema=SCHEMA) as connection:
        plan = connection.execute("EXPLAIN SELECT event_id FROM events ORDER BY event_id LIMIT 1").fetchall()
    assert "Sort" not in str(plan)
