"""Programs to attack: each runs in a process of its own, and says on its output what was acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
TESTS = Path(__file__).parents[1]

__all__ = ["TESTS", "begin", "environment", "killed_at_the_end", "run_program"]


def environment(**extra: str) -> dict[str, str]:
    """What a program needs to find the helpers of the tests; nothing of ours that would change what it does."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WORKLEDGER_")}
    return {**inherited, "PYTHONPATH": str(TESTS), **extra}


def begin(name: str, *arguments: object, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a program of `programs/`."""
    return subprocess.Popen(
        [sys.executable, *options, str(PROGRAMS / f"{name}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run_program(
    name: str, *arguments: object, options: tuple[str, ...] = (), timeout_s: float = 200, may_complain: bool = False
) -> str:
    """Run a program to its end, and give what it prints; it fails when it says anything on stderr or hangs."""
    process = begin(name, *arguments, options=options)
    try:
        output, complaints = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, complaints = process.communicate()
        raise AssertionError(f"{name} hangs; so far: {output[-2000:]} {complaints[-4000:]}") from None
    assert process.returncode == 0, complaints[-4000:]
    assert may_complain or not complaints, complaints[-4000:]
    return output


@contextmanager
def killed_at_the_end(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process behind, whatever becomes of the test."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()
