"""Merging what is sorted, without opening a source before it is reached."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["Source", "merged"]

K = TypeVar("K", int, str)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source(Generic[K, T]):
    """Something sorted by a key; none of its keys is below `first`."""

    first: K
    open: Callable[[], Iterator[tuple[K, T]]]


def merged(sources: Iterable[Source[K, T]]) -> Iterator[tuple[K, T]]:
    """Merge what is sorted, each key once: where two sources have it, the one that was named first gives it."""
    waiting = deque(sorted(enumerate(sources), key=lambda source: source[1].first))
    heap: list[tuple[K, int, T, Iterator[tuple[K, T]]]] = []
    last: K | None = None
    while heap or waiting:
        while waiting and (not heap or waiting[0][1].first <= heap[0][0]):
            number, source = waiting.popleft()
            _push(heap, number, source.open())
        if heap:
            key, number, value, rest = heapq.heappop(heap)
            _push(heap, number, rest)
            if key != last:
                yield key, value
            last = key


def _push(heap: list[tuple[K, int, T, Iterator[tuple[K, T]]]], number: int, rest: Iterator[tuple[K, T]]) -> None:
    for key, value in islice(rest, 1):
        heapq.heappush(heap, (key, number, value, rest))
