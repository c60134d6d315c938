"""Redis servers: one, a master with a replica under a Sentinel, and a cluster."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from support.processes import free_port
from support.requirements import require_program
from support.waiting import wait_until

__all__ = ["RedisCluster", "RedisServer", "SentinelPair", "debian_redis", "flush", "redis_cluster", "sentinel_pair"]

_ALONE = ("--appendonly", "yes", "--save", "")
_QUICK_MS = 1000


class RedisServer:
    """One redis-server on a port and a directory of its own. It can be killed and started again."""

    def __init__(self, directory: Path, *options: str | Path, program: Path | None = None) -> None:
        self._program = program or require_program("redis-server", "redis-server")
        self._directory = directory
        self._options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2, socket_timeout=10)

    def start(self) -> None:
        common = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._directory)
        argv = (self._program, *self._options, *common)
        with (self._directory / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._directory
            )
        wait_until(self._answers_or_ended, timeout_s=30)
        if self.process.poll() is not None:
            raise RuntimeError((self._directory / "output.log").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def _answers_or_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None or _answers(self.url)


@contextmanager
def debian_redis(directory: Path) -> Iterator[str]:
    """Run Debian's redis-server in `directory`, with an append-only file, on a free port."""
    server = RedisServer(directory, *_ALONE)
    with _running([server]):
        yield server.url


class SentinelPair:
    """A master and its replica, and the Sentinel that puts the one in the other's place."""

    def __init__(self, directory: Path) -> None:
        self._servers = [RedisServer(directory / name, *_ALONE) for name in ("one", "two")]
        (directory / "sentinel.conf").write_text("")
        self._sentinel = RedisServer(directory / "sentinel", directory / "sentinel.conf", "--sentinel")

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self._sentinel.port}/ledger"

    @property
    def all(self) -> list[RedisServer]:
        return [*self._servers, self._sentinel]

    def begin(self) -> None:
        one, two = self._servers
        two.client.replicaof("127.0.0.1", one.port)
        wait_until(lambda: two.client.role()[3] == b"connected", timeout_s=60)  # a Sentinel looks only now and then
        with self._sentinel.client as sentinel:
            sentinel.execute_command("SENTINEL MONITOR", "ledger", "127.0.0.1", one.port, 1)
            # A machine that stands still for a moment is no master that died.
            sentinel.execute_command("SENTINEL SET", "ledger", "down-after-milliseconds", 60_000)
        self.settle()

    @property
    def master(self) -> RedisServer:
        with self._sentinel.client as sentinel:
            _, port = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "ledger")
        return next(server for server in self._servers if server.port == int(port))

    @property
    def replica(self) -> RedisServer:
        return next(server for server in self._servers if server is not self.master)

    def settle(self) -> None:
        """Wait until the replica follows the master, and the Sentinel knows it."""
        wait_until(self._is_settled, timeout_s=60)

    def fail_over(self) -> None:
        """Kill the master, and have the replica take its place; it has not got what `cut` kept from it."""
        old = self.master
        old.kill()
        wait_until(lambda: self._has_left(old), timeout_s=60)
        wait_until(lambda: self.master.client.role()[0] == b"master", timeout_s=60)

    def cut(self) -> None:
        """Let nothing more come from the master to the replica."""
        with self._sentinel.client as sentinel:  # so long it lets a replica follow somebody else
            sentinel.execute_command("SENTINEL SET", "ledger", "failover-timeout", 60_000)
        self.replica.client.replicaof("127.0.0.1", 1)

    def mend(self) -> None:
        """Start what was killed, as the replica of the other."""
        for server in self._servers:
            if server.process is None:
                server.start()
                server.client.replicaof("127.0.0.1", self.master.port)
        self.settle()

    def _has_left(self, old: RedisServer) -> bool:
        """Tell the Sentinel to fail over, unless it has; by itself it takes no replica that was cut off for long."""
        if self.master is not old:
            return True
        with self._sentinel.client as sentinel, suppress(redis.ResponseError):  # it is at it, or has not looked yet
            sentinel.execute_command("SENTINEL FAILOVER", "ledger")
        return False

    def _is_settled(self) -> bool:
        try:
            role, *_, state, _ = self.replica.client.role()
            with self._sentinel.client as sentinel:
                known = sentinel.sentinel_slaves("ledger")
        except (redis.RedisError, ValueError):
            return False
        return (role, state) == (b"slave", b"connected") and any(
            each["port"] == self.replica.port and each["flags"] == "slave" for each in known
        )


