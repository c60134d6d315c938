"""The worker loop: runs what waits for somebody to run it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from workledger.errors import Conflict, InvalidTransition, Unavailable, WorkledgerError
from workledger.operational import reads

if TYPE_CHECKING:
    from workledger.sdk.ledger import Ledger

__all__ = ["WorkerLoop"]

logger = logging.getLogger(__name__)


class WorkerLoop:
    """Runs pending and interrupted workflows of the functions registered with a ledger, `concurrency` at a time.

    Several copies are safe: the guarded change that starts or resumes a workflow lets one of them have it. A
    workflow that fails with an error of its own is recorded as failed and left alone.
    """

    def __init__(self, ledger: Ledger, *, concurrency: int = 4, poll_s: float = 1.0) -> None:
        self._ledger = ledger
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._running: dict[str, Future[None]] = {}
        self._heard_again_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then wait for what is running."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="workledger-worker") as pool:
            while not stop.is_set():
                try:
                    started = self.start_waiting(pool)
                except Unavailable as error:
                    logger.warning("worker.waiting reason=%s", error)
                    # Others could not send their heartbeats either: before their work is taken, they are heard.
                    self._heard_again_s = self._ledger.clock.monotonic_s() + self._ledger.lease_s
                    started = 0
                if not started:
                    stop.wait(self._poll_s)

    def run_until_idle(self) -> int:
        """Work until nothing waits any more; returns how many workflows were run."""
        total = 0
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="workledger-worker") as pool:
            while started := self.start_waiting(pool):
                total += started
                for future in list(self._running.values()):
                    future.result()
        return total

    def start_waiting(self, pool: ThreadPoolExecutor) -> int:
        """Start what waits, as far as there is room; returns how many were started."""
        self._running = {key: future for key, future in self._running.items() if not future.done()}
        room = self._concurrency - len(self._running)
        names = self._ledger.definition_names()
        if room <= 0 or not names:
            return 0
        with self._ledger.pool.connection() as connection:
            waiting = reads.resumable(
                connection,
                names,
                limit=room + len(self._running),
                with_overdue=self._ledger.clock.monotonic_s() >= self._heard_again_s,
            )
        chosen = [workflow_id for workflow_id, _ in waiting if workflow_id not in self._running][:room]
        for workflow_id in chosen:
            self._running[workflow_id] = pool.submit(self._run_one, workflow_id)
        return len(chosen)

    def _run_one(self, workflow_id: str) -> None:
        logger.info("worker.began workflow_id=%s", workflow_id)
        try:
            answer = self._ledger.resume(workflow_id)
            if inspect.isawaitable(answer):
                asyncio.run(_finished(answer))
        except (InvalidTransition, Conflict) as error:
            logger.info("worker.left workflow_id=%s reason=%s", workflow_id, error)
        except WorkledgerError as error:
            logger.error("worker.refused workflow_id=%s reason=%s", workflow_id, error)  # noqa: TRY400  one line
        except Exception as error:  # noqa: BLE001  the workflow's own failure, which is on record
            logger.warning("worker.failed workflow_id=%s error=%s", workflow_id, type(error).__name__)
        else:
            logger.info("worker.completed workflow_id=%s", workflow_id)


async def _finished(answer: object) -> None:
    if inspect.isawaitable(answer):
        await answer
