from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import workledger
from server.recorded import Dashboard
from support.processes import free_port, responds
from support.waiting import wait_until
from workledger.errors import ConfigurationError
from workledger.postgres.embedded import EmbeddedPostgres
from workledger.server.app import create_app
from workledger.server.serve import DashboardServer


def test_a_server_starts_stops_and_starts_again(dashboard: Dashboard) -> None:
    server = DashboardServer(create_app(dashboard.ledger), port=free_port())
    for _ in range(2):
        url = server.start()
        assert responds(f"{url}/api/v1/health")
        assert server.is_alive
        server.stop()
        assert not responds(f"{url}/api/v1/health")
        assert not server.is_alive
    server.stop()


def test_a_port_that_is_taken_is_said_at_once(dashboard: Dashboard) -> None:
    port = int(dashboard.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
        DashboardServer(create_app(dashboard.ledger), port=port).start()


def test_many_readers_at_once_are_all_answered(dashboard: Dashboard) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(dashboard.get("/").status), daemon=True) for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_when_it_is_told_to_and_the_program_goes_on(
    database_url: str, number: signal.Signals, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code = (
        "import sys, workledger; from workledger.server.serve import serve\n"
        "with workledger.open(sys.argv[1]) as ledger: serve(ledger, sys.argv[2]); print('over')"
    )
    argv = [sys.executable, "-c", code, database_url, url]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: responds(f"{url}/api/v1/health"), timeout_s=100)
    process.send_signal(number)
    assert process.communicate(timeout=100) == (b"over\n", b"")
    assert process.returncode == 0


def test_a_question_that_takes_too_long_is_given_up(own_ledger, serve_app) -> None:
    with own_ledger.start_workflow("w", workflow_id="w"):
        pass
    dashboard = serve_app(own_ledger, timeout_s=0.3)
    with own_ledger.pool.connection() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE task_executions IN ACCESS EXCLUSIVE MODE")
        answer = dashboard.get("/api/v1/workflows/w")
        assert answer.status == 503
        assert "took longer than 0.3 s" in answer.json["error"]["message"]
        # What needs nothing of that table is answered: in time, unless the machine stands still just then.
        wait_until(lambda: dashboard.get("/").status == 200, timeout_s=60)
    wait_until(lambda: dashboard.get("/api/v1/workflows/w").status == 200, timeout_s=60)


def test_nothing_can_be_written_through_the_connections_that_pages_use(own_ledger) -> None:
    import psycopg

    from workledger.server.reading import Reader

    with Reader(own_ledger.pool)._snapshot() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        try:
            connection.execute("DELETE FROM workflows")
        finally:
            connection.close()


def test_while_the_database_is_away_pages_say_so_and_recover(servers_dir: Path, serve_app, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(servers_dir / "dashboard-postgres")
    try:
        with workledger.open(postgres.ensure_running(), home=tmp_path, lease_s=600) as ledger:
            with ledger.start_workflow("w", workflow_id="w"):
                pass
            dashboard = serve_app(ledger)
            assert dashboard.get("/workflows/w").status == 200
            postgres.stop()
            page = dashboard.get("/")
            assert page.status == 503
            assert 'http-equiv="refresh"' in page.text
            assert "PostgreSQL cannot be reached" in page.text
            assert page.headers["retry-after"] == "3"
            answer = dashboard.get("/api/v1/health")
            assert (answer.status, answer.json["error"]["title"]) == (503, "The ledger cannot be read now")
            assert dashboard.get("/static/dashboard.css").status == 200
            postgres.ensure_running()
            wait_until(lambda: dashboard.get("/workflows/w").status == 200, timeout_s=60)
    finally:
        postgres.stop()


def test_a_schema_that_is_gone_is_said_with_the_way_out(own_ledger, serve_app) -> None:
    dashboard = serve_app(own_ledger)
    own_ledger.worker_id  # noqa: B018  registered before its table goes
    with own_ledger.pool.connection() as connection:
        connection.execute("DROP SCHEMA workledger CASCADE")
    answer = dashboard.get("/api/v1/workflows")
    assert answer.status == 503
    assert "workledger migrate" in answer.json["error"]["message"]


def test_a_fault_of_our_own_is_a_page_with_all_headers(own_ledger, serve_app, caplog) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a secret")

    answer = serve_app(own_ledger, training=broken).get("/health")
    assert answer.status == 500
    assert "a secret" not in answer.text
    assert answer.headers["content-security-policy"]
    assert "dashboard.failed" in caplog.text
