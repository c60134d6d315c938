"""What every benchmark shares: a server of its own, alternating runs, medians and ratios."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workledger.postgres.embedded import EmbeddedPostgres

__all__ = ["alternate", "arguments", "database", "report"]


@contextmanager
def database() -> Iterator[str]:
    """A fresh embedded PostgreSQL with its default, durable settings (fsync on)."""
    with tempfile.TemporaryDirectory(prefix="workledger-bench-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            yield server.ensure_running()
        finally:
            server.delete()


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """The command line: one integer option for each default, and `--rounds`."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in {"rounds": 5, **defaults}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    return parser.parse_args()


def alternate(contenders: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, float]:
    """The median of each contender's figure, the contenders taking turns (after one round that does not count)."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, run in contenders.items():
            figure = run()
            if round_:
                figures[name].append(figure)
    return {name: statistics.median(values) for name, values in figures.items()}


def per_second(count: int, work: Callable[[], object]) -> float:
    """How many a second, when `work` does `count`."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def report(title: str, rows: list[tuple[str, str, str]]) -> None:
    """Print figures as a table: what, the figure, how it stands to its bound."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_column("ratio and bound")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
