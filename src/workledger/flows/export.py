"""Out of the stores, into files for whoever trains: records as they were landed, conversations as chat examples."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import psycopg

from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.flows._chat import NotAnExample, example
from workledger.model.jsonvalue import decode
from workledger.operational.branches import branch
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training import formats
from workledger.training.manifest import Entry
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.shards import ShardFile
from workledger.training.store import LocalStore

__all__ = ["ChatExport", "RecordsExport", "export_chat", "export_records"]

_CHUNK_BYTES: Final = 1024 * 1024
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
    store: LocalStore, folder: Path, *, file_format: str = "jsonl", on_progress: Progress | None = None
) -> RecordsExport:
    """Join the shards of a store into `<record type>.<format>` files in a folder, replacing what is there.

    Every shard is compared with the manifest on the way; one that differs raises `StoreCorrupted`, and nothing of
    its record type is exported.
    """
    entries = store.entries()
    head = formats.named(file_format).head
    rows = {record_type: sum(entry.rows[record_type] for entry in entries) for record_type in RecordType}
    files = {record_type: folder / f"{record_type}.{file_format}" for record_type in RecordType}
    done, total = 0, sum(rows.values())
    for record_type, path in files.items():
        header = head(SCHEMAS[record_type])
        with _replacing(path) as out:
            out.write(header)
            for entry in entries:
                file = _file_of(entry, record_type, file_format)
                if file is None:
                    continue
                for chunk in _verified(store, file, header):
                    out.write(chunk)
                done += file.rows
                if on_progress is not None:
                    on_progress(done, total)
    return RecordsExport(position=entries[-1].last if entries else 0, rows=rows, files=files)


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


def _file_of(entry: Entry, record_type: RecordType, file_format: str) -> ShardFile | None:
    file = entry.files_of(file_format).get(record_type)
    if file is None and entry.rows[record_type]:
        raise ConfigurationError(
            f"positions {entry.first} to {entry.last} were not landed as {file_format}; export one of "
            f"{', '.join(sorted({file.format for file in entry.files}))}, or land them in a new folder",
            setting="WORKLEDGER_TRAINING_URL",
            value=file_format,
        )
    return file


def _verified(store: LocalStore, file: ShardFile, header: bytes) -> Iterator[bytes]:
    """Give the content of a shard after its header; the last of it only when all of it is what the manifest says."""
    digest = hashlib.sha256()
    held = b""
    with store.open(file) as shard:
        held = shard.read(len(header))
        digest.update(held)
        held = held if held != header else b""
        while chunk := shard.read(_CHUNK_BYTES):
            digest.update(chunk)
            if held:
                yield held
            held = chunk
    if digest.hexdigest() != file.sha256:
        raise StoreCorrupted(
            f"{file.path} is not what the manifest says; `workledger verify --training` names the lines",
            location=file.path,
        )
    yield held


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
