"""PostgreSQL goes away and comes back: the recorded program goes on, nothing is lost, nothing is doubled."""

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import workledger
from support.changes import start, whole_workflow
from support.proxy import Proxy
from support.waiting import wait_until
from workledger.errors import SpoolFull
from workledger.sdk.spool import Spool

TESTS = Path(__file__).parents[1]


def counts(ledger):
    with ledger.pool.connection() as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM workflows WHERE status = 'completed'),"
            " (SELECT count(*) FROM events WHERE workflow_id IS NOT NULL),"
            " (SELECT count(DISTINCT event_id) FROM events WHERE workflow_id IS NOT NULL)"
        ).fetchone()


def record_whole(ledger):
    for change in whole_workflow():
        ledger.record(change)


def wait_for_more(count, wanted):
    before = count()
    wait_until(lambda: count() >= before + wanted)


def test_recording_goes_on_while_postgresql_is_away_and_is_replayed(database_url, tmp_path):
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path) as ledger:
        record_whole(ledger)
        proxy.refuse()
        for _ in range(20):
            record_whole(ledger)
        assert ledger.tally.spooled == 120
        proxy.heal()
        wait_until(lambda: counts(ledger) == (21, 126, 126))
        record_whole(ledger)
        wait_until(lambda: counts(ledger) == (22, 132, 132))  # the last page may not be forgotten yet
        assert ledger.tally.refused == 0


def test_decorated_functions_do_not_notice(database_url, tmp_path):
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path) as ledger:

        @ledger.task
        def step(n):
            return n

        @ledger.workflow
        def program():
            return [step(n) for n in range(3)]

        assert program() == [0, 1, 2]
        proxy.refuse()
        assert program() == [0, 1, 2]
        proxy.heal()
        wait_until(lambda: len(ledger.workflows(status="completed")) == 2)


def test_an_outage_in_the_middle_of_load_loses_and_doubles_nothing(database_url, tmp_path):
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path) as ledger:
        stop = threading.Event()
        written = []

        def load():
            while not stop.is_set():
                record_whole(ledger)
                written.append(1)

        with ThreadPoolExecutor(8) as pool:
            loads = [pool.submit(load) for _ in range(8)]
            for _ in range(3):
                wait_for_more(written.__len__, 20)
                proxy.refuse()
                wait_for_more(lambda: ledger.tally.spooled, 100)
                proxy.heal()
            stop.set()
            for one in loads:
                one.result(60)
        total = len(written)
        wait_until(lambda: counts(ledger) == (total, 6 * total, 6 * total))
        assert ledger.tally.refused == 0


def test_over_its_bound_the_caller_gets_an_error_and_what_was_taken_stays(database_url, tmp_path):
    with (
        Proxy(database_url) as proxy,
        workledger.open(proxy.url, home=tmp_path, spool_limit_bytes=20_000) as ledger,
    ):
        ledger.record(start(workflow_id="before"))
        proxy.refuse()
        taken = 0
        with pytest.raises(SpoolFull, match="20,000 bytes"):
            for n in range(1000):
                ledger.record(start(workflow_id=f"w{n}", input="x" * 100))
                taken += 1
        assert taken > 10
        proxy.heal()
        wait_until(lambda: len(ledger.workflows(limit=500)) == taken + 1)


def test_a_full_spool_of_a_killed_process_is_replayed_by_the_next(database_url, tmp_path):
    source = textwrap.dedent("""
        import os, sys, workledger
        from support.changes import whole_workflow
        from support.proxy import Proxy
        with Proxy(sys.argv[1]) as proxy:
            ledger = workledger.open(proxy.url, home=sys.argv[2])
            ledger.worker_id
            proxy.refuse()
            for _ in range(10):
                for change in whole_workflow():
                    ledger.record(change)
            os.kill(os.getpid(), 9)
    """)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", source, database_url, str(tmp_path)], env={"PYTHONPATH": str(TESTS), "PATH": ""}
        )
        for _ in range(3)
    ]
    assert [process.wait(120) for process in processes] == [-9] * 3
    with workledger.open(database_url, home=tmp_path) as ledger:
        wait_until(lambda: counts(ledger) == (30, 180, 180))


