"""Fixtures: real servers, started when a test first asks, one of each for every xdist worker, gone at the end."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import settings

import workledger
from support.kafka import KafkaBroker, kafka_broker
from support.metrics import influxdb, victoriametrics
from support.object_stores import Cloud, azurite, fake_gcs, moto, seaweedfs, use
from support.postgres import debian_postgres, fresh_database
from support.processes import kill_all_in, new_base
from support.redis import RedisCluster, SentinelPair, debian_redis, flush, redis_cluster, sentinel_pair
from support.requirements import REPOSITORY, require_program
from support.users import PlainUser, find_plain_user
from workledger.postgres.embedded import EmbeddedPostgres
from workledger.sdk.context import _place, current
from workledger.synapse.embedded import EmbeddedValkey

_BASE = "WORKLEDGER_TEST_DIR"
_GRACE_S = 60.0

# The same examples everywhere and every time, however long one takes; `--hypothesis-profile=others` looks for new ones.
settings.register_profile("others", settings.get_profile("ci"), derandomize=False)
settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts us in the background has SIGINT ignored, in our children too; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The workers inherit the name; whoever made the directory removes it.
    if _BASE not in os.environ:
        os.environ[_BASE] = str(new_base())
        config.add_cleanup(_remove_base)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """End the process when a test outlives its time-out by far, after writing down where each thread stands.

    The time-out is an alarm: it ends neither a call into a C library nor a block that waits for its threads. Another
    worker takes over the tests that are left. Long tests say how long they may take by a mark, which is heeded here.
    """
    marker = item.get_closest_marker("timeout")
    limit_s = float(marker.args[0] if marker and marker.args else item.config.getini("timeout"))
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # the real one, not the one that is captured
    faulthandler.dump_traceback_later(limit_s + _GRACE_S, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _nowhere_afterwards() -> Iterator[None]:
    """No test leaves a place behind in the thread that the next one runs in."""
    yield
    left = current()
    _place.set(None)  # else every test that follows would fail
    assert left is None


def _remove_base() -> None:
    """Remove the directory of all servers, after ending those whose worker died before it could."""
    base = Path(os.environ.pop(_BASE))
    for lifeline in base.rglob("lifeline"):
        kind = EmbeddedValkey if (lifeline.parent / "valkey.conf").exists() else EmbeddedPostgres
        kind(lifeline.parent).stop()
    kill_all_in(base)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def servers_dir() -> Path:
    """A directory for this worker's servers, which users other than ours can pass through."""
    directory = Path(os.environ[_BASE]) / os.environ.get("PYTEST_XDIST_WORKER", "main")
    directory.mkdir(mode=0o711)
    return directory


@pytest.fixture(scope="session")
def plain_user(servers_dir: Path) -> PlainUser:
    """A way to run Python as a user who is not root."""
    return find_plain_user(servers_dir / "plain-user")


@pytest.fixture(scope="session")
def postgres18_url(servers_dir: Path) -> Iterator[str]:
    """The embedded PostgreSQL 18."""
    with EmbeddedPostgres(servers_dir / "postgres18") as url:
        yield url


@pytest.fixture(scope="session")
def postgres15_url(servers_dir: Path) -> Iterator[str]:
    """Debian's PostgreSQL 15, the oldest that Workledger supports."""
    with debian_postgres(servers_dir / "postgres15", major=15) as url:
        yield url


@pytest.fixture
def database_url(postgres18_url: str) -> Iterator[str]:
    """An empty database on PostgreSQL 18."""
    with fresh_database(postgres18_url) as url:
        yield url


@pytest.fixture
def database15_url(postgres15_url: str) -> Iterator[str]:
    """An empty database on PostgreSQL 15."""
    with fresh_database(postgres15_url) as url:
        yield url


@pytest.fixture(params=["database15_url", "database_url"], ids=["postgresql-15", "postgresql-18"])
def any_postgres_url(request: pytest.FixtureRequest) -> str:
    """An empty database, the test running once on each PostgreSQL."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def _valkey_server(servers_dir: Path) -> Iterator[str]:
    with EmbeddedValkey(servers_dir / "valkey") as url:
        yield url


@pytest.fixture(scope="session")
def _redis7_server(servers_dir: Path) -> Iterator[str]:
    with debian_redis(servers_dir / "redis7") as url:
        yield url


@pytest.fixture
def valkey_url(_valkey_server: str) -> str:
    """The embedded Valkey, emptied."""
    flush(_valkey_server)
    return _valkey_server


@pytest.fixture
def redis7_url(_redis7_server: str) -> str:
    """Debian's Redis 7.0, the oldest that Workledger supports, emptied."""
    flush(_redis7_server)
    return _redis7_server


@pytest.fixture(scope="session")
def _sentinel_pair(servers_dir: Path) -> Iterator[SentinelPair]:
    with sentinel_pair(servers_dir / "sentinel") as pair:
        yield pair


