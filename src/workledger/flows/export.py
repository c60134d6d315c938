"""Out of the stores, into files for whoever trains: records as they were landed, conversations as chat examples."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import psycopg

from workledger.errors import ConfigurationError, Unavailable
from workledger.flows._chat import NotAnExample, example
from workledger.model.jsonvalue import decode
from workledger.operational.branches import branch
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training import formats
from workledger.training.compaction import opened
from workledger.training.formats import Format
from workledger.training.manifest import Entry
from workledger.training.records import SCHEMAS, RecordSchema, RecordType
from workledger.training.shard_store import ShardStore

__all__ = ["ChatExport", "RecordsExport", "export_chat", "export_records"]

_BATCH_ROWS: Final = 2000
_CONVERSATIONS: Final = 500
_MESSAGES: Final = 5000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsExport:
    """What was exported: everything up to `position`, in one file for each record type."""

    position: int
    rows: dict[RecordType, int]
    files: dict[RecordType, Path]


@dataclass(slots=True, kw_only=True)
class ChatExport:
    """What was exported: `written` examples; conversations that were left out, counted by the reason.

    In `repaired` examples, text held half a character (a lone surrogate), which U+FFFD now stands for.
    """

    file: Path
    written: int = 0
    repaired: int = 0
    left_out: dict[str, int] = field(default_factory=dict[str, int])


def export_records(
    stores: Sequence[ShardStore], folder: Path, *, file_format: str = "jsonl", on_progress: Progress | None = None
) -> RecordsExport:
    """Join the shards of a store into `<record type>.<format>` files in a folder, replacing what is there.

    Of several stores the first one that has the format everywhere is taken; else the first whose Parquet it can be
    made of. Every shard is compared with the manifest on the way; one that differs raises `StoreCorrupted`, and
    nothing of its record type is exported.
    """
    form = formats.named(file_format)
    store, entries, source = _source(stores, file_format)
    rows = {record_type: sum(entry.rows[record_type] for entry in entries) for record_type in RecordType}
    files = {record_type: folder / f"{record_type}.{file_format}" for record_type in RecordType}
    done, total = 0, sum(rows.values())
    for record_type, path in files.items():
        parts = [file for entry in entries if (file := entry.files_of(source).get(record_type)) is not None]
        with _replacing(path) as out:
            if source == file_format:
                form.join(opened(store, parts), out, SCHEMAS[record_type])
            else:
                _convert(opened(store, parts), out, form, SCHEMAS[record_type])
        done += rows[record_type]
        if on_progress is not None:
            on_progress(done, total)
    return RecordsExport(position=entries[-1].last if entries else 0, rows=rows, files=files)


def _source(stores: Sequence[ShardStore], file_format: str) -> tuple[ShardStore, list[Entry], str]:
    """Give the store to export from, its entries, and the format to read there."""
    found = [(store, store.entries()) for store in stores]
    for source in (file_format, "parquet"):
        for store, entries in found:
            if all(_has(entry, source) for entry in entries):
                return store, entries, source
    if not found:
        raise ConfigurationError(
            "there is no training store of files, only lake tables; read those with what reads lakes, or add "
            "file:FOLDER to the training_url",
            setting="WORKLEDGER_TRAINING_URL",
            value=file_format,
        )
    entry = next(entry for entry in found[0][1] if not _has(entry, file_format))
    raise ConfigurationError(
        f"positions {entry.first} to {entry.last} were not landed as {file_format}; export one of "
        f"{', '.join(sorted({file.format for file in entry.files}))}, or land them in a new folder",
        setting="WORKLEDGER_TRAINING_URL",
        value=file_format,
    )


def _has(entry: Entry, file_format: str) -> bool:
    named = entry.files_of(file_format)
    return all(record_type in named for record_type, rows in entry.rows.items() if rows)


def _convert(parts: Iterable[BinaryIO], out: BinaryIO, form: Format, schema: RecordSchema) -> None:
    """Write the rows of Parquet files in another format."""
    import pyarrow.parquet as pq  # noqa: PLC0415  an extra

    from workledger.training.arrow_lines import lines_of_batch  # noqa: PLC0415

    writer = form.open(out, schema)
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches(batch_size=_BATCH_ROWS):
            writer.write(lines_of_batch(batch, schema))
    writer.close()


def export_chat(
    connection: Connection, file: Path, *, min_score: float | None = None, on_progress: Progress | None = None
) -> ChatExport:
    """Write conversations as chat fine-tuning examples, one a line: `messages`, and `tools` where there are any.

    The messages are those of the newest branch, without those taken out, as they were recorded; the arguments of
    tool calls are JSON text. With `min_score`, only conversations of a workflow that was given a score of at least
    that. The order is that in which the conversations were made, so the same state gives the same file.
    """
    report = ChatExport(file=file)
    ((total,),) = _fetch(connection, "count_conversations", ())
    with _replacing(file) as out:
        for done, found in enumerate(_conversations(connection), start=1):
            try:
                _check_score(found.score, min_score)
                line, repaired = example(_messages(connection, found.conversation_id), tools=found.tools)
            except NotAnExample as reason:
                report.left_out[str(reason)] = report.left_out.get(str(reason), 0) + 1
            else:
                out.write(line)
                report.written += 1
                report.repaired += repaired
            if on_progress is not None:
                on_progress(done, max(total, done))
    return report


def _check_score(score: float | None, min_score: float | None) -> None:
    if min_score is None:
        return
    if score is None:
        raise NotAnExample("no score")
    if score < min_score:
        raise NotAnExample(f"score below {min_score:g}")


@dataclass(frozen=True, slots=True)
class _Conversation:
    conversation_id: str
    created_at: datetime
    score: float | None
    tools: Any


def _conversations(connection: Connection) -> Iterator[_Conversation]:
    after: tuple[datetime, str] = (datetime.min.replace(tzinfo=UTC), "")
    while rows := _fetch(connection, "chat_conversations", (*after, _CONVERSATIONS)):
        for conversation_id, created_at, score, tools in rows:
            yield _Conversation(conversation_id, created_at, score, None if tools is None else decode(tools))
        after = (rows[-1][1], rows[-1][0])


def _messages(connection: Connection, conversation_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after_seq = 0
    while page := branch(connection, conversation_id, after_seq=after_seq, limit=_MESSAGES):
        found += [dict(message.body) for message in page]
        after_seq = page[-1].seq
        if len(page) < _MESSAGES:
            break
    return found


@contextmanager
def _replacing(path: Path) -> Generator[BinaryIO]:
    """Write a file that takes its name when it is whole."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _fetch(connection: Connection, name: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", name), parameters)
        return cursor.fetchall()
