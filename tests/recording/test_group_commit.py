"""Many callers share one connection and its commits; whatever happens to it, nothing is lost and nothing doubled."""

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import workledger
from support.changes import complete, make, start, whole_workflow
from support.proxy import Proxy
from support.waiting import wait_until
from workledger.errors import DatabaseUnavailable, NotFound
from workledger.flows.record import Recorder
from workledger.log.sequencer import sequence
from workledger.model.ids import new_id


def totals(ledger):
    with ledger.pool.connection() as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM workflows WHERE status = 'completed'),"
            " (SELECT count(*) FROM events WHERE workflow_id IS NOT NULL)"
        ).fetchone()


def record_whole(ledger):
    for change in whole_workflow():
        ledger.record(change)


def test_two_hundred_threads_record_at_once(ledger):
    threads = [threading.Thread(target=record_whole, args=(ledger,)) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert totals(ledger) == (200, 1200)


def test_threads_and_coroutines_record_at_once(ledger):
    async def record_async():
        for change in whole_workflow():
            await ledger.record_async(change)

    async def many():
        await asyncio.gather(*(record_async() for _ in range(50)))

    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(record_whole, ledger) for _ in range(50)]
        asyncio.run(many())
        for future in futures:
            future.result(60)
    assert totals(ledger) == (100, 600)


def test_each_caller_gets_its_own_error(ledger):
    def one(n):
        ledger.record(complete(workflow_id=f"nope-{n}"))

    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(one, n) for n in range(100)]
        for n, future in enumerate(futures):
            with pytest.raises(NotFound) as refused:
                future.result(60)
            assert refused.value.entity_id == f"nope-{n}"


def test_a_cancelled_coroutine_does_not_stop_the_others(ledger):
    async def many():
        tasks = [asyncio.ensure_future(ledger.record_async(start(workflow_id=f"w{n}"))) for n in range(20)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(many())
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 19
    assert len(ledger.workflows(limit=100)) == 20


def test_an_event_loop_closed_in_mid_commit_leaves_the_recorder_usable(ledger):
    loop = asyncio.new_event_loop()

    async def begin():
        asyncio.ensure_future(ledger.record_async(start(workflow_id="w")))
        await asyncio.sleep(0)

    loop.run_until_complete(begin())
    for pending in asyncio.all_tasks(loop):
        pending.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert ledger.record(start(workflow_id="after")).applied


def test_a_connection_killed_by_the_server_is_replaced(ledger, database_url):
    record_whole(ledger)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    record_whole(ledger)
    assert totals(ledger) == (2, 12)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_connection_cut_between_commit_and_its_answer_is_resolved_by_identity(database_url, tmp_path, lost):
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path) as ledger:
        record_whole(ledger)
        proxy.drop_answers(lost)  # the server commits; the client never hears of it
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(record_whole, ledger) for _ in range(8)]:
                future.result(60)
        wait_until(lambda: proxy.lost == lost)
        wait_until(lambda: totals(ledger) == (9, 54))
        assert ledger.tally.refused == 0


def test_deadlocks_between_processes_are_retried(ledger, database_url, tmp_path):
    for n in range(2):
        ledger.record(start(workflow_id=f"w{n}"))
    with workledger.open(database_url, home=tmp_path / "other") as other:

        def progress(one, order):
            for n in range(30):
                one.recorder.record_all(
                    [make("progress_workflow", workflow_id=f"w{w}", state_data={"n": n}) for w in order]
                    + [make("progress_workflow", workflow_id=f"w{w}", state_data={"n": -n}) for w in reversed(order)]
                )

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(progress, ledger, (0, 1)), pool.submit(progress, other, (1, 0))]:
                future.result(60)
    with ledger.pool.connection() as connection:
        assert connection.execute(
            "SELECT count(*) FROM events WHERE event_type = 'workflow.progressed'"
        ).fetchone() == (240,)


def test_a_forked_child_records_on_a_connection_of_its_own(ledger):
    record_whole(ledger)
    pid = os.fork()
    if pid == 0:
        try:
            record_whole(ledger)
            os._exit(0)
        except BaseException:
            os._exit(1)
    record_whole(ledger)
    assert os.waitpid(pid, 0)[1] == 0
    record_whole(ledger)
    assert totals(ledger) == (4, 24)


def test_a_database_that_cannot_be_reached_is_a_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match="WORKLEDGER_DATABASE_URL"):
            workledger.open(f"postgresql://127.0.0.1:{port}/none", spool_limit_bytes=0)


def test_buffered_changes_are_committed_soon_and_in_order(database_url, tmp_path):
    with workledger.open(database_url, home=tmp_path, durability="buffered", buffer_s=0.05) as ledger:
        for _ in range(50):
            record_whole(ledger)
        ledger.flush()
        assert totals(ledger) == (50, 300)
        assert ledger.tally.buffered == 300
        assert ledger.tally.refused == 0
        with ledger.pool.connection() as connection:
            sequence(connection, schema="workledger")
            rows = connection.execute(
                "SELECT e.workflow_id, e.event_type FROM event_positions p JOIN events e USING (event_id)"
                " WHERE e.workflow_id IS NOT NULL ORDER BY position"
            ).fetchall()
        by_workflow = {}
        for workflow_id, event_type in rows:
            by_workflow.setdefault(workflow_id, []).append(event_type)
        once = ["workflow.started", *["task.started", "task.completed"] * 2, "workflow.completed"]
        assert list(by_workflow.values()) == [once] * 50


def test_a_buffered_change_arrives_without_a_flush(database_url, tmp_path):
    with workledger.open(database_url, home=tmp_path, durability="buffered") as ledger:
        ledger.record(start(workflow_id="w"))
        (workflow,) = wait_until(ledger.workflows)
        assert workflow.status == "running"


def test_a_buffered_change_that_is_refused_is_counted_and_logged(database_url, tmp_path, caplog):
    with workledger.open(database_url, home=tmp_path, durability="buffered") as ledger:
        ledger.record(complete(workflow_id="nope"))
        ledger.flush()
        assert ledger.tally.refused == 1
    assert "record.refused" in caplog.text


def test_closing_commits_what_is_buffered(database_url, tmp_path):
    with workledger.open(database_url, home=tmp_path, durability="buffered", buffer_s=30) as ledger:
        for n in range(10):
            ledger.record(start(workflow_id=f"w{n}"))
    with workledger.open(database_url, home=tmp_path) as ledger:
        assert len(ledger.workflows()) == 10


def test_a_recorder_can_be_closed_and_used_again(ledger):
    assert isinstance(ledger.recorder, Recorder)
    ledger.recorder.close()
    assert ledger.record(start(workflow_id=new_id())).applied