@pytest.fixture
def sentinel(_sentinel_pair: SentinelPair) -> SentinelPair:
    """A master and a replica under a Sentinel, emptied."""
    _sentinel_pair.mend()
    flush(_sentinel_pair.master.url)
    return _sentinel_pair


@pytest.fixture(scope="session")
def _redis_cluster(servers_dir: Path) -> Iterator[RedisCluster]:
    with redis_cluster(servers_dir / "cluster") as cluster:
        yield cluster


@pytest.fixture
def cluster(_redis_cluster: RedisCluster) -> RedisCluster:
    """A cluster of three masters, one of which has a replica, emptied."""
    _redis_cluster.mend()
    _redis_cluster.flush()
    return _redis_cluster


@pytest.fixture(params=["redis7_url", "valkey_url"], ids=["redis-7", "valkey-9"])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """An empty server, the test running once on each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def kafka(servers_dir: Path) -> Iterator[KafkaBroker]:
    """A Kafka broker."""
    with kafka_broker(servers_dir / "kafka") as broker:
        yield broker


@pytest.fixture
def kafka_url(kafka: KafkaBroker) -> str:
    """A topic that is not there yet."""
    return f"{kafka.url}/events-{uuid.uuid4().hex[:12]}?partitions=3"


@pytest.fixture
def kurrentdb_url() -> str:
    """A KurrentDB server given from outside; no package brings one, so even WORKLEDGER_TEST_REQUIRE=all does without."""
    url = os.environ.get("WORKLEDGER_TEST_KURRENTDB_URL", "")
    if not url:
        pytest.skip("kurrentdb: no server can be installed; WORKLEDGER_TEST_KURRENTDB_URL may name one")
    return url


@pytest.fixture(scope="session")
def influxdb_url(servers_dir: Path) -> Iterator[str]:
    """InfluxDB 1.6; a test makes its own database in it."""
    with influxdb(servers_dir / "influxdb") as url:
        yield url


@pytest.fixture(scope="session")
def victoriametrics_url(servers_dir: Path) -> Iterator[str]:
    """VictoriaMetrics, which takes InfluxDB 2 and 3 writes; a test tells its series apart by a label."""
    with victoriametrics(servers_dir / "victoriametrics") as url:
        yield url


@pytest.fixture(scope="session")
def prometheus_binary() -> Path:
    """The program `prometheus`; `promtool` is beside it."""
    return require_program("prometheus", "prometheus")


@pytest.fixture(scope="session")
def promtool_binary() -> Path:
    """The program `promtool`, which judges an exposition."""
    return require_program("prometheus", "promtool")


@pytest.fixture(scope="session")
def pgbouncer_binary() -> Path:
    """The program `pgbouncer`, which refuses to run as root."""
    return require_program("pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """A Chromium that playwright can drive."""
    return require_program("chromium", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def tau_airline_file() -> Path:
    """200 real runs of a customer-service agent, one JSON object a line."""
    path = REPOSITORY.parent / "shared" / "data" / "tau-airline" / "gpt-4o.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} of tau-bench is not beside the repository")
    return path


@pytest.fixture
def ledger(database_url: str, tmp_path: Path) -> Iterator[workledger.Ledger]:
    """An open ledger on an empty database."""
    with workledger.open(database_url, home=tmp_path / "home") as ledger:
        yield ledger


@pytest.fixture(scope="session")
def _seaweedfs_server(servers_dir: Path) -> Iterator[Cloud]:
    with seaweedfs(servers_dir / "seaweedfs") as cloud:
        yield cloud


@pytest.fixture(scope="session")
def _moto_server(servers_dir: Path) -> Iterator[Cloud]:
    with moto(servers_dir / "moto") as cloud:
        yield cloud


@pytest.fixture(scope="session")
def _azurite_server(servers_dir: Path) -> Iterator[Cloud]:
    with azurite(servers_dir / "azurite") as cloud:
        yield cloud


@pytest.fixture(scope="session")
def _fake_gcs_server(servers_dir: Path) -> Iterator[Cloud]:
    with fake_gcs(servers_dir / "fake-gcs") as cloud:
        yield cloud


@pytest.fixture
def seaweedfs_cloud(_seaweedfs_server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """SeaweedFS, with its credentials in the environment."""
    use(_seaweedfs_server, monkeypatch)
    return _seaweedfs_server


@pytest.fixture
def moto_cloud(_moto_server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """moto, with its credentials in the environment."""
    use(_moto_server, monkeypatch)
    return _moto_server


@pytest.fixture
def azurite_cloud(_azurite_server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Azurite, with its credentials in the environment."""
    use(_azurite_server, monkeypatch)
    return _azurite_server


@pytest.fixture(
    params=["_seaweedfs_server", "_moto_server", "_azurite_server", "_fake_gcs_server"],
    ids=["seaweedfs", "moto", "azurite", "fake-gcs"],
)
def any_cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An object store, the test running once on each kind, with its credentials in the environment."""
    cloud = request.getfixturevalue(request.param)
    use(cloud, monkeypatch)
    return cloud