def test_a_disk_that_is_full_is_a_clear_error(tmp_path):
    spool = Spool(tmp_path / "spool.sqlite", limit_bytes=10**9)
    spool.append(whole_workflow())
    with spool._open() as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    original = spool._open

    import contextlib

    @contextlib.contextmanager
    def small():
        with original() as database:
            database.execute(f"PRAGMA max_page_count = {pages + 1}")
            yield database

    spool._open = small
    with pytest.raises(SpoolFull, match="full"):
        for _ in range(1000):
            spool.append(whole_workflow())
    assert spool.waiting() >= 6


def test_a_change_that_is_refused_on_replay_is_kept_for_a_person(tmp_path):
    from workledger.errors import NotFound
    from workledger.operational.apply import Outcome

    spool = Spool(tmp_path / "spool.sqlite", limit_bytes=10**9)
    spool.append(whole_workflow())
    drained = spool.drain(lambda changes: [NotFound("x"), *[Outcome(applied=True)] * (len(changes) - 1)])
    assert (drained, spool.waiting(), spool.refused()) == (6, 0, 1)


def test_a_drain_that_is_interrupted_leaves_the_rest(tmp_path):
    spool = Spool(tmp_path / "spool.sqlite", limit_bytes=10**9)
    spool.append(whole_workflow())

    def away(changes):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        spool.drain(away)
    assert spool.waiting() == 6


def test_a_spool_damaged_in_the_middle_is_set_aside_and_recording_goes_on(tmp_path, caplog):
    path = tmp_path / "spool.sqlite"
    spool = Spool(path, limit_bytes=10**9)
    for _ in range(50):
        spool.append(whole_workflow())
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    spool.append(whole_workflow())
    assert spool.waiting() == 6
    assert "spool.corrupt" in caplog.text
    assert len(list(tmp_path.glob("spool.corrupt-*"))) == 1


def test_processes_that_meet_a_damaged_spool_at_once_set_it_aside_once(tmp_path):
    path = tmp_path / "spool.sqlite"
    path.write_bytes(b"not a database " * 1000)
    spools = [Spool(path, limit_bytes=10**9) for _ in range(8)]
    threads = [threading.Thread(target=spool.append, args=(whole_workflow(),)) for spool in spools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert spools[0].waiting() == 6 * len(spools)
    assert len(list(tmp_path.glob("spool.corrupt-*"))) == 1


def test_a_change_that_cannot_be_read_any_more_is_kept_apart_and_the_rest_is_replayed(tmp_path):
    from workledger.operational.apply import Outcome

    spool = Spool(tmp_path / "spool.sqlite", limit_bytes=10**9)
    spool.append(whole_workflow())
    with spool._open() as database:
        database.execute("UPDATE waiting SET change = x'c1c1c1' WHERE seq = 3")
    replayed = []

    def apply(changes):
        replayed.extend(changes)
        return [Outcome(applied=True)] * len(changes)

    assert spool.drain(apply) == 6
    assert (len(replayed), spool.waiting(), spool.refused()) == (5, 0, 1)


def test_what_was_replayed_makes_room(tmp_path):
    from workledger.operational.apply import Outcome

    changes = whole_workflow()
    spool = Spool(tmp_path / "spool.sqlite", limit_bytes=6_000)
    for _ in range(3):
        with pytest.raises(SpoolFull):
            for _ in range(1000):
                spool.append(changes)
        assert spool.waiting() >= 6
        spool.drain(lambda changes: [Outcome(applied=True)] * len(changes))


def test_a_home_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolFull, match="cannot be used"):
        Spool(tmp_path / "file" / "spool.sqlite", limit_bytes=10**9).append(whole_workflow())
