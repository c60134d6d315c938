"""The spool under attack: what it took arrives, in order and once, whatever happens on the way."""

import threading

import pytest

import workledger
from support.changes import complete, start
from support.proxy import Proxy
from support.waiting import wait_until


@pytest.fixture
def proxy(database_url):
    with Proxy(database_url) as proxy:
        yield proxy


def finished(ledger):
    with ledger.pool.connection() as connection:
        return connection.execute("SELECT count(*) FROM workflows WHERE status = 'completed'").fetchone()[0]


def test_a_single_change_waits_until_postgresql_is_back(proxy, tmp_path):
    with workledger.open(proxy.url, home=tmp_path) as ledger:
        ledger.record(start(workflow_id="w"))
        proxy.refuse()
        ledger.record(complete(workflow_id="w"))
        threading.Event().wait(1.2)  # two attempts to replay it, in vain
        assert ledger._scribe._spool.waiting() == 1
        proxy.heal()
        wait_until(lambda: ledger.get_workflow("w").status == "completed")
        assert ledger.tally.refused == 0
