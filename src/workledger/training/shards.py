"""Shards: immutable files, one for each record type and format, that cover a range of positions.

`events/events-000000000001-000000000500.jsonl` holds the lines of the events 1 to 500. A shard is written under a
temporary name, brought to the disk, and then linked to its name, which fails when the name is taken: a shard that
can be seen is whole, and is never replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from workledger.errors import StoreCorrupted
from workledger.training.formats import Format
from workledger.training.records import SCHEMAS, RecordType

__all__ = [
    "NewFile",
    "OpenShard",
    "ShardFile",
    "create_file",
    "file_sha256",
    "range_name",
    "range_of",
    "shard_file",
    "sync_folder",
]

_NAME: Final = re.compile(r"(?:[a-z_]+-)?(\d{12,})-(\d{12,})\.[a-z]+")
_BUFFER_BYTES: Final = 1024 * 1024


class ShardFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says about one file; `path` is relative to the store."""

    path: str
    record_type: RecordType
    format: str
    rows: int
    bytes: int
    sha256: str


def range_name(first: int, last: int) -> str:
    """Give the part of a file's name that says which positions it covers."""
    return f"{first:012d}-{last:012d}"


def range_of(name: str) -> tuple[int, int] | None:
    """Give the positions that a file of this name covers; None when the name is none of ours."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def shard_file(
    record_type: RecordType, format_name: str, first: int, last: int, *, rows: int, file: NewFile
) -> ShardFile:
    """Give what the manifest says about a file that is whole."""
    return ShardFile(
        path=f"{record_type}/{record_type}-{range_name(first, last)}.{format_name}",
        record_type=record_type,
        format=format_name,
        rows=rows,
        bytes=file.size_bytes,
        sha256=file.sha256,
    )


class OpenShard:
    """The files of a range that is being written. They begin to exist with their first line."""

    def __init__(self, folder: Path, *, formats: Sequence[Format]) -> None:
        self._folder = folder
        self._formats = formats
        self._files: dict[tuple[RecordType, str], _ShardInWork] = {}

    def write(self, record_type: RecordType, lines: Sequence[bytes]) -> None:
        """Add lines of one record type, in ascending order of position."""
        for form in self._formats:
            key = (record_type, form.name)
            if key not in self._files:
                self._files[key] = _ShardInWork(self._folder, record_type, form)
            self._files[key].write(lines)

    def rows(self) -> dict[RecordType, int]:
        """Give how many lines each record type has so far."""
        rows = dict.fromkeys(RecordType, 0)
        return rows | {record_type: file.rows for (record_type, _), file in self._files.items()}

    def seal(self, first: int, last: int) -> Iterator[tuple[Path, ShardFile]]:
        """Bring the files to the disk; gives where each is and what it will be."""
        for (record_type, name), shard in sorted(self._files.items()):
            shard.close()
            yield shard.file.path, shard_file(record_type, name, first, last, rows=shard.rows, file=shard.file)

    def discard(self) -> None:
        """Forget what was written."""
        for shard in self._files.values():
            shard.file.discard()
        self._files.clear()


class NewFile:
    """A file under a temporary name, with the digest of what went into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = path.open("xb", buffering=_BUFFER_BYTES)

    @property
    def sha256(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes, /) -> None:
        """Add bytes."""
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def close(self) -> None:
        """Bring it to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove it."""
        # The disk may be full: closing writes what is buffered, fails again, and closes all the same.
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


class _ShardInWork:
    """The file of one record type in one format."""

    def __init__(self, folder: Path, record_type: RecordType, form: Format) -> None:
        self.file = NewFile(folder / f"{record_type}-{uuid.uuid4().hex}.{form.name}")
        self.rows = 0
        self._writer = form.open(self.file, SCHEMAS[record_type])

    def write(self, lines: Sequence[bytes]) -> None:
        self._writer.write(lines)
        self.rows += len(lines)

    def close(self) -> None:
        self._writer.close()
        self.file.close()


def create_file(temporary: Path, final: Path, *, sha256: str) -> None:
    """Give a whole file its name, unless the name is taken.

    The same bytes under that name are fine: somebody was there before. Other bytes raise `StoreCorrupted`.
    """
    try:
        os.link(temporary, final)
    except FileExistsError:
        if file_sha256(final) != sha256:
            raise StoreCorrupted(
                f"{final} is there already with other content; move it away to have it written again",
                location=str(final),
            ) from None
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK} or final.exists():
            raise
        # A file system without hard links: the lock of the store keeps other writers away.
        temporary.rename(final)
        return
    temporary.unlink()


def file_sha256(path: Path) -> str:
    """Give the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
