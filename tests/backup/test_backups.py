"""The ways of `docs/how-to/back-up-and-restore.md`, walked: what comes back verifies, and recording goes on."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import workledger
from support.changes import whole_workflow
from support.postgres import fresh_database
from support.waiting import wait_until
from workledger.flows.verify import DATABASE_CHECKS, check_database
from workledger.log import reader
from workledger.log.sequencer import sequence
from workledger.postgres._install import find_install, ourselves, server_account
from workledger.postgres.connection import connect


def record(ledger, count=5):
    for _ in range(count):
        for change in whole_workflow():
            ledger.record(change)


def positions(url):
    with connect(url) as connection:
        sequence(connection, schema="workledger")
        return [(event.position, event.event_id) for event in reader.iterate(connection)]


def verified(url):
    with connect(url, recording=True) as connection:
        checks = list(check_database(connection, schema="workledger", names=DATABASE_CHECKS))
    return [str(fault) for check in checks for fault in check.faults]


def program(name, *arguments, account=None, **options):
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    as_account = account.as_subprocess_options() if account else {}
    return subprocess.run(
        [find_install(account or ourselves()).program(name), *map(str, arguments)],
        check=True,
        env=environment,
        cwd="/",
        **as_account,
        **options,
    )


def test_a_dump_restored_into_an_empty_database_verifies_and_goes_on(database_url, postgres18_url, tmp_path):
    with workledger.open(database_url, home=tmp_path) as ledger:
        record(ledger)
    before = positions(database_url)
    dump = program("pg_dump", "--schema=workledger", database_url, stdout=subprocess.PIPE).stdout
    with fresh_database(postgres18_url) as restored:
        program("psql", "-q", "-v", "ON_ERROR_STOP=1", restored, input=dump, stdout=subprocess.DEVNULL)
        assert positions(restored) == before
        assert verified(restored) == []
        with workledger.open(restored, home=tmp_path / "new") as ledger:
            record(ledger)
        after = positions(restored)
        assert after[: len(before)] == before
        assert [position for position, _ in after] == list(range(1, len(after) + 1))
        assert verified(restored) == []


@contextmanager
def server(directory, account, **settings):
    """A PostgreSQL over an existing cluster directory; gives the URL of the database `workledger`."""
    options = [f"-c{name}={value}" for name, value in settings.items()]
    command = ["-D", directory / "cluster", "-k", directory, "-c", "listen_addresses=", *options]
    with Path(directory / "server.log").open("ab") as log:
        running = subprocess.Popen(
            [find_install(account).program("postgres"), *map(str, command)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            **account.as_subprocess_options(),
        )
    url = f"postgresql://postgres@/postgres?host={directory}&port=5432"
    try:
        wait_until(lambda: answers(url), timeout_s=120)
        yield url
    finally:
        running.send_signal(signal.SIGINT)  # it waits for nobody who is still connected
        running.wait(120)


def answers(url):
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def place(servers_dir, tmp_path):
    """A directory for clusters of this test, owned by the account that servers run as."""
    base = servers_dir / f"backup-{tmp_path.name[-8:]}-{time.monotonic_ns() % 10_000}"
    base.mkdir(mode=0o711)
    account = server_account(base / "none-yet")

    def make(name):
        directory = base / name
        directory.mkdir(mode=0o700)
        os.chown(directory, account.uid, account.gid)
        return directory

    return make, account


@pytest.fixture
def primary(place):
    make, account = place
    directory = make("primary")
    program("initdb", "-D", directory / "cluster", "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", account=account,
            stdout=subprocess.DEVNULL)  # fmt: skip
    archive = make("archive")
    with server(
        directory,
        account,
        wal_level="replica",
        archive_mode="on",
        archive_command=f"cp %p {archive}/%f",
        max_wal_senders=4,
    ) as url:
        yield url, archive


def base_backup(url, directory, account, *, follow):
    extra = ["-R"] if follow else []
    program(
        "pg_basebackup", "-d", url, "-D", directory / "cluster", "-X", "stream", "-c", "fast", *extra, account=account
    )


def test_a_replica_promoted_in_the_middle_of_recording_keeps_the_order_and_verifies(primary, place, tmp_path):
    url, _ = primary
    make, account = place
    with workledger.open(url, home=tmp_path) as ledger:
        record(ledger)
        known = positions(url)
        replica = make("replica")
        base_backup(url, replica, account, follow=True)
        with server(replica, account, hot_standby="on") as replica_url:
            record(ledger)  # some of these have no position yet when the primary is lost
            wait_until(lambda: caught_up(url, replica_url), timeout_s=120)
            with psycopg.connect(replica_url, autocommit=True) as connection:
                connection.execute("SELECT pg_promote()")
            after = positions(replica_url)
            assert after[: len(known)] == known
            assert [position for position, _ in after] == list(range(1, len(after) + 1))
            assert verified(replica_url) == []
            with workledger.open(replica_url, home=tmp_path / "promoted") as promoted:
                record(promoted)
            assert verified(replica_url) == []


def caught_up(primary_url, replica_url):
    with psycopg.connect(primary_url) as primary, psycopg.connect(replica_url) as replica:
        (sent,) = primary.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        return replica.execute("SELECT pg_last_wal_replay_lsn() >= %s", (sent,)).fetchone() == (True,)


def test_recovery_to_a_moment_gives_the_log_as_it_was_then(primary, place, tmp_path):
    url, archive = primary
    make, account = place
    with workledger.open(url, home=tmp_path) as ledger:
        record(ledger)
        restored = make("restored")
        base_backup(url, restored, account, follow=False)
        record(ledger)
        then = positions(url)
        with psycopg.connect(url, autocommit=True) as connection:
            (moment,) = connection.execute("SELECT pg_create_restore_point('then')").fetchone()
            assert moment
            record(ledger)
            (last,) = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
            wait_until(lambda: is_archived(connection, last), timeout_s=120)
    (restored / "cluster" / "recovery.signal").touch()
    os.chown(restored / "cluster" / "recovery.signal", account.uid, account.gid)
    with server(
        restored,
        account,
        restore_command=f"cp {archive}/%f %p",
        recovery_target_name="then",
        recovery_target_action="promote",
        archive_mode="off",
    ) as restored_url:
        wait_until(lambda: not in_recovery(restored_url), timeout_s=120)
        assert positions(restored_url)[: len(then)] == then
        assert verified(restored_url) == []


def is_archived(connection, last):
    """Whether that file of the log of the server, and all before it, are in the archive."""
    archived = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"
    return connection.execute(archived, (last,)).fetchone() == (True,)


def in_recovery(url):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]
