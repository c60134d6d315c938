"""A Kafka broker in KRaft mode: its jars from Maven Central, kept in the user's cache directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from support.processes import free_port
from support.requirements import require
from support.waiting import wait_until

__all__ = ["KafkaBroker", "kafka_broker", "kafka_jars"]

_POM = Path(__file__).with_name("kafka") / "pom.xml"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
# A small heap, a quick start: a broker for tests holds a few megabytes.
_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
"""


def kafka_jars() -> Path:
    """Give the folder with the broker's jars, fetched when they are not there; skip where they cannot be had."""
    java = shutil.which("java")
    if java is None:
        require("kafka", "java is not installed; tools/install-test-servers installs it")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workledger-tests"
    cache.mkdir(parents=True, exist_ok=True)
    version = _POM.read_text().partition("kafka_2.13</artifactId>")[2].partition("<version>")[2].partition("<")[0]
    jars = cache / f"kafka-{version}"
    with (cache / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        require("kafka", "maven is not installed; tools/install-test-servers installs it")
    draft = jars.with_name(f"{jars.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    argv = [maven, "-q", "-B", "-f", _POM, _COPY, f"-DoutputDirectory={draft}"]
    run = subprocess.run(argv, cwd=jars.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    if run.returncode != 0:
        said = (run.stdout + run.stderr).strip().splitlines() or ["no reason given"]
        require("kafka", f"maven cannot fetch the broker: {said[0]}")
    draft.rename(jars)


class KafkaBroker:
    """One broker that is its own controller. It can be killed and started again on the same data and port."""

    def __init__(self, directory: Path) -> None:
        self._jars = kafka_jars()
        self._directory = directory
        directory.mkdir(parents=True)
        self.port = free_port()
        properties = _PROPERTIES.format(port=self.port, controller_port=free_port(), directory=directory)
        (directory / "server.properties").write_text(properties)
        self._run("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", "server.properties").wait(120)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = self._run("kafka.Kafka", "server.properties")
        client = AdminClient({**self.configuration, "reconnect.backoff.max.ms": 100})
        wait_until(lambda: _answers(client) or self.process is None or self.process.poll() is not None, timeout_s=120)
        if self.process.poll() is not None:
            raise RuntimeError((self._directory / "output.log").read_text(errors="replace")[-2000:])

    @property
    def configuration(self) -> dict[str, str]:
        """What other clients need to know."""
        return {"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": "0"}

    def kill(self) -> None:
        """kill -9."""
        self._end(subprocess.Popen.kill)

    def stop(self) -> None:
        self._end(subprocess.Popen.terminate)

    def _end(self, how) -> None:
        if self.process is not None:
            how(self.process)
            self.process.wait(60)
            self.process = None

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        argv = ["java", *_JVM, f"-Dworkledger.tests={self._directory}/", "-cp", f"{self._jars}/*", *command]
        with (self._directory / "output.log").open("ab") as output:
            return subprocess.Popen(argv, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _answers(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=0.5).brokers)
    except KafkaException:
        return False


@contextmanager
def kafka_broker(directory: Path) -> Iterator[KafkaBroker]:
    """Run a broker until the block ends."""
    broker = KafkaBroker(directory)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
