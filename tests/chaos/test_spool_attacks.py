"""The spool under attack: what it took arrives, in order and once, whatever happens on the way."""

import logging

import pytest

import workledger
from support.changes import complete, start, whole_workflow
from support.proxy import Proxy
from support.waiting import wait_until
from workledger.sdk.spool import Spool


@pytest.fixture
def proxy(database_url):
    with Proxy(database_url) as proxy:
        yield proxy


def finished(ledger):
    with ledger.pool.connection() as connection:
        return connection.execute("SELECT count(*) FROM workflows WHERE status = 'completed'").fetchone()[0]


def test_a_single_change_waits_until_postgresql_is_back(proxy, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "workledger.sdk.scribe"), workledger.open(proxy.url, home=tmp_path) as ledger:
        ledger.record(start(workflow_id="w"))
        proxy.refuse()
        ledger.record(complete(workflow_id="w"))
        wait_until(lambda: caplog.text.count("record.still_away") >= 2)
        assert ledger._scribe._spool.waiting() == 1
        proxy.heal()
        wait_until(lambda: ledger.get_workflow("w").status == "completed")
        assert ledger.tally.refused == 0


def test_what_was_buffered_when_postgresql_went_away_is_replayed_in_order(proxy, tmp_path):
    with workledger.open(proxy.url, home=tmp_path, durability="buffered", buffer_s=0.3) as ledger:
        ledger.record(start(workflow_id="before"))
        ledger.flush()
        proxy.refuse()
        streams = [whole_workflow(tasks=20) for _ in range(25)]  # many batches, each needing the one before
        for changes in zip(*streams, strict=True):
            for change in changes:
                ledger.record(change)
        wait_until(lambda: ledger.tally.spooled)
        proxy.heal()
        wait_until(lambda: finished(ledger) == 25)
        assert ledger.tally.refused == 0


def test_a_spool_that_cannot_be_read_for_a_while_is_replayed_afterwards(proxy, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "workledger.sdk.scribe"), workledger.open(proxy.url, home=tmp_path) as ledger:
        ledger.record(start(workflow_id="w"))
        proxy.refuse()
        ledger.record(complete(workflow_id="w"))
        spool = ledger._scribe._spool
        path, spool._path = spool._path, tmp_path  # a folder is no file that can be opened
        proxy.heal()
        wait_until(lambda: caplog.text.count(f"the spool {tmp_path} cannot be used") >= 2)
        assert ledger.get_workflow("w").status == "running"
        spool._path = path
        wait_until(lambda: ledger.get_workflow("w").status == "completed")


def test_a_spool_that_is_no_database_is_put_aside_and_recording_goes_on(proxy, tmp_path, caplog):
    with workledger.open(proxy.url, home=tmp_path) as ledger:
        ledger.record(start(workflow_id="w"))
        proxy.refuse()
        path = ledger._scribe._spool.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not a database " * 1000)
        ledger.record(complete(workflow_id="w"))
        assert "spool.corrupt" in caplog.text
        proxy.heal()
        wait_until(lambda: ledger.get_workflow("w").status == "completed")
    (aside,) = path.parent.glob("*.corrupt-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_what_a_killed_process_spooled_is_replayed_by_one_that_was_open_before(database_url, tmp_path):
    with workledger.open(database_url, home=tmp_path, lease_s=1) as ledger:
        ledger.worker_id  # noqa: B018  it works, and so it has a heartbeat
        Spool(ledger._scribe._spool.path, limit_bytes=10**9).append(whole_workflow())
        wait_until(lambda: finished(ledger) == 1)
        wait_until(lambda: ledger._scribe._spool.waiting() == 0)  # it is forgotten after it was replayed
