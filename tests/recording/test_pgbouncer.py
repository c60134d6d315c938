"""Behind PgBouncer in transaction mode: every transaction may meet another server connection."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import workledger
from support.changes import whole_workflow
from support.processes import free_port
from support.waiting import wait_until
from workledger.errors import ConfigurationError
from workledger.postgres._install import server_account
from workledger.postgres.migrate import migrate


@pytest.fixture
def pooled_url(database_url, pgbouncer_binary, servers_dir):
    """PgBouncer with two server connections, for a role that finds the project by itself."""
    info = psycopg.conninfo.conninfo_to_dict(database_url)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS pooled")
        admin.execute("CREATE ROLE pooled LOGIN SUPERUSER")
        admin.execute(f"ALTER ROLE pooled IN DATABASE {info['dbname']} SET search_path = workledger")
    directory = servers_dir / f"pgbouncer-{free_port()}"
    directory.mkdir(mode=0o755)
    account = server_account(directory / "none-yet")
    port = free_port()
    (directory / "users.txt").write_text('"pooled" ""\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n{info['dbname']} = host={info['host']} port={info['port']} dbname={info['dbname']} user=pooled\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {directory}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\nserver_reset_query =\n"
    )
    process = subprocess.Popen(
        [pgbouncer_binary, directory / "pgbouncer.ini"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
        **account.as_subprocess_options(),
    )
    url = f"postgresql://pooled@127.0.0.1:{port}/{info['dbname']}"

    def answers():
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers)
        yield url
    finally:
        process.kill()  # asked kindly, newer ones wait for their clients
        process.wait(60)
        with psycopg.connect(database_url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pooled'")
            admin.execute(f"ALTER ROLE pooled IN DATABASE {info['dbname']} RESET search_path")


def test_recording_reading_and_resuming_work_behind_a_pooler(pooled_url, tmp_path):
    with workledger.open(pooled_url, home=tmp_path, pooled=True) as ledger:

        @ledger.task
        def step(n):
            return n

        @ledger.workflow
        def program(fail):
            if fail and not done:
                step(0)
                done.append(1)
                raise ValueError("first time")
            return step(0) + step(1)

        done = []
        with pytest.raises(ValueError, match="first time"):
            program.options(workflow_id="w")(True)
        assert program.options(workflow_id="w")(True) == 1
        assert ledger.get_workflow("w").attempt == 2

        def record(_):
            for change in whole_workflow():
                ledger.record(change)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(record, range(50)))
        ledger.recorder.record_all([change for _ in range(40) for change in whole_workflow()])
        with ledger.pool.connection() as connection:
            assert connection.execute("SELECT count(*) FROM workflows WHERE status = 'completed'").fetchone() == (91,)


def test_a_role_that_does_not_find_the_project_is_told_how(pooled_url, database_url, tmp_path):
    with workledger.open(database_url, project="other", home=tmp_path):
        pass
    with pytest.raises(ConfigurationError, match="ALTER ROLE pooled IN DATABASE"):
        workledger.open(pooled_url, project="other", home=tmp_path, pooled=True)


def test_the_schema_can_be_made_beforehand_on_a_direct_connection(database_url, pooled_url, tmp_path):
    from workledger.postgres.connection import connect

    with connect(database_url) as direct:
        migrate(direct, schema="workledger")
    with workledger.open(pooled_url, home=tmp_path, pooled=True) as ledger, ledger.start_workflow("w"):
        pass


def test_the_past_is_refused_because_it_needs_a_session(pooled_url, tmp_path):
    with (
        workledger.open(pooled_url, home=tmp_path, pooled=True) as ledger,
        pytest.raises(ConfigurationError, match="a session of its own"),
        ledger.as_of(),
    ):
        pass
