"""Is every file of the archive what was recorded, does the log say so, and where is it not what was sealed?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import psycopg

from workledger.errors import StoreCorrupted, Unavailable
from workledger.log import archive_index
from workledger.log.archive_leaves import SealComparison, erased_commitments
from workledger.log.archive_reads import id_floor
from workledger.model.archived import ArchiveFile
from workledger.postgres.archive_access import access_for
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training.event_archive import EventFile
from workledger.training.table_archive import PayloadFile, TableFile

__all__ = ["ArchiveFault", "verify_files"]

_CHUNK_BYTES: Final = 1024 * 1024
_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

#: Where a fault is, and what it is.
ArchiveFault = tuple[str, str]


def verify_files(
    connection: Connection, *, on_progress: Callable[[int], None] | None = None
) -> tuple[int, int, list[ArchiveFault]]:
    """Compare every file with what is recorded about it; returns how many files and rows, and the faults.

    A file with other bytes is read row by row, to say which of its events are not those that were sealed.
    """
    files = archive_index.files(connection)
    faults = [(f"archives[{name}]", what) for name, what in _fetch(connection, "check_archives")]
    for done, file in enumerate(files, start=1):
        faults += _verify_file(connection, file)
        if on_progress is not None:
            on_progress(done)
    return len(files), sum(file.rows for file in files), faults


def _verify_file(connection: Connection, file: ArchiveFile) -> list[ArchiveFault]:
    try:
        size_bytes, sha256 = _measure(connection, file)
    except (StoreCorrupted, Unavailable) as error:
        return [(file.url, error.message)]
    if (size_bytes, sha256) == (file.size_bytes, file.sha256):
        return []
    faults = [
        (
            file.url,
            f"has {size_bytes} bytes and sha256 {sha256.hex()}; recorded are {file.size_bytes} and {file.sha256.hex()}",
        )
    ]
    try:
        return faults + _locate(connection, file)
    except StoreCorrupted as error:
        return [*faults, (file.url, error.message)]


def _measure(connection: Connection, file: ArchiveFile) -> tuple[int, bytes]:
    digest, size_bytes = hashlib.sha256(), 0
    with _open(connection, file) as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.digest()


def _locate(connection: Connection, file: ArchiveFile) -> list[ArchiveFault]:
    if file.kind == "events":
        return _locate_events(connection, file)
    with _open(connection, file) as content:
        if file.kind == "payloads":
            rows = sum(1 for _ in PayloadFile(content, location=file.url).checked())
        else:
            rows = sum(table.num_rows for table in TableFile(content, location=file.url).tables())
    return [] if rows == file.rows else [(file.url, f"has {rows} rows; recorded are {file.rows}")]


def _locate_events(connection: Connection, file: ArchiveFile) -> list[ArchiveFault]:
    first_id = _FIRST_ID if file.first_time is None else id_floor(file.first_time)
    erased = erased_commitments(connection, first_id=first_id, next_id=_LAST_ID)
    content = EventFile(_open(connection, file), location=file.url)
    comparison = SealComparison(connection, content, location=file.url, erased=erased)
    rows = 0
    for envelopes in content.envelopes(after=0, upto=2**63 - 1):
        comparison.check(envelopes)
        rows += len(envelopes.position)
    faults = [(finding.location, finding.message) for finding in comparison.findings]
    if rows != file.rows:
        faults.append((file.url, f"has {rows} events; recorded are {file.rows}"))
    return faults


def _open(connection: Connection, file: ArchiveFile) -> BinaryIO:
    return access_for(connection, file).open(file)


def _fetch(connection: Connection, name: str) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", name))
        return cursor.fetchall()
