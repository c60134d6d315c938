"""The arrow from the log to InfluxDB: points at event time, one consumer for each place that is written to.

The cursor moves after the server has acknowledged, and rewriting changes nothing, so no crash loses or doubles a
point. Tags are bounded as the labels of the counters are, by the same memory; so the counters go first.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

import tenacity

from workledger.errors import StoreCorrupted, Unavailable
from workledger.flows import log_to_metrics
from workledger.flows.mount import mounted_if_behind
from workledger.log import consumers
from workledger.metrics import store
from workledger.metrics.influx import InfluxWriter
from workledger.metrics.instruments import SCRAPED
from workledger.metrics.points import lines_of, point
from workledger.model.change import check_time
from workledger.postgres.connection import Connection, translate_errors

__all__ = ["catch_up", "catch_up_with_archive", "write_gauges"]

logger = logging.getLogger(__name__)

BATCH: Final = 5_000
_PATIENCE_S: Final = 5.0


def catch_up(
    connection: Connection,
    writer: InfluxWriter,
    *,
    batch: int = BATCH,
    limit: int | None = None,
    attempts: int = 5,
    first_pause_s: float = 0.5,
) -> int:
    """Write the points of the sequenced events after the cursor, at most `limit` of them, and return how many.

    Tries each batch `attempts` times while the server is away, with growing pauses, and then raises `Unavailable`;
    raises `ConfigurationError` at once when it refuses the credentials. A second copy finds the cursor locked and
    returns 0.
    """
    log_to_metrics.catch_up(connection)
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_exponential(multiplier=first_pause_s, max=30) + tenacity.wait_random(0, first_pause_s),
        retry=tenacity.retry_if_exception(lambda error: type(error) is Unavailable),
        before_sleep=_tell,
        reraise=True,
    )
    total = 0
    while limit is None or total < limit:
        done = retrying(_write_batch, connection, writer, batch if limit is None else min(batch, limit - total))
        total += done
        if not done:
            break
    return total


def catch_up_with_archive(connection: Connection, writer: InfluxWriter) -> int:
    """Write the points of archived events after the cursor, for a place that is new; the rest is `catch_up`'s."""
    position = consumers.position_of(connection, writer.target.consumer)
    with mounted_if_behind(connection, position, with_state=True) as last:
        return catch_up(connection, writer, attempts=1) if last else 0


def _write_batch(connection: Connection, writer: InfluxWriter, limit: int) -> int:
    counted = consumers.position_of(connection, log_to_metrics.CONSUMER)
    if counted <= consumers.position_of(connection, writer.target.consumer):
        return 0
    # The request is made inside the transaction: its row lock is what keeps a second copy from writing the same.
    with translate_errors(), connection.transaction():
        after = store.lock_cursor(connection, writer.target.consumer, wait=False)
        if after is None:
            return 0
        upto = min(after + limit, counted)
        if upto <= after:
            return 0
        store.pin_plans(connection)
        admitted = store.admitted(connection)
        happenings = store.happenings(connection, after=after, upto=upto)
        if len(happenings) != upto - after:
            raise StoreCorrupted(
                f"positions {after + 1} to {upto} of the log hold {len(happenings)} events instead of {upto - after}; "
                "`workledger verify` says whether they are archived or missing",
                location=f"event_positions {after + 1}..{upto}",
            )
        writer.write([line for happening in happenings for line in lines_of(happening, admitted)])
        consumers.save(connection, writer.target.consumer, upto)
        return upto - after


def _tell(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.info("influx.retry attempt=%d error=%s", state.attempt_number, error)


def write_gauges(connection: Connection, writer: InfluxWriter, *, at: datetime) -> int:
    """Write what Prometheus would scrape as gauges now, and this process's CPU and memory, as points at `at`."""
    at_ns = int(check_time("at", at).timestamp() * 1000) * 1_000_000
    instruments = {instrument.name: instrument for instrument in SCRAPED}
    lines: list[str] = []
    for name, labels, value in store.scrape(connection, timeout_s=_PATIENCE_S)[1]:
        label_names = (label.name for label in instruments[name].labels)
        lines.append(point(name, tuple(zip(label_names, labels, strict=True)), (("value", float(value)),), at_ns))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    tags = (("host", socket.gethostname()),)
    fields = (("cpu_seconds", usage.ru_utime + usage.ru_stime), ("resident_memory_bytes", _resident_bytes(usage)))
    lines.append(point("workledger_process", tags, fields, at_ns))
    writer.write(lines)
    return len(lines)


def _resident_bytes(usage: resource.struct_rusage) -> int:
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return usage.ru_maxrss
