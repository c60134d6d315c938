"""The embedded Valkey: started, shared, adopted after a kill, stopped; its streams survive all of that."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import redis

from support import wait_until
from support.processes import answer_of
from support.users import PlainUser
from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable
from workledger.synapse import embedded
from workledger.synapse.embedded import EmbeddedValkey

START = """
import sys
from pathlib import Path
from workledger.synapse.embedded import EmbeddedValkey
server = EmbeddedValkey(Path(sys.argv[1]))
print("ready to start", flush=True)
print(server.ensure_running(), server.pid, flush=True)
"""
# Two moments in every run, many more under `make chaos`.
ATTEMPTS = [0, 1, *(pytest.param(number, marks=pytest.mark.chaos) for number in range(2, 30))]
NUMBERS = itertools.count()


@pytest.fixture
def data_dir(servers_dir: Path) -> Iterator[Path]:
    """A directory that does not exist yet; the server in it is deleted afterwards."""
    directory = servers_dir / f"embedded-valkey-{next(NUMBERS)}" / "valkey"
    directory.parent.mkdir()
    yield directory
    EmbeddedValkey(directory).delete()
    shutil.rmtree(directory.parent)


def start_elsewhere(data_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready to start\n"
    return process


def call(url: str, *command: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*command)


def titles() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_it_starts_and_is_found_again(data_dir: Path) -> None:
    server = EmbeddedValkey(data_dir)
    url = server.ensure_running()
    assert call(url, "PING")
    began = server.pid
    assert EmbeddedValkey(data_dir).ensure_running() == url
    assert server.pid == began


def test_it_keeps_an_append_only_file_drops_nothing_and_has_no_port(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        settings = client.config_get("*")
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"
        assert (data_dir / "socket").stat().st_mode & 0o777 == 0o700


def test_four_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    starters = [start_elsewhere(data_dir) for _ in range(4)]
    answers = [answer_of(starter) for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0], answers
    assert len(set(answers)) == 1


def test_stop_ends_it_and_the_next_start_has_the_data(data_dir: Path) -> None:
    server = EmbeddedValkey(data_dir)
    url = server.ensure_running()
    call(url, "XADD", "stream", "1-0", "a", "b")
    EmbeddedValkey(data_dir).stop()
    assert not server.is_running()
    assert server.pid is None
    server.stop()
    assert server.ensure_running() == url
    assert call(url, "XLEN", "stream") == 1


def test_a_killed_server_is_replaced_and_keeps_all_but_the_last_second(data_dir: Path) -> None:
    server = EmbeddedValkey(data_dir)
    url = server.ensure_running()
    call(url, "XADD", "stream", "1-0", "a", "b")
    wait_until(lambda: call(url, "INFO", "persistence")["aof_pending_bio_fsync"] == 0)
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: server.pid is None)
    assert server.ensure_running() == url
    assert server.pid != killed
    assert call(url, "XLEN", "stream") == 1


def test_a_rewriting_child_that_outlived_its_server_does_not_block_the_next_start(data_dir: Path) -> None:
    server = EmbeddedValkey(data_dir)
    url = server.ensure_running()
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline()
        for number in range(3000):
            pipeline.set(f"key-{number}", "x" * 100)
        pipeline.execute()
        client.config_set("rdb-key-save-delay", "20000")  # microseconds a key: the child takes its time
        client.bgrewriteaof()
    name = Path(f"/proc/{server.pid}/cmdline").read_text().split()[-1].strip("\0")
    wait_until(lambda: any(title.startswith(f"valkey-aof-rewrite {name}") for title in titles()))
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.pid is None)
    assert server.ensure_running() == url
    assert call(url, "DBSIZE") == 3000


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_kill_at_any_moment_of_a_start_leaves_nothing_in_the_way(data_dir: Path, attempt: int) -> None:
    starter = start_elsewhere(data_dir)
    time.sleep(random.uniform(0, 0.06))
    starter.kill()
    answer_of(starter)
    server = EmbeddedValkey(data_dir)
    assert call(server.ensure_running(), "PING")
    if attempt % 2:
        os.kill(server.pid, signal.SIGKILL)
        assert call(wait_until(server.ensure_running), "PING")


@pytest.mark.parametrize("name", ["it's my, project", "-".join(["long"] * 40)])
def test_odd_and_long_paths_work(data_dir: Path, name: str) -> None:
    server = EmbeddedValkey(data_dir.parent / name / "größe")
    url = server.ensure_running()
    assert call(url, "PING")
    server.stop()
    assert server.ensure_running() == url
    socket_dir = (server.data_dir / "socket").readlink()
    server.delete()
    assert not socket_dir.exists()


def test_a_server_that_cannot_start_says_why_and_that_nothing_is_lost(data_dir: Path) -> None:
    server = EmbeddedValkey(data_dir)
    server.ensure_running()
    server.stop()
    manifest = data_dir / "data" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    with pytest.raises(SynapseUnavailable, match=r"(?s)AOF.*the log fills Synapse again"):
        server.ensure_running()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="WORKLEDGER_SYNAPSE_URL"):
        EmbeddedValkey(tmp_path / "file" / "valkey").ensure_running()


def test_without_the_extra_the_message_names_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(embedded, "find_spec", find_nothing)
    with pytest.raises(MissingExtra, match=r"workledger\[redis\]") as caught:
        EmbeddedValkey(data_dir).ensure_running()
    assert caught.value.extra == "redis"


def test_a_plain_user_starts_and_stops_it(plain_user: PlainUser) -> None:
    code = """
from pathlib import Path
from workledger.synapse.embedded import EmbeddedValkey
server = EmbeddedValkey(Path("project/.workledger/valkey"))
with server as url:
    print(url.startswith("unix://") and server.is_running())
print(server.is_running())
"""
    assert plain_user.run(code).split() == ["True", "False"]
