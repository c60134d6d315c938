"""A new training store made from the log, or up to a position from another store.

Lines are functions of the log, so that the same boundaries of ranges give the same bytes, whoever writes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import BinaryIO, Final

from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.flows.mount import mounted_if_behind
from workledger.postgres.connection import Connection
from workledger.training.compaction import opened
from workledger.training.deriver import Deriver
from workledger.training.log_lines import LogLines
from workledger.training.shard_store import Rewriter, ShardStore
from workledger.training.shards import NewFile, ShardFile
from workledger.training.store import StoreWriter, TrainingStore

__all__ = ["boundaries", "copy_ranges", "rebuild"]

_PAGE: Final = 2000
_CHUNK_BYTES: Final = 1024 * 1024

Progress = Callable[[int, int], None]
Range = tuple[int, int]


def boundaries(head: int, *, block_rows: int, like: Sequence[Range] = ()) -> list[int]:
    """Give the ends of the ranges up to a position: those of another store, then multiples of `block_rows`."""
    ends = [last for _, last in like if last <= head]
    done = ends[-1] if ends else 0
    ends += range(done - done % block_rows + block_rows, head + 1, block_rows)
    return ends if ends[-1:] == [head] or not head else [*ends, head]


def rebuild(
    connection: Connection, store: TrainingStore, *, ends: Sequence[int], on_progress: Progress | None = None
) -> int:
    """Make a new store from the log, with ranges that end at `ends`, and give the position it has come to.

    A rebuild that was interrupted goes on where it was; a store that has come to somewhere else is refused.
    """
    log = LogLines(connection)
    with store.writing() as writer:
        if writer is None:
            raise Unavailable(f"the training store {store.name} is being written by another process")
        _check(writer, store, log, ends)
        with mounted_if_behind(connection, writer.position):
            deriver = Deriver(log)
            for end in (end for end in ends if end > writer.position):
                _land(log, deriver, writer, end)
                if on_progress is not None:
                    on_progress(end, ends[-1])
        return writer.position


def copy_ranges(source: ShardStore, target: ShardStore, *, before: int) -> None:
    """Copy the ranges before a position, each file compared with its digest; those that are there are left alone."""
    entries = [entry for entry in source.entries() if entry.first < before]
    if not entries or entries[-1].last != before - 1:
        raise ConfigurationError(f"no range of {source.name} begins at position {before}", setting="from", value=before)
    done = target.position()
    with target.rewriting() as rewriter:
        if rewriter is None:
            raise Unavailable(f"the training store {target.name} is being rewritten by another process")
        for entry in (entry for entry in entries if entry.last > done):
            for file, part in zip(entry.files, opened(source, entry.files), strict=True):
                _place_copy(rewriter, file, part)
            rewriter.publish(entry)


def _check(writer: StoreWriter, store: TrainingStore, log: LogLines, ends: Sequence[int]) -> None:
    """Refuse to go on in a store that such a rebuild has not begun."""
    position = writer.position
    if position and (position not in ends or log.event_id(position) != writer.last_event_id):
        raise ConfigurationError(
            f"the training store {store.name} has come to position {position}, and not by this rebuild: "
            "its ranges end elsewhere, or it holds another log; choose an empty one",
            setting="store",
            value=store.name,
        )


def _land(log: LogLines, deriver: Deriver, writer: StoreWriter, end: int) -> None:
    last_event_id = log.event_id(end)
    if last_event_id is None:
        raise StoreCorrupted(f"the log has no position {end}", location=str(end))
    for page in log.iterate(after=writer.position, upto=end, page=_PAGE):
        for record_type, lines in deriver.derive(page):
            writer.write(record_type, lines)
    writer.commit(last=end, last_event_id=last_event_id)


def _place_copy(rewriter: Rewriter, file: ShardFile, part: BinaryIO) -> None:
    out = NewFile(rewriter.folder / file.path.replace("/", "-"))
    try:
        shutil.copyfileobj(part, out, _CHUNK_BYTES)
        out.close()
        rewriter.place(out.path, file)
    finally:
        out.discard()
