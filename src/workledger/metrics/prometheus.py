"""The metrics as Prometheus reads them: a page, a collector for a registry of your own, and a small server.

What is shown is read from PostgreSQL at each scrape, so any number of processes may serve it and all show the same.
When PostgreSQL does not answer, the page says `workledger_up 0` and keeps what it knows of its own process.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, Final, Self
from urllib.parse import urlsplit

from workledger._version import __version__
from workledger.errors import ConfigurationError, MissingExtra, WorkledgerError
from workledger.metrics import store
from workledger.metrics.instruments import BUILD_INFO, SCRAPED, STORED, UP, Instrument
from workledger.postgres.connection import Connection

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise MissingExtra("metrics need prometheus-client: pip install 'workledger[metrics]'", extra="metrics") from error

__all__ = ["CONTENT_TYPE", "LedgerCollector", "MetricsServer", "address_of", "render", "serve"]

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
DEFAULT_PORT: Final = 9464
#: A scrape that cannot have the connection for so long says that the database is away.
PATIENCE_S: Final = 5.0


def render(connection: Connection) -> bytes:
    """Return the page (its type is `CONTENT_TYPE`), read over a connection that is in no transaction.

    Never raises because of the database: then the page says `workledger_up 0`.
    """
    return generate_latest(_registry(_OfConnection(connection)))


class LedgerCollector(Collector):
    """Reads the metrics over a connection of its own, opened at the first scrape and again after a loss.

    For a registry of your own: `registry.register(LedgerCollector(lambda: connect(url, timeout_s=3)))`.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._is_away = False

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not need the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric; only `workledger_up 0` and the build when PostgreSQL does not answer."""
        if not self._lock.acquire(timeout=PATIENCE_S):
            yield from _away()
            return
        try:
            yield from self._read()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection; a later scrape opens a new one."""
        with self._lock:
            self._drop()

    def _read(self) -> list[Metric]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            families = _families(self._connection)
        except WorkledgerError as error:
            self._drop()
            if not self._is_away:
                logger.warning("metrics.database_away error=%s (said once until it is back)", error)
            self._is_away = True
            return _away()
        self._is_away = False
        return families

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class MetricsServer:
    """Serves `/metrics` from a thread until closed; a context manager."""

    def __init__(self, collector: LedgerCollector, *, host: str, port: int) -> None:
        self._collector = collector
        self._server = _listen(host, port, _registry(collector))
        self._thread = threading.Thread(target=self._server.serve_forever, name="workledger-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """Where to scrape it."""
        host = str(self._server.server_address[0])
        return f"http://[{host}]:{self.port}/metrics" if ":" in host else f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop listening and close the connection."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._collector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(connect: Callable[[], Connection], *, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> MetricsServer:
    """Serve `/metrics` on an address; port 0 takes a free one. Raises `ConfigurationError` when it is taken.

    `connect` opens the server's own connection, now and after each loss; give it a short `timeout_s`, so that a
    scrape is answered while the database is away.
    """
    return MetricsServer(LedgerCollector(connect), host=host, port=port)


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of `prometheus://HOST:PORT`; without them, loopback and 9464."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError as error:
        raise _malformed(url) from error
    if parts.scheme != "prometheus" or parts.path.strip("/") or parts.query:
        raise _malformed(url)
    return host, DEFAULT_PORT if port is None else port


def _malformed(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"metrics URL {url!r} is not of the form prometheus://HOST:PORT", setting="WORKLEDGER_METRICS_URL", value=url
    )


# -- the page ---------------------------------------------------------------------------------------------------


def _families(connection: Connection) -> list[Metric]:
    counted, going_on = store.scrape(connection, timeout_s=PATIENCE_S)
    by_name = {name: list(rows) for name, rows in groupby(counted, key=itemgetter(0))}
    now: dict[str, list[tuple[Any, ...]]] = {}
    for row in going_on:
        now.setdefault(row[0], []).append(row)
    return [
        *(_stored(instrument, by_name.get(instrument.name, [])) for instrument in STORED),
        *(_gauge(instrument, [(row[1], row[2]) for row in now.get(instrument.name, [])]) for instrument in SCRAPED),
        _gauge(UP, [([], 1)]),
        _gauge(BUILD_INFO, [([__version__], 1)]),
    ]


def _away() -> list[Metric]:
    return [_gauge(UP, [([], 0)]), _gauge(BUILD_INFO, [([__version__], 1)])]


def _stored(instrument: Instrument, rows: list[tuple[Any, ...]]) -> Metric:
    if instrument.type == "histogram":
        return _histogram(instrument, rows)
    return _counter(instrument, {tuple(labels): value for _, labels, value, _, _ in rows})


def _counter(instrument: Instrument, values: dict[tuple[str, ...], Decimal]) -> Metric:
    family = CounterMetricFamily(instrument.name, instrument.help, labels=_label_names(instrument))
    if instrument.zeroes:
        for labels in tuple(values):
            for last in instrument.labels[-1].values:
                values.setdefault((*labels[:-1], str(last)), Decimal(0))
    for labels in sorted(values):
        family.add_metric(labels, float(values[labels]))
    return family


def _histogram(instrument: Instrument, rows: list[tuple[Any, ...]]) -> Metric:
    family = HistogramMetricFamily(instrument.name, instrument.help, labels=_label_names(instrument))
    for labels, group in groupby(rows, key=itemgetter(1)):
        counts = dict.fromkeys(map(float, (*instrument.buckets, float("inf"))), 0)
        total = Decimal(0)
        for _, _, observations, upper_bound, seconds in group:
            counts[upper_bound] = int(observations)
            total += seconds
        bounds = sorted(counts)
        cumulated = accumulate(counts[bound] for bound in bounds)
        buckets = [(floatToGoString(bound), count) for bound, count in zip(bounds, cumulated, strict=True)]
        family.add_metric(labels, buckets, float(total))
    return family


def _gauge(instrument: Instrument, rows: Iterable[tuple[list[str], float]]) -> Metric:
    family = GaugeMetricFamily(instrument.name, instrument.help, labels=_label_names(instrument))
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _label_names(instrument: Instrument) -> list[str]:
    return [label.name for label in instrument.labels]


class _OfConnection(Collector):
    """Reads once over a connection that belongs to somebody else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def collect(self) -> Iterator[Metric]:
        try:
            families = _families(self._connection)
        except WorkledgerError as error:
            logger.debug("metrics.database_away error=%s", error)
            families = _away()
        yield from families


def _registry(collector: Collector) -> CollectorRegistry:
    """A registry of one: the ledger's metrics and those of this process, whatever else the program registers."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


# -- the server -------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version = f"workledger/{__version__}"
    timeout = 30

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"The metrics are at /metrics\n", "text/plain; charset=utf-8")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, encode(self.server.registry), content_type)

    do_HEAD = do_GET  # noqa: N815  the name http.server asks for

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name http.server gives it
        logger.debug("metrics.request " + format, *args)  # noqa: G003  http.server's own format


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    registry: CollectorRegistry


class _Server6(_Server):
    address_family = socket.AF_INET6


def _listen(host: str, port: int, registry: CollectorRegistry) -> _Server:
    try:
        server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} for metrics: {error.strerror or error}; "
            "give another address in WORKLEDGER_METRICS_URL, such as prometheus://127.0.0.1:9465",
            setting="WORKLEDGER_METRICS_URL",
            value=f"prometheus://{host}:{port}",
        ) from error
    server.registry = registry
    return server
