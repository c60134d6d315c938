"""Another process with a ledger on the same store, which records what it is told to."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import workledger
from workledger.model.change import Change

__all__ = ["Peer", "record_lanes"]


def record_lanes(ledger, lanes: list[tuple[str, list[Change]]]) -> list[list[object]]:
    """Record each lane's changes in order, all lanes at once; gives the outcomes and errors of each."""
    if not lanes:
        return []
    with ThreadPoolExecutor(len(lanes)) as pool:
        return list(pool.map(lambda lane: _LANES[lane[0]](ledger, lane[1]), lanes))


def _by_thread(ledger, changes):
    return [_answer(ledger.record, change) for change in changes]


def _by_coroutine(ledger, changes):
    async def one_after_another():
        return [await _async_answer(ledger, change) for change in changes]

    return asyncio.run(one_after_another())


def _by_batch(ledger, changes):
    return ledger.recorder.record_each(changes)


def _answer(record, change):
    try:
        return record(change)
    except Exception as error:
        return error


async def _async_answer(ledger, change):
    try:
        return await ledger.record_async(change)
    except Exception as error:
        return error


_LANES = {"thread": _by_thread, "coroutine": _by_coroutine, "batch": _by_batch}


class Peer:
    """A process that opens a project, records lanes of changes, and answers."""

    def __init__(self, url: str, home: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(url, str(home), theirs), daemon=True)
        self._process.start()

    def open(self, project: str) -> None:
        self._pipe.send(project)
        assert self._pipe.poll(120), "the other process does not open its ledger"
        assert self._pipe.recv() == "open"

    def begin(self, lanes: list[tuple[str, list[Change]]]) -> None:
        self._pipe.send(lanes)

    def answers(self) -> list[list[object]]:
        assert self._pipe.poll(120), "the other process hangs"
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(20)
        self._process.kill()


def _serve(url: str, home: str, pipe: Pipe) -> None:
    ledger = None
    while (order := pipe.recv()) is not None:
        if isinstance(order, str):
            if ledger is not None:
                ledger.close()
            ledger = workledger.open(url, home=home, project=order, record_timeout_s=60)
            pipe.send("open")
        else:
            pipe.send(record_lanes(ledger, order))
    if ledger is not None:
        ledger.close()