class RedisCluster:
    """Three masters, of which the first has a replica."""

    def __init__(self, directory: Path) -> None:
        options = (*_ALONE, "--cluster-enabled", "yes", "--cluster-node-timeout", str(_QUICK_MS))
        options = (*options, "--cluster-replica-validity-factor", "0")
        ports = [free_port() for _ in range(4)]
        self.nodes = [
            RedisServer(directory / f"node-{n}", *options, "--cluster-port", str(port)) for n, port in enumerate(ports)
        ]
        self._first_bus_port = ports[0]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def begin(self) -> None:
        per_node = 16384 // 3 + 1
        for n, node in enumerate(self.nodes[:3]):
            with node.client as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", n * per_node, min((n + 1) * per_node, 16384) - 1)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes[1:]:
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, self._first_bus_port)
        wait_until(lambda: all(self._knows_all(node) for node in self.nodes), timeout_s=60)
        first = self.nodes[0].client.execute_command("CLUSTER MYID")
        wait_until(lambda: self._is_replica_of(first), timeout_s=60)
        wait_until(lambda: all(self._is_well(node) for node in self.nodes), timeout_s=60)
        self._be_patient()

    def _is_replica_of(self, node_id: bytes) -> bool:
        try:
            self.nodes[3].client.execute_command("CLUSTER REPLICATE", node_id)
        except redis.ResponseError:  # it has not heard of that node
            return False
        return True

    def flush(self) -> None:
        for node in self.nodes:
            if node.client.role()[0] == b"master":
                node.client.flushall()

    def fail_over(self) -> None:
        """Kill the first node, and have its replica take its place."""
        self.nodes[0].kill()
        self._be_patient(_QUICK_MS)
        wait_until(lambda: self.nodes[3].client.role()[0] == b"master", timeout_s=60)
        wait_until(lambda: all(self._is_well(node) for node in self.nodes[1:]), timeout_s=60)
        self._be_patient()

    def mend(self) -> None:
        """Start what was killed, and make the first node, which finds that it is a replica now, what it was."""
        for node in self.nodes:
            if node.process is None:
                node.start()
        if self.nodes[0].client.role()[0] != b"master":
            wait_until(self._is_back, timeout_s=60)
            self.nodes[0].client.execute_command("CLUSTER FAILOVER")
        wait_until(lambda: self.nodes[0].client.role()[0] == b"master", timeout_s=60)
        wait_until(lambda: self.nodes[3].client.role()[0] == b"slave", timeout_s=60)
        wait_until(lambda: all(self._is_well(node) for node in self.nodes), timeout_s=60)
        self._be_patient()

    def _be_patient(self, timeout_ms: int = 60_000) -> None:
        """Take a node for dead after so long: a machine that stands still for a moment is no node that died."""
        for node in self.nodes:
            if node.process is not None:
                node.client.config_set("cluster-node-timeout", timeout_ms)

    def _is_back(self) -> bool:
        try:
            role = self.nodes[0].client.role()
        except redis.RedisError:
            return False
        return role[0] == b"slave" and role[3] == b"connected"

    def _knows_all(self, node: RedisServer) -> bool:
        return _info(node)["cluster_known_nodes"] == str(len(self.nodes))

    def _is_well(self, node: RedisServer) -> bool:
        return _info(node)["cluster_state"] == "ok"


def _info(node: RedisServer) -> dict[str, str]:
    text = node.client.execute_command("CLUSTER INFO")
    if isinstance(text, dict):
        return text
    return dict(line.split(":", 1) for line in text.decode().split())


@contextmanager
def sentinel_pair(directory: Path) -> Iterator[SentinelPair]:
    """Run a master, its replica and a Sentinel until the block ends."""
    directory.mkdir(parents=True)
    pair = SentinelPair(directory)
    with _running(pair.all):
        pair.begin()
        yield pair


@contextmanager
def redis_cluster(directory: Path) -> Iterator[RedisCluster]:
    """Run a cluster until the block ends."""
    cluster = RedisCluster(directory)
    with _running(cluster.nodes):
        cluster.begin()
        yield cluster


@contextmanager
def _running(servers: Sequence[RedisServer]) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


def flush(url: str) -> None:
    """Empty a server, its functions and its consumers' connections included."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
