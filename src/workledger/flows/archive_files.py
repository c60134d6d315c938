"""Files of the archive, made and recorded: written once, read again, and told in the log in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar

from workledger.errors import StoreCorrupted
from workledger.log import archive_index
from workledger.model.archive_change import archive_file
from workledger.model.archived import ArchiveFile
from workledger.model.clock import Clock
from workledger.model.ids import new_event_id
from workledger.operational.apply import apply_one, make_partitions
from workledger.postgres.connection import Connection, translate_errors
from workledger.training.archive_files import ArchiveFiles, HashingFile

__all__ = ["Archive", "Written", "whole"]

T = TypeVar("T")


class FileWriter(Protocol):
    """Writes a file that needs an end to be one."""

    def close(self) -> None:
        """Write the end."""
        ...

    def give_up(self) -> None:
        """Leave the file as it is: it will never be one."""
        ...


W = TypeVar("W", bound=FileWriter)

_CHUNK_BYTES: Final = 1024 * 1024
_NAMES_TRIED: Final = 100


@contextmanager
def whole(writer: W) -> Generator[W]:
    """End the file of a writer when the block is through, and give it up when the block fails."""
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.give_up()
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file that has its name, and that nobody has looked into yet."""

    name: str
    url: str
    sha256: bytes
    size_bytes: int


@dataclass(slots=True, kw_only=True)
class Archive:
    """Where an archive goes, and what it needs from outside. `on_step` hears what has just been made durable."""

    files: ArchiveFiles
    clock: Clock
    on_step: Callable[[str, str], None] = field(default=lambda _step, _what: None)

    def write(self, name: str, fill: Callable[[HashingFile], T]) -> tuple[Written, T]:
        """Write a file; `fill` is given where to. A name that other bytes have is left alone, and another one taken.

        Somebody who died between writing a file and recording it leaves one that nothing names.
        """
        stem, _, suffix = name.rpartition(".")
        for number in range(1, _NAMES_TRIED):
            tried = name if number == 1 else f"{stem}-{number}.{suffix}"
            try:
                with self.files.preparing(tried) as sink:
                    result = fill(sink)
            except FileExistsError:
                continue
            self.on_step("written", tried)
            url = self.files.url(tried)
            return Written(name=tried, url=url, sha256=sink.sha256, size_bytes=sink.size_bytes), result
        raise StoreCorrupted(f"{_NAMES_TRIED} files like {name} are there; look at what makes them", location=name)

    def check_bytes(self, written: Written) -> None:
        """Read a file again and compare it with what was written."""
        digest = hashlib.sha256()
        with self.files.open(written.name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.digest() != written.sha256:
            raise StoreCorrupted(
                f"{written.url} does not read as it was written; nothing has left the database for it",
                location=written.url,
            )

    def recorded(
        self,
        written: Written,
        *,
        kind: str,
        source: str,
        rows: int,
        span: tuple[int, int] | None = None,
        times: tuple[datetime, datetime] | None = None,
        erased: int = 0,
    ) -> ArchiveFile:
        """What will be recorded about a file."""
        now = self.clock.now()
        return ArchiveFile(
            name=written.name,
            kind=kind,
            source=source,
            url=written.url,
            sha256=written.sha256,
            size_bytes=written.size_bytes,
            rows=rows,
            first_position=span[0] if span else None,
            last_position=span[1] if span else None,
            first_time=times[0] if times else None,
            last_time=times[1] if times else None,
            erased=erased,
            format_version=1,
            event_id=new_event_id(now),
            archived_at=now,
            removed_at=None,
        )

    def record(self, connection: Connection, files: list[ArchiveFile], also: Callable[[], None] = lambda: None) -> None:
        """Record files, and do what belongs to that, in one transaction with the events that say so."""
        changes = [archive_file(file, at=file.archived_at) for file in files]
        with translate_errors():
            make_partitions(connection, changes)
            with connection.transaction():
                for file, change in zip(files, changes, strict=True):
                    archive_index.add(connection, file)
                    apply_one(connection, change)
                also()
        for file in files:
            self.on_step("recorded", file.name)
