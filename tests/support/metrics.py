"""Servers that keep metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import free_port, responds, running
from support.requirements import require_program

__all__ = ["influxdb", "victoriametrics"]


@contextmanager
def influxdb(directory: Path) -> Iterator[str]:
    """Run Debian's InfluxDB 1 in `directory`; gives its base URL (`/write`, `/query`)."""
    program = require_program("influxdb", "influxd")
    directory.mkdir(parents=True)
    port = free_port()
    (directory / "influxdb.conf").write_text(
        f"""
        reporting-enabled = false
        bind-address = "127.0.0.1:{free_port()}"
        [meta]
          dir = "{directory}/meta"
        [data]
          dir = "{directory}/data"
          wal-dir = "{directory}/wal"
        [http]
          bind-address = "127.0.0.1:{port}"
        [monitor]
          store-enabled = false
        """
    )
    url = f"http://127.0.0.1:{port}"
    argv = (program, "-config", directory / "influxdb.conf")
    with running(argv, directory=directory, is_ready=lambda: responds(f"{url}/ping")):
        yield url


@contextmanager
def victoriametrics(directory: Path) -> Iterator[str]:
    """Run VictoriaMetrics in `directory`; gives its base URL (`/api/v2/write`, `/api/v1/query`)."""
    program = require_program("victoria-metrics", "victoria-metrics")
    directory.mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = (
        program,
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={directory}/data",
        "-search.latencyOffset=0s",  # what was written is what a query sees
        "-retentionPeriod=100y",
    )
    with running(argv, directory=directory, is_ready=lambda: responds(f"{url}/health")):
        yield url
