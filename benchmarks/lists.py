"""Lists over a project and over one of ten times its size: how the slowest of a hundred requests grows.

By default 10,000 and 100,000 workflows, made here. Two projects that `fill.py` made are measured with

    python benchmarks/lists.py --url postgresql://… --small filled_100k --large filled_1m

Requests alternate between the two, so that what else the machine does falls on both alike, in several rounds, of which
the median counts. Each is what a person asks for: a page of 50, and for the timeline a workflow that nobody has
looked at before.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from fill import fill
from harness import database, report
from workledger.operational import search
from workledger.postgres.connection import Connection, connect

BOUND = 1.3
Request = Callable[[Connection, str], object]

HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
REQUESTS: dict[str, Request] = {
    "running, oldest first": lambda connection, _: search.running_workflows(connection),
    "failed, newest first": lambda connection, _: search.failed_workflows(connection),
    "failed in the last hour": lambda connection, _: search.failed_workflows(connection, since=HOUR_AGO),
    "newest": lambda connection, _: search.find_workflows(connection),
    "newest of a name": lambda connection, _: search.find_workflows(connection, name="workflow-20"),
    "newest of a tag": lambda connection, _: search.find_workflows(connection, tag="tag-3"),
    "of a subject": lambda connection, _: search.find_workflows(connection, subject="user-5"),
    "timeline": search.timeline,
}
#: The four that the bound is on.
BOUNDED = frozenset({"running, oldest first", "failed, newest first", "newest", "timeline"})


def some_workflows(connection: Connection, count: int) -> list[str]:
    """Ids from anywhere in the project."""
    found = connection.execute(
        "SELECT workflow_id FROM workflows WHERE random() < %s LIMIT %s",
        (min(2 * count / max(estimate(connection), 1), 1), 2 * count),
    ).fetchall()
    ids = [workflow_id for (workflow_id,) in found]
    random.shuffle(ids)
    return ids


def estimate(connection: Connection) -> int:
    return connection.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = 'workflows'::regclass").fetchone()[0]


def measure(request: Request, connections: list[Connection], ids: list[list[str]], count: int) -> list[list[float]]:
    """The times in ms of `count` requests over each connection, taking turns."""
    times: list[list[float]] = [[] for _ in connections]
    for n in range(count):
        for which, connection in enumerate(connections):
            began = time.perf_counter()
            request(connection, ids[which][n % len(ids[which])])
            times[which].append((time.perf_counter() - began) * 1000)
    return times


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def compare(small: Connection, large: Connection, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    ids = [some_workflows(connection, options.requests) for connection in (small, large)]
    rows = []
    for name, request in REQUESTS.items():
        measure(request, [small, large], ids, 20)  # catalogs and plans, once a connection
        rounds = [measure(request, [small, large], ids, options.requests) for _ in range(options.rounds)]
        p50s = [statistics.median(statistics.median(times[which]) for times in rounds) for which in (0, 1)]
        p99s = [statistics.median(p99(times[which]) for times in rounds) for which in (0, 1)]
        ratio = statistics.median(p99(after) / p99(before) for before, after in rounds)
        bound = f"; at most {BOUND}" if name in BOUNDED else ""
        rows.append(
            (
                f"{name}: p50, p99 in ms",
                f"{p50s[1]:.2f}, {p99s[1]:.2f}",
                f"p99 {ratio:.2f} of a tenth's ({p50s[0]:.2f}, {p99s[0]:.2f}){bound}",
            )
        )
    return rows


@contextmanager
def projects(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """The database and its two projects; made here unless they were named."""
    if options.url:
        yield options.url, options.small, options.large
        return
    with database() as url:
        fill(url, project="small", scale=options.scale // 10)
        fill(url, project="large", scale=options.scale)
        yield url, "small", "large"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=100_000, help="workflows of the larger project")
    parser.add_argument("--requests", type=int, default=300, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", help="a database with two filled projects")
    parser.add_argument("--small", default="small")
    parser.add_argument("--large", default="large")
    options = parser.parse_args()
    with (
        projects(options) as (url, small, large),
        connect(url, schema=small) as at_small,
        connect(url, schema=large) as at_large,
    ):
        title = f"Lists of {estimate(at_large):,} workflows, beside {estimate(at_small):,}"
        report(title, compare(at_small, at_large, options))


if __name__ == "__main__":
    main()
